"""Values no more often than a client asked for: the newest waits until its time has come.

Nothing of a value is lost by waiting: a newer one replaces it, and values of custom metrics merge by name.
"""

from __future__ import annotations

from math import inf

from heliosd.protocol.message import OutgoingMessage, deleted_metrics, merged, without_metrics

from .client import HubClient

_CUSTOM_METRICS = "custom_metrics"


class ValueThrottle:
    """What waits for the clients with a `min_interval`. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._held: dict[tuple[str, str], tuple[float, HubClient, OutgoingMessage]] = {}
        self.due = inf
        """When the next value may go; infinity if none waits."""

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, client: HubClient, value: OutgoingMessage, min_interval: float, now: float) -> bool:
        """Whether `value` may be delivered at `now`. If not, it waits here, and `release` returns it."""
        key = (client.id, value.type)
        if key in self._held:
            due, _, older = self._held[key]
            newer = merged(older, value) if value.type == _CUSTOM_METRICS else value
            self._held[key] = due, client, newer
            return False
        due = self._last.get(key, -inf) + min_interval
        if now >= due:
            self._last[key] = now
            return True
        self._held[key] = due, client, value
        self.due = min(self.due, due)
        return False

    def release(self, now: float) -> list[tuple[HubClient, OutgoingMessage]]:
        """The values whose time has come."""
        ready = [(key, held) for key, held in self._held.items() if held[0] <= now]
        for key, _ in ready:
            del self._held[key]
            self._last[key] = now
        self._reckon()
        return [(client, value) for _, (_, client, value) in ready]

    def discard_stale(self, event: OutgoingMessage) -> None:
        """A deleted metric's values are not told after its deletion."""
        deleted = deleted_metrics(event)
        if not deleted:
            return
        for key, (due, client, value) in list(self._held.items()):
            if key[1] == _CUSTOM_METRICS:
                rest = without_metrics(value, deleted)
                if rest is None:
                    del self._held[key]
                else:
                    self._held[key] = due, client, rest
        self._reckon()

    def take(self, client: HubClient) -> list[OutgoingMessage]:
        """What waits for one client, which is about to subscribe anew."""
        waiting = [value for _, mine, value in self._held.values() if mine is client]
        self.forget(client)
        return waiting

    def forget(self, client: HubClient) -> None:
        """The client has left."""
        for key in [key for key in self._last if key[0] == client.id]:
            del self._last[key]
            self._held.pop(key, None)
        self._reckon()

    def _reckon(self) -> None:
        self.due = min((due for due, _, _ in self._held.values()), default=inf)
