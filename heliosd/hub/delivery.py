"""How one client is sent something: by a write to its socket, or by its queue. Synchronous throughout.

After each call the hub sees to what is left to do: `HubClient.wants_pump`, `gone`, `is_dropping`, `take_lost`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio
from msgspec import UNSET, UnsetType

from heliosd.protocol.close_codes import CloseReason
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import Subscription
from heliosd.websocket.frames import close_frame

from .client import BATCH_BYTES, HubClient
from .send_queue import IN_STATUS, DroppedEvents, Question


def begin(client: HubClient, upgrade_answer: bytes, message: OutgoingMessage) -> None:
    """Write the answer to the upgrade, if it is still to be sent, and the first message in one write."""
    client.count(message)
    _write(client, upgrade_answer + client.frame_of(message))


def deliver(client: HubClient, message: OutgoingMessage, question: Question | UnsetType = UNSET) -> None:
    """Write `message` now if nothing waits, else queue it; of what does not fit the queue keeps account.
    `question` is the one that a status answers."""
    if client.close_reason is not None or client.gone:
        return
    if message.kind is Kind.STATUS:
        _forget_held_values(client)
    held_back = client.holds_back(message)
    if not (client.behind or held_back or client.is_dropping or client.waker is not None or client.in_flight):
        client.count(message)
        _write(client, client.frame_of(message))
        return
    if client.in_flight and message.kind is Kind.CONTROL and message.payload:
        # Only the flight is in the way, for a moment: answers count against no limit then.
        client.send_queue.put_beyond_limits(message)
    elif not client.send_queue.put(message, question):
        drop_stream(client)
        client.send_queue.refuse(message, question)
    flush(client)


def deliver_all(client: HubClient, messages: Sequence[OutgoingMessage], frames: bytes) -> None:
    """Deliver one after the other. `frames` are the messages joined, in the form that this client agreed to."""
    if client.ready and client.waker is None:
        for message in messages:
            client.count(message)
        _write(client, frames)
        return
    for message in messages:
        deliver(client, message)


def deliver_first(client: HubClient, messages: Iterable[OutgoingMessage]) -> None:
    """Give a client that has just joined its status, and what it missed. They do not count against the queue."""
    client.send_queue.put_replay(messages)
    flush(client)


def deliver_gap(
    client: HubClient, gap: OutgoingMessage, names: DroppedEvents, status: OutgoingMessage
) -> None:
    """Events were lost before they came here: `gap` and `status`, in the place of the events."""
    if client.close_reason is None:
        _forget_held_values(client)
        client.send_queue.put_gap(gap, names, status)
        flush(client)


def drop_stream(client: HubClient, *, epoch: bool = False) -> None:
    """Drop all but answers, and queue nothing else until `resume_stream`."""
    client.send_queue.drop_stream(epoch=epoch)
    client.reconsider()


def resume_stream(
    client: HubClient,
    status: Callable[[Question | UnsetType], OutgoingMessage],
    *,
    welcome: OutgoingMessage | None = None,
    gap: OutgoingMessage | None = None,
) -> None:
    """Put a status in the place of what was dropped, behind `welcome` or `gap`; see `SendQueue`."""
    _forget_held_values(client)
    client.send_queue.resume_stream(status, welcome=welcome, gap=gap)
    flush(client)
    client.reconsider()


def subscribe(client: HubClient, subscription: Subscription) -> None:
    """What waits and is not wanted any more is removed: values, and where the answer goes first, events too."""
    client.subscription = subscription
    if client.queue is not None:
        client.queue.narrow(subscription, events=client.held)


def flush(client: HubClient) -> None:
    """Whatever waits may go, unless a pump sees to it already: the first of it at once, the rest by a pump."""
    if client.behind or client.gone or client.close_reason is not None or not client.has_more():
        return
    if client.waker is not None or client.in_flight:
        client.fall_behind()
    elif _write(client, client.take_joined()):
        if client.has_more():
            client.fall_behind()
        else:
            client.catch_up()


def landed(client: HubClient) -> None:
    """No other thread writes to its socket any more: what came meanwhile may go, behind the rest of the flight."""
    if client.transport.pending:
        client.fall_behind()
    elif client.wants_pump and not client.unsent and client.close_reason is None:
        client.behind = client.wants_pump = False
        flush(client)
    client.reconsider()


def _forget_held_values(client: HubClient) -> None:
    """Those that a status contains: it says the same, or newer."""
    for name in IN_STATUS:
        if client.paced is not None and name in client.paced:
            client.paced[name].held = None


def release(client: HubClient) -> None:
    """It has presented a newer token: first the answers go, then what waited for it."""
    client.held = False
    if client.queue is not None:
        client.queue.answers_first()
    client.reconsider()
    flush(client)


def end(client: HubClient, close_reason: CloseReason, *, send_waiting: bool) -> None:
    """Send the close frame, behind what waits if `send_waiting`, else instead of it. Only the first call counts."""
    if client.close_reason is not None:
        return
    frame = close_frame(close_reason.code, close_reason.reason)
    if client.queue is not None and (not send_waiting or client.held or client.queue.dropping):
        client.queue.clear()
    client.held = False
    client.is_ending(close_reason)
    if client.gone:
        return
    if client.behind or client.in_flight:
        client.send_queue.put_beyond_limits(OutgoingMessage.of_frame("close frame", frame))
        client.fall_behind()
    elif _write(client, frame):
        client.linger()


def _write(client: HubClient, frame: bytes) -> bool:
    """Whether the socket took all of it."""
    # TLS takes whatever it is given, and does not say how much of that has left. So it is given no more than a
    # client must take within `write_timeout`.
    at_once = memoryview(frame)[:BATCH_BYTES] if client.transport.encrypted else frame
    try:
        taken = client.transport.write_now(at_once)
    except (OSError, ValueError, trio.ClosedResourceError):
        client.lose()
        return False
    if taken == len(frame) and not client.transport.pending:
        return True
    client.unsent = memoryview(frame)[taken:]
    client.fall_behind()
    return False
