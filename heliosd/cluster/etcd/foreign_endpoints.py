"""Endpoints that belong to another cluster than ours; `client/identity.py` has the rules."""

from __future__ import annotations

import logging

from .context import EtcdContext

log = logging.getLogger(__name__)


class ForeignEndpoints:
    """Logs each of them once, and takes a cluster that has replaced ours at every endpoint for ours."""

    def __init__(self, context: EtcdContext) -> None:
        self._etcd = context
        self._logged: dict[str, str] = {}

    def look(self) -> None:
        """Look at them now. A cluster that has replaced ours becomes `identity.own`, and the view begins anew."""
        successor = self._etcd.client.successor()
        if successor:
            self._etcd.identity.own = successor
            self._etcd.view.replaced_by(successor, self._etcd.now())
        foreign = self._etcd.identity.foreign()
        for url in foreign.keys() - self._logged.keys():
            log.warning(
                "etcd: %s belongs to another cluster (%s, ours is %s) and is left out",
                *(url, foreign[url], self._etcd.identity.own),
            )
        self._logged = foreign
