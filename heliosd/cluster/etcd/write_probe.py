"""Whether this node may still write: a right can be taken away while it runs, and space can run out.

etcd lets an open watch go on without the right, so a node that has nothing to write would not notice. Therefore a
transaction with a write of most kinds is sent, under conditions that contradict each other: etcd checks the right
to each write and whether there is space, and stores nothing. Source: etcd's `checkTxnAuth` and
`applierV3Capped.Txn` (3.4), which check both branches.

The user's roles are asked for, too: without the role root, members cannot be changed, which would otherwise show
only when it is tried. A user who never had it is taken to be meant so.
"""

from __future__ import annotations

import trio

from heliosd.cluster.etcd.client.errors import (
    PERMISSION_DENIED,
    EtcdDenied,
    EtcdError,
    EtcdRefused,
    missing_right,
)
from heliosd.cluster.etcd.client.requests import Compare, Op, absent, delete, mod_is, put

from .context import EtcdContext
from .keys import KeyLayout

ASK_SECONDS = 3.5
"""A right that was taken away is to be reported within five seconds."""
AGAIN_SECONDS = 1.0
"""After a refusal, or when etcd could not be asked."""
ROLES_SECONDS = 60.0
"""Between two looks whether the user has been given the role root. Each is an entry in Raft's log."""
ROOT = "root"


class WriteProbe:
    """Keeps the faults "writing" and "changing members" up to date, and clears "writing metrics" once writes are no
    longer denied."""

    def __init__(self, context: EtcdContext) -> None:
        self._etcd = context
        self._compares, self._writes = rehearsal(context.layout)
        self._was_root = False
        self._roles_due = float("-inf")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # Without a leader nothing can be written in any case, and other checks report that.
            known = bool(self._etcd.mirror.cluster_id and self._etcd.view.leader)
            asked = known and await self._rehearse()
            if known:
                await self._ask_roles()
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

    async def _ask_roles(self) -> None:
        if not self._etcd.client.username or trio.current_time() < self._roles_due:
            return
        try:
            is_root = ROOT in await self._etcd.client.own_roles()
        except EtcdError:
            return  # authentication is off, or another fault says why it cannot be asked
        if is_root:
            self._was_root = True
            self._etcd.faults.clear("changing members")
        elif self._was_root:
            self._etcd.faults.add("changing members", lost_root(self._etcd.client.username))
        self._roles_due = trio.current_time() + (0.0 if self._was_root else ROLES_SECONDS)


def lost_root(username: str) -> EtcdDenied:
    """What is said of a user who has the role root no more."""
    return EtcdDenied("", missing_right("/cluster/", username, ""), PERMISSION_DENIED)


def rehearsal(layout: KeyLayout) -> tuple[tuple[Compare, ...], tuple[Op, ...]]:
    """A transaction that is never carried out: contradicting conditions, and a write of most kinds."""
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
