"""One message to all clients that want it, and the moments at which who they are may change.

1. Behind messages that are published together lies a boundary. What changes the receivers, or must know what a
   client has been given, is done at one: at once if no message is being given out, else when everybody has it
   (`at_boundary`).
2. No client is waited for. One whose queue is full gets a gap and a status, at the boundary: then everything up to
   the newest number has been queued, dropped and named, or sent.
3. Work for many clients pauses between two of them as soon as it has taken its time slice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

import trio
from msgspec import UNSET, UnsetType

from heliosd.protocol import server_messages
from heliosd.protocol.history import Replay
from heliosd.protocol.message import EVENT_TOPICS, Kind, OutgoingMessage
from heliosd.protocol.message_data import GapReason

from . import delivery, fanout
from .client import HubClient
from .connections import Connections
from .event_log import EventLog
from .fanout import FanoutEngine
from .recipient_groups import RecipientGroups
from .send_queue import DroppedEvents, Question
from .status_messages import StatusMessages
from .time_slice import TimeSlice
from .value_throttle import ValueThrottle

MANY = 1000
"""To list so many clients takes most of a time slice: each of them is elsewhere in memory."""
BOUNDARY_SECONDS = 0.01
"""So long a message that has come may wait for clients that join or ask."""


class Publisher:
    """Gives messages, in their order, to every client that wants them."""

    def __init__(
        self,
        connections: Connections,
        log: EventLog,
        status_messages: StatusMessages,
        engine: FanoutEngine,
    ) -> None:
        self.groups = RecipientGroups()
        self.throttle = ValueThrottle()
        self._connections = connections
        self._log = log
        self._status_messages = status_messages
        self._engine = engine
        self._publishing = False
        self._full: dict[str, HubClient] = {}
        self._at_boundary: deque[Callable[[], None]] = deque()
        connections.on_full = self._queue_full
        self._note_engine()

    @property
    def publishing(self) -> bool:
        """Some clients may have a message that others have not, or something waits that comes first."""
        return self._publishing or bool(self._at_boundary)

    def at_boundary(self, action: Callable[[], None]) -> None:
        """Do it now if every client has the same messages, else as soon as they have. In the order of the calls."""
        if self.publishing:
            self._at_boundary.append(action)
        else:
            action()

    async def publish(self, outgoing: Sequence[OutgoingMessage]) -> None:
        """Give these to every client that wants them, as few writes to each: that is what makes a storm cheap.

        The boundary is behind the last of them: the values among them were composed together, and a status from in
        between would be newer.
        """
        time_slice = TimeSlice()
        for batch in fanout.batches(outgoing):
            started = trio.current_time()
            for message in batch:
                if message.seq is not None:
                    self._log.keep(message, self._connections.now().wall)
            self._status_messages.forget_shared()
            self._publishing = True
            for subscription, mine, recipients in self.groups.split(batch):
                if time_slice.over:
                    await time_slice.pause()
                if not mine:
                    continue
                if subscription.min_intervals:
                    if len(recipients) >= MANY:
                        await time_slice.pause()
                    await self._deliver_paced(recipients.everyone(), mine, started, time_slice)
                else:
                    frames = b"".join([m.deflated if recipients.deflating else m.frame for m in mine])
                    settle = self._connections.settle
                    await fanout.broadcast(self._engine, recipients, mine, frames, settle, time_slice)
                    self._connections.counters.count(mine, len(frames), recipients.written)
            self._connections.counters.broadcast.observe(trio.current_time() - started)
            self._note_engine()
        if self._publishing:
            await self._reach_boundary(time_slice)

    def _note_engine(self) -> None:
        """An engine that fails is replaced by another one."""
        counters = self._connections.counters
        counters.fanout_engine, counters.fanout_threads = self._engine.name, self._engine.threads

    async def go_on(self) -> None:
        """Do what the last boundary had no time for."""
        self._publishing = True
        await self._reach_boundary(TimeSlice())

    async def _reach_boundary(self, time_slice: TimeSlice) -> None:
        """Do what was left for it, as much as there is time for: while thousands of clients join, or ask, there is
        always more. What is left, and what comes behind it, waits for `go_on` or for the boundary after the next
        message, in its order."""
        began = perf_counter()
        while self._full or self._at_boundary:
            while self._full:
                self._resume(self._full.pop(next(iter(self._full))))
                if time_slice.over:
                    await time_slice.pause()
            if self._at_boundary:
                self._at_boundary.popleft()()
                if time_slice.over:
                    await time_slice.pause()
                if perf_counter() - began >= BOUNDARY_SECONDS and not self._full:
                    break
        self._publishing = False

    async def _deliver_paced(
        self,
        receivers: Sequence[HubClient | None],
        mine: Sequence[OutgoingMessage],
        now: float,
        time_slice: TimeSlice,
    ) -> None:
        """To clients that want some values no more often than now and then, each message by itself."""
        for client in receivers:
            if time_slice.over:
                await time_slice.pause()
            if client is None:
                continue
            for message in mine:
                if message.kind is not Kind.VALUE or self.throttle.admit(client, message, now):
                    self.throttle.discard_stale(client, message)
                    delivery.deliver(client, message)
            self._connections.settle(client)

    async def release_values(self) -> None:
        """Send the values that were held for a `min_interval` and may go now."""
        time_slice = TimeSlice()
        while (released := self.throttle.release(trio.current_time())) is not None:
            self._connections.send(*released)
            if time_slice.over:
                await time_slice.pause()

    # -- what a client does not get ----------------------------------------------------------------------------

    def _queue_full(self, client: HubClient) -> None:
        if self._connections.settings.current.websocket.slow_consumer == "disconnect" or (
            client.send_queue.only_answers
        ):
            self._connections.end_too_slow(client)
        elif self._publishing:
            self._full[client.id] = client
        else:
            self._resume(client)

    def _resume(self, client: HubClient) -> None:
        """Name what a full queue held and what did not fit any more, and say how things stand now."""
        if not client.is_dropping:
            return
        self._connections.count_dropped(client, "slow")
        dropped = client.send_queue.dropped
        gap = None if dropped is None else self._gap(dropped, "slow_consumer")
        delivery.resume_stream(client, self._answers(client), gap=gap)
        self._connections.settle(client)

    def _gap(self, dropped: DroppedEvents, reason: GapReason) -> OutgoingMessage:
        at = self._connections.now().wall
        return server_messages.of_gap(dropped.from_seq, dropped.to_seq, dropped.events, at, reason)

    def _status(self, client: HubClient, *, fresh: bool = False) -> OutgoingMessage:
        return self._status_messages.status(self._log.history, client.subscription, fresh=fresh)

    def _answers(self, client: HubClient) -> Callable[[Question | UnsetType], OutgoingMessage]:
        """One status for all the questions of a client."""
        status = self._status(client, fresh=client.send_queue.asked)

        def answer(question: Question | UnsetType) -> OutgoingMessage:
            if question is UNSET or question is None:
                return status
            return server_messages.answering(status, question)

        return answer

    # -- what every client gets in a form of its own ---------------------------------------------------------------

    async def announce_epoch(self) -> None:
        """A new numbering: numbers of two epochs must not meet in one gap, and the status replaces what waits."""
        replay = Replay(refusal="epoch_changed")

        def announce(client: HubClient) -> None:
            if client.close_reason is not None:
                return  # of what waits only the close frame goes, behind what is half written
            welcome = self._status_messages.welcome_message(client, self._log.history, replay)
            delivery.drop_stream(client, epoch=True)
            self._connections.count_dropped(client, "epoch_changed")
            delivery.resume_stream(client, self._answers(client), welcome=welcome)
            self._connections.settle(client)

        await self._announce(announce)

    async def announce_state(self) -> None:
        """The statuses so far may have lacked something: send the state as it is now."""
        await self._announce(lambda client: self._connections.send(client, self._status(client)))

    async def announce_lost(self, first: int, last: int) -> None:
        """These events will not come. What they were is not known, so `dropped` says at most how many a client
        would have been sent."""
        dropped = DroppedEvents(first, last, last - first + 1)
        gap = self._gap(dropped, "too_old")

        def announce(client: HubClient) -> None:
            if any(client.subscription.wants(topic) for topic in EVENT_TOPICS.values()):
                delivery.deliver_gap(client, gap, dropped, self._status(client))
                self._connections.count_unknown(client, dropped.events)
                self._connections.settle(client)

        await self._announce(announce)

    async def _announce(self, announce: Callable[[HubClient], None]) -> None:
        """Do this for every client. As with a message, joins and questions wait until all have it."""
        time_slice = TimeSlice()
        self._status_messages.forget_shared()
        self._publishing = True
        for client in self._connections.all():
            if client in self._connections:  # else it has left in a pause
                announce(client)
            if time_slice.over:
                await time_slice.pause()
        await self._reach_boundary(time_slice)
