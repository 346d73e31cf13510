"""Messages about how things stand, composed from the backend at the moment they are sent."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET, UnsetType

from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.protocol import server_messages
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.server_messages import ClientId


class StatusMessages:
    """Composes the values and the snapshot. `clients` says how many are connected."""

    def __init__(self, backend: Backend, clients: Callable[[], int], now: Callable[[], Instant]) -> None:
        self._backend = backend
        self._clients = clients
        self._now = now

    def status(self, as_of_seq: int, client_id: ClientId | UnsetType = UNSET) -> OutgoingMessage:
        """The snapshot that a client starts from."""
        now = self._now()
        return server_messages.of_status(
            self._backend.status(),
            self._backend.metrics.views(),
            as_of_seq=as_of_seq,
            snapshot_last=self._snapshot_last(),
            uptime=self._backend.uptime.text(now),
            clients=self._clients(),
            at=now.wall,
            client_id=client_id,
        )

    def status_update(self) -> OutgoingMessage:
        now = self._now()
        return server_messages.of_status_update(
            self._backend.status(),
            snapshot_last=self._snapshot_last(),
            uptime=self._backend.uptime.text(now),
            clients=self._clients(),
            at=now.wall,
        )

    def latency(self) -> OutgoingMessage:
        now = self._now()
        return server_messages.of_latency(self._backend.latency.report(now), now.wall)

    def uptime(self) -> OutgoingMessage:
        now = self._now()
        return server_messages.of_uptime(self._backend.uptime.report(now), now.wall)

    def _snapshot_last(self) -> int:
        latest = self._backend.snapshots.latest
        return 0 if latest is None else latest.index
