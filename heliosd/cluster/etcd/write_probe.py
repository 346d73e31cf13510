"""Whether this node may still write: a right can be taken away while it runs, and space can run out.

etcd lets an open watch go on without the right, so a node that has nothing to write would not notice. Therefore a
transaction with a write of each kind is sent, under conditions that contradict each other: etcd checks the right to
each write and whether there is space, and stores nothing.
Source: etcd's `checkTxnAuth` and `applierV3Capped.Txn` (3.4), which check both branches.
"""

from __future__ import annotations

import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdRefused
from heliosd.cluster.etcd.client.requests import Compare, Op, absent, delete, mod_is, put

from .context import EtcdContext
from .keys import KeyLayout

ASK_SECONDS = 5.0
AGAIN_SECONDS = 1.0
"""After a refusal, or when etcd could not be asked."""


class WriteProbe:
    """Keeps the fault "writing" up to date, and clears "writing metrics" once writes are no longer denied."""

    def __init__(self, context: EtcdContext) -> None:
        self._etcd = context
        self._compares, self._writes = rehearsal(context.layout)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # Without a leader nothing can be written in any case, and other checks report that.
            asked = bool(self._etcd.mirror.cluster_id and self._etcd.view.leader) and await self._rehearse()
            await trio.sleep(ASK_SECONDS if asked else AGAIN_SECONDS)

    async def _rehearse(self) -> bool:
        """Whether etcd would write."""
        try:
            await self._etcd.client.txn(self._compares, self._writes)
        except EtcdRefused as refused:
            self._etcd.faults.add("writing", refused)
            return False
        except EtcdError:
            return False  # no refusal, and no write was lost
        self._etcd.faults.clear("writing")
        # It may be long before the next metric is written and shows that it works.
        self._etcd.faults.allowed("writing metrics")
        return True


def rehearsal(layout: KeyLayout) -> tuple[tuple[Compare, ...], tuple[Op, ...]]:
    """A transaction that is never carried out: contradicting conditions, and a write of each kind."""
    name = "rehearsal"
    written = (
        *(layout.head, layout.members, layout.observer, layout.event(0), layout.dedupe(name)),
        *(
            layout.metric(name),
            layout.present(name),
            layout.learner(name),
            layout.leaving(name),
            layout.revoked(name),
        ),
    )
    trimmed = delete(layout.folder("events"), layout.event(0))
    return (absent(layout.head), mod_is(layout.head, 1)), (*(put(key, b"") for key in written), trimmed)
