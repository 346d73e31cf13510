"""The endpoints of members that are being removed, or just were: nothing is asked of them.

A removed member stops a second later, and does not end well if it is asked something until then. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from heliosd.cluster.etcd.client.endpoints import normal
from heliosd.cluster.etcd.client.responses import EtcdMember

STOPPING_SECONDS = 5.0


class RemovedMembers:
    """`close` is called with all such endpoints, whenever they are others than before."""

    def __init__(self, close: Callable[[Iterable[str]], None]) -> None:
        self._close = close
        self._leaving: frozenset[str] = frozenset()
        self._until: dict[str, float] = {}
        self._closed: frozenset[str] = frozenset()

    def leaving(self, urls: Iterable[str]) -> None:
        """Exactly these are of members that are about to be removed."""
        self._leaving = frozenset(map(normal, urls))
        self._update()

    def listed(
        self,
        before: Sequence[EtcdMember],
        members: Sequence[EtcdMember],
        now: float,
        others: Iterable[str] = (),
    ) -> None:
        """One list of members was followed by the next. `others`: further URLs of those that are gone."""
        if members == before and not self._until:
            return
        present = {url for each in members for url in map(normal, each.client_urls)}
        was = {url for each in before for url in map(normal, each.client_urls)} if members else set()
        was.update(map(normal, others))
        self._until |= dict.fromkeys(was, now + STOPPING_SECONDS)
        self._until = {url: until for url, until in self._until.items() if url not in present and until > now}
        self._update()

    def _update(self) -> None:
        closed = self._leaving | self._until.keys()
        if closed != self._closed:
            self._closed = closed
            self._close(closed)
