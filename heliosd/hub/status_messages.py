"""Messages about the present state, composed from the backend at the moment they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio
from msgspec import UNSET, UnsetType

from heliosd.clock import Instant, rfc3339
from heliosd.cluster.backend import Backend
from heliosd.protocol import server_messages
from heliosd.protocol.history import History, Replay
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.message_data import WelcomeData
from heliosd.protocol.server_messages import ClientId

from .client import HubClient

STATUS_SHARED_SECONDS = 0.05
"""Clients that join within so long, with nothing sent in between, share one status: thousands may come back at
once."""


class StatusMessages:
    """Composes the values, the snapshot, and the welcome. `clients` gives the number of connected ones."""

    def __init__(self, backend: Backend, clients: Callable[[], int], now: Callable[[], Instant]) -> None:
        self._backend = backend
        self._clients = clients
        self._now = now
        self._shared: tuple[str, int, float, OutgoingMessage] | None = None

    def status(self, history: History, client_id: ClientId | UnsetType = UNSET) -> OutgoingMessage:
        """The snapshot that a client starts from, with the effects of every event that was sent so far. With
        `client_id` it answers a question. Without, one is made for all who need it in the same moment."""
        now = trio.current_time()
        if client_id is UNSET and self._shared is not None:
            epoch, seq, made, status = self._shared
            if (epoch, seq) == (history.epoch, history.seq) and now - made <= STATUS_SHARED_SECONDS:
                return status
        status = self.make_status(history.seq, client_id)
        # A status that is made later must not be older than one that a client has already.
        self._shared = None if client_id is not UNSET else (history.epoch, history.seq, now, status)
        return status

    def forget_shared(self) -> None:
        """Something is being sent: the status of a client that joins from now on must contain it."""
        self._shared = None

    def make_status(self, as_of_seq: int, client_id: ClientId | UnsetType) -> OutgoingMessage:
        now = self._now()
        return server_messages.of_status(
            self._backend.status(),
            self._backend.metrics.views(),
            as_of_seq=as_of_seq,
            complete=self._backend.complete,
            snapshot_last=self._snapshot_last(),
            uptime=self._backend.uptime.text(now),
            clients=self._clients(),
            at=now.wall,
            client_id=client_id,
        )

    def welcome_message(self, client: HubClient, history: History, replay: Replay) -> OutgoingMessage:
        """The first message of a connection that asked to resume, and what all get when the epoch changes."""
        welcome = WelcomeData(
            client_id=client.id,
            epoch=history.epoch,
            seq=history.seq,
            oldest_seq=history.oldest_seq,
            recovered=replay.refusal is None,
            reason=replay.refusal,
            replayed=len(replay.events),
            expires_at=rfc3339(client.identity.expires_at),
        )
        return server_messages.of_welcome(welcome, self._now().wall)

    def status_update(self) -> OutgoingMessage:
        now = self._now()
        return server_messages.of_status_update(
            self._backend.status(),
            snapshot_last=self._snapshot_last(),
            uptime=self._backend.uptime.text(now),
            clients=self._clients(),
            at=now.wall,
        )

    def metric_values(self, names: Iterable[str]) -> OutgoingMessage | None:
        """The values of these metrics as they are now, so that none is older than a status that was sent before.
        None: they do not exist any more."""
        metrics = self._backend.metrics
        views = {name: metrics.view(name) for name in names if name in metrics}
        return server_messages.of_metric_values(views, self._now().wall) if views else None

    def latency(self) -> OutgoingMessage:
        now = self._now()
        return server_messages.of_latency(self._backend.latency.report(now), now.wall)

    def uptime(self) -> OutgoingMessage:
        now = self._now()
        return server_messages.of_uptime(self._backend.uptime.report(now), now.wall)

    def _snapshot_last(self) -> int:
        latest = self._backend.snapshots.latest
        return 0 if latest is None else latest.index
