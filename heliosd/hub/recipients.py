"""Clients that get the same bytes in the same way: those of one subscription, with compression and TLS or not.

The ready ones (nothing waits for them, and the hub may write to their sockets by itself) stand in two parallel
lists, clients and descriptors, so that the fast path in `fanout.py` runs over plain numbers. A descriptor is in the
list exactly as long as its client is ready: before a client's socket is closed `is_ending` or `leave` is called,
which takes it out in the same step. So no descriptor there can have become another client's.

While other threads write to the clients of some places (`flights.py`), these are in flight: they keep their places
unless they leave, and whatever comes for them waits until the flight has landed.
"""

from __future__ import annotations

from array import array

from .client import NOT_READY, HubClient

NOBODY = -1
"""In place of a descriptor, where a client has left."""
MAX_HOLES = 64
"""So many such places there may be between two broadcasts, and as many more as there are clients."""


class Recipients:
    """Those clients of one subscription to whom the same bytes are written in the same way."""

    __slots__ = (
        "_holes",
        "_in_flight",
        "_late",
        "_missed",
        "_not_ready",
        "_places",
        "_sending",
        "_sent",
        "_touched",
        "clients",
        "deflating",
        "encrypted",
        "fds",
        "served",
    )

    def __init__(self, *, deflating: bool = False, encrypted: bool = False) -> None:
        self.deflating = deflating
        """They took compression."""
        self.encrypted = encrypted
        """What is written to them goes through `Transport.encrypt`: TLS."""
        self.clients: list[HubClient | None] = []
        """The ready ones; None where one has left since the last broadcast began."""
        self.fds: array[int] = array("i")
        """Their descriptors, in the same places; NOBODY where one has left. No list of objects: between two
        broadcasts all of these would fall out of the caches."""
        self._holes = 0
        self._not_ready: dict[str, HubClient] = {}
        self._sent = 0
        """Messages that the ready ones were sent so far, those of the present broadcast included."""
        self._sending = 0
        """Messages of the present broadcast; 0 between two."""
        self._places = 0
        """Places that were taken when it began."""
        self._missed = 0
        """How many of these stopped being ready before their turn."""
        self.served = 0
        """How many places the present broadcast has been through."""
        self._late: list[HubClient] = []
        self._in_flight = range(0)
        """Places."""
        self._touched: list[HubClient] = []
        """Clients in flight about which something has changed."""

    def __len__(self) -> int:
        return len(self.clients) - self._holes + len(self._not_ready)

    def everyone(self) -> list[HubClient | None]:
        """As of now, with None where one has left: of thousands that takes a tenth of the time."""
        return [*self.clients, *self._not_ready.values()]

    def add(self, client: HubClient) -> None:
        """One more. It gets nothing of the present broadcast."""
        client.recipients = self
        if client.ready and client.transport.direct:
            self._set_ready(client)
        else:
            self._not_ready[client.id] = client

    def remove(self, client: HubClient) -> None:
        """One less."""
        if client.place != NOT_READY:
            self._set_not_ready(client)
        self._not_ready.pop(client.id, None)
        client.recipients = None

    def in_flight(self, client: HubClient) -> bool:
        """Whether another thread may be writing to its socket right now."""
        return client.place in self._in_flight

    def reconsider(self, client: HubClient) -> None:
        """Put a client where it belongs, after something about it has changed."""
        if client.place in self._in_flight:
            self._touched.append(client)
            return
        ready = client.ready and client.transport.direct
        if ready and client.place == NOT_READY:
            del self._not_ready[client.id]
            self._set_ready(client)
        elif not ready and client.place != NOT_READY:
            if self._awaits(client):
                self._late.append(client)
            self._set_not_ready(client)
            self._not_ready[client.id] = client

    def sent_to(self, client: HubClient) -> int:
        """Messages that a client got here by the fast path, to be added to those that it counts itself."""
        if client.place == NOT_READY:
            return 0
        return self._sent - (self._sending if self._awaits(client) else 0)

    def begin(self, messages: int) -> tuple[int, list[HubClient]]:
        """So many messages are about to be sent: how many places the ready ones take up, and the others.

        A client that becomes ready meanwhile has had them; its place is beyond those.
        """
        if self._holes:
            self._compact()
        self.served = self._missed = 0
        self._sending = messages
        self._sent += messages
        self._places = len(self.clients)
        return self._places, list(self._not_ready.values())

    @property
    def written(self) -> int:
        """How many ready ones the broadcast that has just finished was written to."""
        return self._places - self._missed

    def finish(self) -> list[HubClient]:
        """The broadcast is over. Returns those of its receivers that stopped being ready before their turn."""
        self._sending = 0
        late, self._late = self._late, []
        return [client for client in late if client.recipients is self]

    def take_off(self, start: int, stop: int) -> None:
        """From now until `land` the clients in these places are in flight: they count as served."""
        self.served = stop
        self._in_flight = range(start, stop)

    def land(self, stop: int | None = None) -> list[HubClient]:
        """The clients in flight up to the place `stop`, or all, are so no longer. Returns those of them that
        something has come for, or changed for, meanwhile; the caller has them reconsidered."""
        if stop is None or stop >= self._in_flight.stop:
            self._in_flight = range(0)
            touched, self._touched = self._touched, []
        else:
            self._in_flight = range(stop, self._in_flight.stop)
            touched = [client for client in self._touched if client.place not in self._in_flight]
            self._touched = [client for client in self._touched if client.place in self._in_flight]
        return [client for client in touched if client.recipients is self]

    def _awaits(self, client: HubClient) -> bool:
        """It is among the receivers of the present broadcast, and has not been served yet."""
        return self._sending > 0 and self.served <= client.place < self._places

    def _compact(self) -> None:
        """Fill each hole with the last client: of thousands of places only the holes are touched one by one."""
        place = 0
        while True:
            while self.fds and self.fds[-1] == NOBODY:
                self.fds.pop()
                self.clients.pop()
            try:
                place = self.fds.index(NOBODY, place)
            except ValueError:
                break
            self.fds[place] = self.fds.pop()
            client = self.clients[place] = self.clients.pop()
            if client is not None:
                client.place = place
        self._holes = 0

    def _set_ready(self, client: HubClient) -> None:
        # Where no broadcast comes, as with a `min_interval`, nothing else removes them.
        too_many = self._holes > MAX_HOLES and self._holes > MAX_HOLES + len(self)
        if too_many and not self._sending and not self._in_flight:
            self._compact()
        client.place = len(self.clients)
        client.count_sent(-self._sent)
        self.clients.append(client)
        self.fds.append(client.transport.fileno())

    def _set_not_ready(self, client: HubClient) -> None:
        self._missed += self._awaits(client)
        client.count_sent(self.sent_to(client))
        self.clients[client.place] = None
        self.fds[client.place] = NOBODY
        client.place = NOT_READY
        self._holes += 1
