"""Which endpoints belong to our cluster; the rules are in `identity`.

No request for keys, members or leases goes to an endpoint before it has shown our cluster's id. A status, by which
it shows that, and a plain page (`/metrics`) may be asked of any; so may a list of members that is only compared
with the one before it (`EtcdClient.lists_the_same`), and one read or list where a status is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from .endpoints import Endpoints
from .errors import EtcdError, EtcdForeign, EtcdRefused, EtcdUnavailable
from .failover import none_of
from .identity import ClusterIdentity
from .responses import MemberStatus, ResponseHeader

T = TypeVar("T")


class ClusterCheck:
    """`status` asks one endpoint for its status, and calls `seen`. Without an `identity` nothing is checked."""

    def __init__(
        self,
        identity: ClusterIdentity | None,
        endpoints: Endpoints,
        status: Callable[[str], Awaitable[MemberStatus]],
    ) -> None:
        self._identity = identity
        self._endpoints = endpoints
        self._status = status
        self._identifying = trio.Lock()

    def seen(self, endpoint: str, cluster: str) -> None:
        """An answer of this endpoint has shown this cluster."""
        if self._identity is not None:
            self._identity.seen(endpoint, cluster, trio.current_time())

    async def identify(self) -> None:
        """Return once it is known which cluster is ours. Raises `EtcdForeign`, or what all endpoints raise."""
        if self._identity is None or self._identity.own:
            return
        async with self._identifying:
            failures: dict[str, EtcdError] = {}

            async def ask(url: str) -> None:
                try:
                    await self._status(url)
                except EtcdError as error:
                    failures[url] = error

            async with trio.open_nursery() as nursery:
                for url in self._endpoints.order(trio.current_time()):
                    nursery.start_soon(ask, url)
            reason = self._identity.choose()
            refusals = [error for error in failures.values() if isinstance(error, EtcdRefused)]
            if reason and refusals:
                raise refusals[0]
            if reason and len(failures) == len(self._endpoints.urls()):
                raise none_of(
                    {url: each for url, each in failures.items() if isinstance(each, EtcdUnavailable)}
                )
            if reason:
                raise EtcdForeign("", reason)

    async def verify(self, endpoint: str) -> None:
        """Return once the endpoint has shown our cluster's id. Raises `EtcdForeign` if it shows another one."""
        if self._identity is None or self._identity.is_verified(endpoint):
            return
        await self._status(endpoint)
        if not self._identity.is_verified(endpoint):
            raise EtcdForeign(endpoint, "it belongs to another cluster")

    def logins(self, endpoint: str) -> tuple[str, ...]:
        """As `ClusterIdentity.logins`."""
        if self._identity is None:
            return (endpoint,)
        return self._identity.logins(endpoint, self._endpoints.urls())

    def believed(self, endpoint: str, answer: T) -> T:
        """The answer. Raises `EtcdForeign` if it has a header, and that is of another cluster."""
        header = getattr(answer, "header", None)
        if self._identity is not None and isinstance(header, ResponseHeader):
            self.seen(endpoint, header.cluster_id)
            if header.cluster_id != self._identity.own:
                raise EtcdForeign(endpoint, f"it belongs to another cluster ({header.cluster_id})")
        return answer

    def successor(self) -> str:
        """The cluster that has taken the place of ours at every endpoint; "" if none has."""
        if self._identity is None:
            return ""
        return self._identity.successor(self._endpoints.urls(), trio.current_time())
