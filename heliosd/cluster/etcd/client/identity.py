"""Which cluster of etcd each endpoint belongs to, and which one is ours. Pure: `now` as in `endpoints`.

1. A cluster is its id. What an endpoint of another cluster answers is neither believed nor written to.
2. At the first start, the endpoints that answer have to agree; that cluster is ours, and stays so on disk.
3. An endpoint counts for ours once a status of it has shown our id, until it fails.
4. Another cluster takes our place only if every endpoint has answered for it for a while: ours was replaced, as by
   a restored backup. An endpoint that does not answer may still be ours.
"""

from __future__ import annotations

from collections.abc import Collection

TAKEOVER_SECONDS = 3.0
"""Rule 4."""


class ClusterIdentity:
    """`own` is the id from the last start, "" if there was none."""

    def __init__(self, own: str = "") -> None:
        self.own = own
        self._seen: dict[str, tuple[str, float]] = {}
        """Endpoint -> the cluster that it last answered for, and since when."""

    def seen(self, url: str, cluster: str, now: float) -> None:
        """A status at this endpoint has shown this cluster."""
        if self._seen.get(url, ("", 0.0))[0] != cluster:
            self._seen[url] = (cluster, now)

    def lost(self, url: str) -> None:
        """The endpoint failed: another cluster may answer there next."""
        self._seen.pop(url, None)

    def is_verified(self, url: str) -> bool:
        """Whether the endpoint is known to be of our cluster."""
        return bool(self.own) and self._seen.get(url, ("", 0.0))[0] == self.own

    def foreign(self) -> dict[str, str]:
        """The endpoints that belong to another cluster than ours, with its id."""
        return {url: cluster for url, (cluster, _) in self._seen.items() if self.own and cluster != self.own}

    def logins(self, url: str, known: Collection[str]) -> tuple[str, ...]:
        """Where to log in for a call to this endpoint, the best first: there, but while it has not shown which
        cluster it is of rather at one of ours that is `known`. Empty for one of another cluster, which gets neither
        token nor password."""
        if not self.own or self.is_verified(url):
            return (url,)
        if url in self._seen:
            return ()
        return (*(other for other in known if self.is_verified(other)), url)

    def choose(self) -> str:
        """Rule 2, once every endpoint was asked. Returns why none can be chosen; "" if `own` is known."""
        if not self.own:
            clusters = {cluster for cluster, _ in self._seen.values()}
            if len(clusters) > 1:
                named = ", ".join(f"{url}: {cluster}" for url, (cluster, _) in sorted(self._seen.items()))
                return f"the endpoints belong to different clusters: {named}"
            self.own = next(iter(clusters), "")
        return "" if self.own else "no endpoint has shown its cluster"

    def successor(self, urls: Collection[str], now: float) -> str:
        """Rule 4: the cluster for which all these endpoints answer; "" if ours stays."""
        found = [self._seen.get(url, ("", now)) for url in urls]
        clusters = {cluster for cluster, _ in found}
        if len(clusters) != 1 or clusters <= {"", self.own} or not self.own:
            return ""
        return clusters.pop() if all(now - since >= TAKEOVER_SECONDS for _, since in found) else ""
