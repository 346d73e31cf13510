"""Who is connected, and how one client is sent something, pinged, or closed.

Everything here is synchronous but the pings, what goes through all clients (`in_turns`), and `wait_empty`; nothing
waits for a single client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from itertools import cycle, islice
from weakref import WeakSet

import trio
from msgspec import UNSET, UnsetType

from heliosd.auth.identity import Identity
from heliosd.clock import Instant
from heliosd.config.model import Settings
from heliosd.protocol.close_codes import DISCONNECTED, REVOKED, TOO_SLOW, CloseReason
from heliosd.protocol.message import OutgoingMessage
from heliosd.websocket.frames import ping_frame, pong_frame

from . import delivery
from .client import HubClient
from .client_view import ClientView, StreamKind
from .counters import HubCounters
from .send_queue import Question
from .time_slice import TimeSlice
from .write_pump import write_pump

PING_GROUPS = 16
"""Clients are pinged in so many groups over a ping interval, never all at once. More groups wake an idle daemon
more often; fewer are longer: of ten thousand clients one takes some 20 ms, in turns."""

LOST = CloseReason(1006, "connection lost")
_PING = OutgoingMessage.of_frame("ping frame", ping_frame())


class Connections:
    """All clients of one daemon. Implements `web.rest.services.Roster`.

    `on_full` is set by the publisher: it is called for a client whose queue was full, perhaps more than once.
    """

    def __init__(self, settings: Settings, now: Callable[[], Instant], pumps: trio.Nursery) -> None:
        self.counters = HubCounters()
        self.settings = settings
        self.now = now
        self.on_full: Callable[[HubClient], None] = self.end_too_slow
        self.closing: CloseReason | None = None
        """Set once all are being closed: why."""
        self._pumps = pumps
        self._clients: dict[str, HubClient] = {}
        self._admitted: dict[str, HubClient] = {}
        # Weakly, since the body of a response may be dropped before it begins: nobody could give its place back.
        self._admitted_streams: WeakSet[HubClient] = WeakSet()
        self._by_kind: Counter[StreamKind] = Counter()
        self._by_user: Counter[tuple[str, str]] = Counter()
        """Those with a place, but for the event streams that have not joined."""
        self._ping_groups: tuple[set[HubClient], ...] = tuple(set() for _ in range(PING_GROUPS))
        self._empty = trio.Event()
        self._empty.set()
        self._joined = trio.Event()
        self._reloaded = trio.Event()
        settings.on_change(self._hear_of_reload)

    def __contains__(self, client: HubClient) -> bool:
        return client.id in self._clients

    def all(self) -> list[HubClient]:
        """Every client as of now."""
        return list(self._clients.values())

    async def in_turns(self) -> AsyncGenerator[HubClient, None]:
        """The same one after the other, with pauses: so many take longer than a turn of the loop may. One that has
        left in a pause comes all the same."""
        time_slice = TimeSlice()
        for client in self.all():
            yield client
            if time_slice.over:
                await time_slice.pause()

    def admit(self, client: HubClient) -> None:
        """It will join. From now until it ends it has a place."""
        if client.stream_kind == "websocket":
            self._admitted[client.id] = client
            self._by_user[client.identity.user] += 1
        else:
            self._admitted_streams.add(client)

    def add(self, client: HubClient) -> None:
        """One more."""
        self._give_place_back(client)
        client.counters = self.counters
        self._clients[client.id] = client
        self._by_kind[client.stream_kind] += 1
        self._by_user[client.identity.user] += 1
        if client.stream_kind == "websocket":
            self._ping_group(client).add(client)
        if self._empty.is_set():
            self._empty = trio.Event()
        self._joined.set()

    def remove(self, client: HubClient) -> None:
        """One less; what waits for it is lost. May be called for one that was never added."""
        self._give_place_back(client)
        client.drop_all(LOST)
        self.count_dropped(client, "closed")
        if self._clients.pop(client.id, None) is not None:
            self._by_kind[client.stream_kind] -= 1
            self._forget_place(client)
            self._ping_group(client).discard(client)
        if not self._clients:
            self._empty.set()

    def _give_place_back(self, client: HubClient) -> None:
        if self._admitted.pop(client.id, None) is None:
            self._admitted_streams.discard(client)
        else:
            self._forget_place(client)

    def _forget_place(self, client: HubClient) -> None:
        user = client.identity.user
        self._by_user[user] -= 1
        if not self._by_user[user]:
            del self._by_user[user]

    def _ping_group(self, client: HubClient) -> set[HubClient]:
        return self._ping_groups[client.serial % PING_GROUPS]

    # -- one of them -------------------------------------------------------------------------------------------

    def send(
        self, client: HubClient, message: OutgoingMessage, question: Question | UnsetType = UNSET
    ) -> None:
        """Give one client a message of its own. `question` is the one that a status answers."""
        delivery.deliver(client, message, question)
        self.settle(client)

    def pong(self, client: HubClient, payload: bytes) -> None:
        """Answer a protocol ping. Of several that wait only the newest is answered (RFC 6455 section 5.5.3)."""
        delivery.deliver(client, OutgoingMessage.of_frame("pong frame", pong_frame(payload)))
        self.settle(client)

    def ping(self, client: HubClient) -> None:
        """Send a protocol ping (RFC 6455 section 5.5.2)."""
        delivery.deliver(client, _PING)
        self.settle(client)

    def end(self, client: HubClient, close_reason: CloseReason, *, send_waiting: bool = False) -> None:
        """Close one client's connection with a close frame, behind what waits for it if `send_waiting`."""
        delivery.end(client, close_reason, send_waiting=send_waiting)
        self.count_dropped(client, "closed")
        self.settle(client)

    def end_too_slow(self, client: HubClient) -> None:
        """Close a client whose queue is full, and drop what waits for it."""
        self.count_dropped(client, "slow")
        delivery.end(client, TOO_SLOW, send_waiting=False)
        self.count_dropped(client, "slow")
        self.settle(client)

    def settle(self, client: HubClient) -> None:
        """See to what a write left to do."""
        if client.gone:
            # Nothing may follow what was written last, a close frame neither.
            client.wants_pump = False
            client.hang_up()
            return
        if client.wants_pump and not client.in_flight:
            client.wants_pump = False
            if client.waker is not None:
                client.waker()
            else:
                self._pumps.start_soon(write_pump, client, self.settings, self.counters)
        if client.is_dropping:
            self.on_full(client)

    def count_dropped(self, client: HubClient, reason: str) -> None:
        """Count the events that `client` lost since it was counted last."""
        if lost := client.take_lost():
            self.counters.dropped[reason] += lost

    def count_unknown(self, client: HubClient, events: int) -> None:
        """Count events that were lost before they came here, `events` at most."""
        if client.close_reason is None:
            client.dropped += events
            self.counters.dropped["too_old"] += events

    # -- pings, the end ----------------------------------------------------------------------------------------

    async def ping_all(self) -> None:
        """Ping every client once a `ping_interval`, in groups spread over it. A changed interval holds at once.

        Runs until cancelled.
        """
        last = trio.current_time()
        for group in cycle(self._ping_groups):
            if not self._clients:
                self._joined = trio.Event()
                await self._joined.wait()
            last = await self._wait_to_ping(last)
            time_slice = TimeSlice()
            for client in list(group):
                self.ping(client)
                if time_slice.over:
                    await time_slice.pause()

    async def _wait_to_ping(self, last: float) -> float:
        """Until the next group is due, which is returned. Its predecessor was due at `last`."""
        while True:
            # From one due time to the next, so that lateness does not add up; after a long one, not all at once.
            interval = self.settings.current.websocket.ping_interval / PING_GROUPS
            due = max(last + interval, trio.current_time())
            with trio.move_on_at(due) as patience:
                await self._reloaded.wait()
                self._reloaded = trio.Event()
            if patience.cancelled_caught:
                return due

    def end_all(self, close_reason: CloseReason) -> None:
        """Close every connection, each behind what waits for it, and also those that are about to join."""
        self.closing = close_reason
        for client in self.all():
            self.end(client, close_reason, send_waiting=True)

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

    @property
    def places(self) -> int:
        """How many places are taken: by those who are connected, and by those who will join."""
        return len(self._clients) + len(self._admitted) + len(self._admitted_streams)

    def places_of(self, user: Identity) -> int:
        """How many of them are a user's."""
        streams = sum(client.identity.user == user.user for client in self._admitted_streams)
        return self._by_user[user.user] + streams

    async def views(self) -> list[ClientView]:
        """All that are connected."""
        views = [client.view() async for client in self.in_turns()]
        return [view for view in views if view.id in self._clients]

    def ids(self, stream_kind: StreamKind, at_most: int) -> list[str]:
        """The ids of those who have been connected longest."""
        of_kind = (client.id for client in self._clients.values() if client.stream_kind == stream_kind)
        return list(islice(of_kind, at_most))

    async def queue_depth(self) -> int:
        """Messages that wait for all clients together."""
        return sum([client.waiting async for client in self.in_turns()])

    def disconnect(self, client_id: str) -> bool:
        """Close a client with 4000. False: there is none with this id."""
        client = self._clients.get(client_id)
        if client is None:
            return False
        self.end(client, DISCONNECTED)
        return True

    def token_revoked(self, jti: str) -> None:
        """Close with 4401 every connection that stands on this token."""
        for client in self.all():
            if client.identity.jti == jti:
                self.end(client, REVOKED)

    def _hear_of_reload(self) -> None:
        self._reloaded.set()
