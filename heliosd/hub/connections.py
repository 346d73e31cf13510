"""The crowd: who is connected, and how one of them is told something, pinged, or sent away.

Everything here is synchronous but the pings, and waits for no client.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import assert_never

import trio

from heliosd.clock import Instant
from heliosd.config.model import Settings
from heliosd.protocol import server_messages
from heliosd.protocol.close_codes import DISCONNECTED, REVOKED, SILENT, TOO_SLOW, CloseReason
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.websocket.frames import ping_frame, pong_frame

from .client import Delivery, HubClient
from .client_view import ClientView, StreamKind
from .counters import HubCounters
from .fanout import Unfinished
from .send_queue import DroppedMessages
from .time_slice import TimeSlice
from .write_pump import write_pump

PING_SLOTS = 64
"""Clients are pinged in so many groups over a ping interval, never all in one tick."""


class Connections(ABC):
    """All clients of one daemon. Implements `web.parts.Roster`."""

    def __init__(self, settings: Settings, now: Callable[[], Instant], pumps: trio.Nursery) -> None:
        self.counters = HubCounters()
        self._settings = settings
        self._now = now
        self._pumps = pumps
        self._clients: dict[str, HubClient] = {}
        self._by_kind: Counter[StreamKind] = Counter()
        self._closing: CloseReason | None = None
        self._empty = trio.Event()
        self._empty.set()
        self._patience_changed = trio.Event()
        settings.on_change(self._look_for_silence)

    @abstractmethod
    def _status_message(self) -> OutgoingMessage:
        """`status` with all in it that has been told."""

    def _add(self, client: HubClient) -> None:
        self._clients[client.id] = client
        self._by_kind[client.stream_kind] += 1
        if self._empty.is_set():
            self._empty = trio.Event()

    def _remove(self, client: HubClient) -> bool:
        """Whether it was there."""
        known = self._clients.pop(client.id, None) is not None
        if known:
            self._by_kind[client.stream_kind] -= 1
        if not self._clients:
            self._empty.set()
        return known

    # -- telling one of them -----------------------------------------------------------------------------------

    def send(self, client: HubClient, message: OutgoingMessage) -> None:
        """Give one client a message of its own."""
        self._count([message])
        self._settle([(client, client.deliver(message), (message,))])

    def pong(self, client: HubClient, payload: bytes) -> None:
        """Answer a protocol ping. Of several that wait only the newest is answered (RFC 6455 section 5.5.3)."""
        message = OutgoingMessage.of_frame("pong frame", pong_frame(payload))
        self._settle([(client, client.deliver(message), (message,))])

    def end(self, client: HubClient, close_reason: CloseReason, *, flush: bool = False) -> None:
        """Close one client's connection with a close frame, behind what waits for it if `flush`."""
        self._settle([(client, client.end(close_reason, flush=flush), ())])

    def _release(self, client: HubClient) -> None:
        """What waited for a newer token may go."""
        self._settle([(client, client.flush(), ())])

    def _settle(self, unfinished: Sequence[Unfinished]) -> None:
        """See to what a write left to do."""
        for client, delivery, left in unfinished:
            match delivery:
                case Delivery.QUEUED if client.waker is not None:
                    client.waker()
                case Delivery.QUEUED:
                    self._pumps.start_soon(write_pump, client, self._settings, self.counters)
                case Delivery.REFUSED:
                    self._overflow(client, left)
                case Delivery.GONE if client.close_reason is None:
                    client.hang_up()
                case Delivery.GONE | Delivery.DONE:
                    pass
                case _:
                    assert_never(delivery)

    def _overflow(self, client: HubClient, refused: Sequence[OutgoingMessage]) -> None:
        """A client's queue is full: close it, or drop the queue and say precisely what was in it, and in what
        did not fit any more."""
        counted = client.send_queue.untold
        dropped = client.send_queue.drop()
        for message in refused:
            if message.seq is not None:
                one = DroppedMessages(message.seq, message.seq, 1)
                dropped = one if dropped is None else dropped.and_then(one)
        lost = dropped.events - counted if dropped is not None else 1
        client.dropped += lost
        self.counters.dropped["slow"] += lost
        # A queue full of answers belongs to a client that asks and does not read: there is nothing to catch up on.
        answers = [message for message in refused if message.kind is Kind.CONTROL]
        only_answers = bool(answers) and dropped is None
        if self._settings.current.websocket.slow_consumer == "disconnect" or only_answers:
            client.end(TOO_SLOW, flush=False)
            return
        status = self._status_message()
        if dropped is None:
            client.send_queue.put_final(status)
        else:
            gap = server_messages.of_gap(dropped.from_seq, dropped.to_seq, dropped.events, self._now().wall)
            client.send_queue.put_gap(gap, dropped, status)
        for answer in answers:
            client.send_queue.put_final(answer)
        self._settle([(client, client.flush(), ())])

    def _count(self, outgoing: Sequence[OutgoingMessage], receivers: int = 1) -> None:
        for message in outgoing:
            self.counters.messages[message.type] += receivers
            self.counters.bytes += len(message.payload) * receivers

    # -- pings, the end ----------------------------------------------------------------------------------------

    async def ping_all(self) -> None:
        """Ping every client once a `ping_interval`, in groups spread over it. Runs until cancelled."""
        message = OutgoingMessage.of_frame("ping frame", ping_frame())
        slot = 0
        due = trio.current_time()
        while True:
            # From one due time to the next, so that lateness does not add up; after a long one, not all at once.
            due = max(due + self._settings.current.websocket.ping_interval / PING_SLOTS, trio.current_time())
            await trio.sleep_until(due)
            slot = (slot + 1) % PING_SLOTS
            time_slice = TimeSlice()
            for client in [c for c in self._clients.values() if c.serial % PING_SLOTS == slot]:
                if client.stream_kind == "websocket":
                    self._settle([(client, client.deliver(message), (message,))])
                if time_slice.over:
                    await time_slice.pause()

    def _look_for_silence(self) -> None:
        self._patience_changed.set()

    async def end_silent(self) -> None:
        """Close every WebSocket from which nothing has come for `read_timeout`. Runs until cancelled."""
        while True:
            patience, now = self._settings.current.websocket.read_timeout, trio.current_time()
            due = now + patience
            for client in [c for c in self._clients.values() if c.stream_kind == "websocket"]:
                if client.heard + patience > now:
                    due = min(due, client.heard + patience)
                elif client.close_reason is None:
                    self.end(client, SILENT)
            with trio.move_on_at(due):
                await self._patience_changed.wait()
            self._patience_changed = trio.Event()

    def end_all(self, close_reason: CloseReason) -> None:
        """Close every connection, each behind what waits for it; those, too, that are about to join."""
        self._closing = close_reason
        for client in list(self._clients.values()):
            self.end(client, close_reason, flush=True)

    async def wait_empty(self) -> None:
        """Return once no client is left."""
        await self._empty.wait()

    # -- the roster, for the admin API --------------------------------------------------------------------------

    def count(self, stream_kind: StreamKind | None = None) -> int:
        """How many are connected, in all or by one transport."""
        return len(self._clients) if stream_kind is None else self._by_kind[stream_kind]

    def count_connection(self, outcome: str) -> None:
        """An upgrade request ended so (see `HubCounters.connections`)."""
        self.counters.connections[outcome] += 1

    def count_of(self, user_id: str) -> int:
        """How many connections a user has."""
        return sum(client.identity.user_id == user_id for client in self._clients.values())

    def views(self) -> list[ClientView]:
        return [client.view() for client in self._clients.values()]

    def queue_depth(self) -> int:
        """Messages that wait for all clients together."""
        return sum(client.queued for client in self._clients.values())

    def disconnect(self, client_id: str) -> bool:
        """Close a client with 4000. False: there is none with this id."""
        client = self._clients.get(client_id)
        if client is None:
            return False
        self.end(client, DISCONNECTED)
        return True

    def token_revoked(self, jti: str) -> None:
        """Close with 4401 every connection that stands on this token."""
        for client in list(self._clients.values()):
            if client.identity.jti == jti:
                self.end(client, REVOKED)
