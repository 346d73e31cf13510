"""Messages about the present state, composed from the backend at the moment they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import trio

from heliosd.clock import Instant, rfc3339
from heliosd.cluster.backend import Backend
from heliosd.protocol import server_messages
from heliosd.protocol.filters import MetricsFilter
from heliosd.protocol.history import History, Replay
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.message_data import WelcomeData
from heliosd.protocol.subscription import Subscription
from heliosd.protocol.views.custom_metrics import MetricView

from .client import HubClient

STATUS_SHARED_SECONDS = 0.05
"""Clients that join within so long, with nothing sent in between, are given the state of one moment: thousands may
come back at once."""
MAX_SHARED = 16
"""Of one moment so many statuses are kept, each with other custom metrics."""

Selection = MetricsFilter | bool
"""Which custom metrics a status has: `Subscription.metrics`."""


class _Moment:
    """The state at one moment, and the statuses that were made of it."""

    def __init__(
        self, epoch: str, seq: int, made: float, compose: Callable[[Selection], OutgoingMessage]
    ) -> None:
        self._epoch, self._seq, self._made = epoch, seq, made
        self._compose = compose
        self._statuses: dict[Selection, OutgoingMessage] = {}

    def is_recent(self, history: History, now: float) -> bool:
        """Whether a client that joins now may start from it."""
        unmoved = (self._epoch, self._seq) == (history.epoch, history.seq)
        return unmoved and now - self._made <= STATUS_SHARED_SECONDS

    def status(self, selection: Selection) -> OutgoingMessage:
        status = self._statuses.get(selection)
        if status is None:
            status = self._compose(selection)
            if len(self._statuses) < MAX_SHARED:
                self._statuses[selection] = status
        return status


class StatusMessages:
    """Composes the values, the snapshot, and the welcome. `clients` gives the number of connected ones."""

    def __init__(self, backend: Backend, clients: Callable[[], int], now: Callable[[], Instant]) -> None:
        self._backend = backend
        self._clients = clients
        self._now = now
        self._moment: _Moment | None = None

    def status(self, history: History, subscription: Subscription, *, fresh: bool = False) -> OutgoingMessage:
        """The status that a client with this subscription starts from, with the effects of every event that was
        sent so far; `fresh`: as of now, as an answer must be. No status is older than one given out before."""
        now = trio.current_time()
        moment = self._moment
        if fresh or moment is None or not moment.is_recent(history, now):
            compose = self.statuses_as_of_now(history.seq)
            moment = self._moment = _Moment(history.epoch, history.seq, now, compose)
        return moment.status(subscription.metrics)

    def forget_shared(self) -> None:
        """Something is being sent: the status of a client that joins from now on must contain it."""
        self._moment = None

    def statuses_as_of_now(self, as_of_seq: int) -> Callable[[Selection], OutgoingMessage]:
        """Takes down the state. What is returned makes a status of it with the custom metrics that are wanted."""
        now = self._now()
        metrics = self._backend.metrics.views()
        compose = partial(
            server_messages.of_status,
            self._backend.status(),
            as_of_seq=as_of_seq,
            complete=self._backend.complete,
            snapshot_last=self._snapshot_last(),
            uptime=self._backend.uptime.text(now),
            clients=self._clients(),
            at=now.wall,
        )
        return lambda selection: compose(selected(metrics, selection))

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


def selected(metrics: Mapping[str, MetricView], selection: Selection) -> Mapping[str, MetricView]:
    """Those of the metrics that are wanted."""
    if isinstance(selection, bool):
        return metrics if selection else {}
    return {name: view for name, view in metrics.items() if selection.selects(name, view.labels)}
