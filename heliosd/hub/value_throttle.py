"""Values no more often than they are wanted: gathered for all clients, and held for those with a `min_interval`.

Nothing of a value is lost by waiting: a newer one replaces it, and values of custom metrics merge by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from heliosd.protocol.message import OutgoingMessage, deleted_metrics, merged, without_metrics

from .client import HubClient, PacedValue
from .schedule import Schedule
from .send_queue import CUSTOM_METRICS


class ChangedMetrics:
    """Names of metrics whose values changed and were not sent yet. `due`: when to send them, in monotonic seconds;
    infinity if there are none."""

    def __init__(self) -> None:
        self.due = inf
        self._names: dict[str, None] = {}

    def add(self, names: Iterable[str], due: float) -> None:
        """These have new values. The first that come fix when they are sent."""
        self._names.update(dict.fromkeys(names))
        if self.due == inf:
            self.due = due

    def forget(self, names: Iterable[str]) -> None:
        """These were registered anew or deleted, which says more than a value of before."""
        for name in names:
            self._names.pop(name, None)

    def take(self) -> list[str]:
        """All names, removed."""
        taken, self._names, self.due = list(self._names), {}, inf
        return taken


class ValueThrottle:
    """Holds the newest values of clients that asked for a `min_interval`. Times are monotonic seconds. What one
    client costs does not depend on how many there are."""

    def __init__(self) -> None:
        self.on_sooner: Callable[[], None] = lambda: None
        """Called when `due` may have become earlier."""
        self._deadlines: Schedule[tuple[HubClient, PacedValue]] = Schedule()

    @property
    def due(self) -> float:
        """When to call `release`; infinity if no value is held."""
        return self._deadlines.next_due

    def admit(self, client: HubClient, value: OutgoingMessage, now: float) -> bool:
        """Whether `value` may go to `client` now. If not it is held, and `release` returns it."""
        interval = client.subscription.min_interval(value.topic)
        if not interval:
            return True
        if client.paced is None:
            client.paced = {}
        paced = client.paced.setdefault(value.type, PacedValue())
        if paced.held is None and now >= paced.last + interval:
            paced.last = now
            # That of a value which is not sent any more, since a status contained it.
            self._deadlines.cancel(paced.deadline)
            paced.deadline = 0
            return True
        if paced.held is not None and value.type == CUSTOM_METRICS:
            value = merged(paced.held, value)
        paced.held = value
        if not paced.deadline:
            paced.deadline = self._deadlines.schedule(paced.last + interval, (client, paced))
            self.on_sooner()
        return False

    def release(self, now: float) -> tuple[HubClient, OutgoingMessage] | None:
        """A value whose time has come, and whose it is; None if there is no more."""
        while (due := self._deadlines.pop(now)) is not None:
            client, paced = due
            value, paced.held, paced.deadline = paced.held, None, 0
            if value is not None:
                paced.last = now
                return client, value
        return None

    def discard_stale(self, client: HubClient, event: OutgoingMessage) -> None:
        """`client` is sent the deletion of a metric: values that are held for it do not follow."""
        paced = None if client.paced is None else client.paced.get(CUSTOM_METRICS)
        if paced is not None and paced.held is not None and (deleted := deleted_metrics(event)):
            paced.held = without_metrics(paced.held, deleted)

    def resubscribe(self, client: HubClient, now: float) -> list[OutgoingMessage]:
        """`client` has a new subscription. Returns what of the held values may go now, and holds the rest, from
        when the last of its type was sent."""
        ready: list[OutgoingMessage] = []
        for paced in (client.paced or {}).values():
            value, paced.held = paced.held, None
            self._deadlines.cancel(paced.deadline)
            paced.deadline = 0
            mine = value and value.filtered_for(client.subscription)
            if mine and self.admit(client, mine, now):
                ready.append(mine)
        return ready

    def forget(self, client: HubClient) -> None:
        """The client has left."""
        for paced in (client.paced or {}).values():
            self._deadlines.cancel(paced.deadline)
