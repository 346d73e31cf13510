"""This heliosd's presence in etcd, under a lease, and the duties of the observer.

A presence ends with an orderly stop of its heliosd, ten seconds after a kill (later if etcd's leader changes). A
heliosd that is present and finds no observer becomes the observer, under the same lease. Only the observer logs
the members' health, which each heliosd sees differently, and promotes learners.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import msgspec
import trio

from heliosd import __version__
from heliosd.clock import next_beat, rfc3339
from heliosd.cluster.etcd.client.errors import EtcdError, EtcdLearnerBehind, EtcdLeaseGone, EtcdRefused
from heliosd.cluster.etcd.client.requests import absent, delete, mod_is, put
from heliosd.cluster.etcd.client.responses import EtcdMember

from .context import EtcdContext
from .leases import take_back
from .members import peers_at
from .mirror import PresentObserver, SeenLearner

log = logging.getLogger(__name__)

PRESENCE_SECONDS = 10
ALIVE_SECONDS = 3.0
PROMOTE_SECONDS = 1.0
MISSING_LOOKS = 15
"""A learner that is no member at so many looks in a row was not added, or was removed: a request to add it has been
done or refused by then, and while this process does not run it does not look."""
_NO_LEARNER = ("not a learner", "can only promote a learner member")


class Presence:
    """Keeps this node's key under `observers/` and, if there is no other observer, the key `observer`."""

    def __init__(
        self, context: EtcdContext, url_of: Callable[[EtcdMember], str], dashboard_url: str = ""
    ) -> None:
        """`url_of`: where a member answers; "" if nowhere."""
        self._etcd = context
        self._url_of = url_of
        since = rfc3339(context.now().wall)
        self._present = PresentObserver(
            id=context.node_id, version=__version__, since=since, url=dashboard_url
        )
        self._lease = ""
        self._put_at = 0
        """The revision at which this heliosd wrote its key."""
        self._double = ""
        """When the other heliosd with this `node.id` started, of which the log has a warning."""
        self._missing: Counter[SeenLearner] = Counter()
        """At how many looks in a row a learner was no member."""
        self._sooner = trio.Event()

    def act_now(self) -> None:
        """Act at once: there is no observer any more, or this node's own key is gone."""
        self._sooner.set()

    async def run(self) -> None:
        """Until cancelled; then the lease is revoked, which deletes the keys."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._promote_learners)
                while True:
                    self._sooner = trio.Event()
                    try:
                        await self._beat()
                    except EtcdError as error:
                        self._etcd.faults.add("presence", error)
                    else:
                        self._etcd.faults.clear("presence")
                    with trio.move_on_after(ALIVE_SECONDS):
                        await self._sooner.wait()
        finally:
            await take_back(self._etcd.client, self._lease)

    def _check_double(self) -> None:
        """Warn of another heliosd with this `node.id`: it overwrites this one's key."""
        mirror = self._etcd.mirror
        found = mirror.observers.get(self._etcd.node_id)
        # An older key may be that of this heliosd before its restart.
        written_later = 0 < self._put_at <= mirror.revision
        if written_later and found and found != self._present and found.since != self._double:
            self._double = found.since
            log.warning(
                "etcd: another heliosd has the node.id %s as well, since %s", self._etcd.node_id, found.since
            )

    async def _beat(self) -> None:
        self._check_double()
        if self._lease and (await self._etcd.client.lease_keepalive(self._lease)).seconds <= 0:
            self._lease = ""
        if not self._lease:
            self._lease = (await self._etcd.client.lease_grant(PRESENCE_SECONDS)).id
            await self._show()
        elif self._etcd.mirror.cluster_id and self._etcd.node_id not in self._etcd.mirror.observers:
            await self._show()
        if self._etcd.mirror.cluster_id and not self._etcd.mirror.observer:
            key = self._etcd.layout.observer
            await self._etcd.client.txn(
                [absent(key)], [put(key, self._etcd.node_id.encode(), self._lease)], []
            )

    async def _show(self) -> None:
        try:
            present = msgspec.json.encode(self._present)
            written = await self._etcd.client.txn(
                [], [put(self._etcd.layout.present(self._etcd.node_id), present, self._lease)], []
            )
            self._put_at = written.header.revision
        except EtcdLeaseGone:
            self._lease = ""
            raise

    async def _promote_learners(self) -> None:
        """Promote each learner that heliosd added once it is in sync with the leader."""
        while True:
            await trio.sleep_until(next_beat(trio.current_time(), PROMOTE_SECONDS))
            observes = self._etcd.mirror.observer == self._etcd.node_id
            pending = list(self._etcd.mirror.learners.items()) if observes else []
            self._missing = Counter({learner: self._missing[learner] for _, learner in pending})
            failed = False
            for name, learner in pending:
                try:
                    if await self._is_done(learner):
                        # Deleted unless it was written again meanwhile.
                        key = self._etcd.layout.learner(name)
                        await self._etcd.client.txn([mod_is(key, learner.mod_revision)], [delete(key)], [])
                except EtcdError as error:
                    failed = True
                    self._etcd.faults.add("promoting learners", error)
            if not failed:
                self._etcd.faults.clear("promoting learners")

    async def _is_done(self, learner: SeenLearner) -> bool:
        """Promote it if it is in sync. Whether nothing is left to do: it is a voter, or it is no member."""
        view = self._etcd.view
        url = next((self._url_of(each) for each in view.members if each.id == view.leader), "")
        if not url or view.members_as_of < learner.mod_revision:
            return False  # later, with a leader and a list of its own from after the learner was asked for
        member = next((each for each in view.members if peers_at(each, learner.address)), None)
        if member is None:
            self._missing[learner] += 1
            return self._missing[learner] >= MISSING_LOOKS
        self._missing[learner] = 0
        return not member.is_learner or await self._is_voter(url, member.id)

    async def _is_voter(self, leader_url: str, member: str) -> bool:
        """Promote it, if it is in sync."""
        try:
            await self._etcd.client.member_promote(leader_url, member)
        except EtcdLearnerBehind:
            return False
        except EtcdRefused as refused:
            if "not found" in refused.reason:
                return False
            if not any(words in refused.reason for words in _NO_LEARNER):
                raise
        return True
