"""Appends to the cluster's log what this node sees and the log does not say yet.

Of what the view shows there is no queue that could be lost: after every change, it is compared with the log
(`pending_events.py`), and the difference is appended. Events of this node alone (`snapshot`) wait in memory.
While there is no writable log, the events go to this node's own clients at once, as provisional (`published.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from random import SystemRandom

import trio

from heliosd.backoff import Backoff
from heliosd.cluster.etcd.client.errors import EtcdError, EtcdLeaseGone
from heliosd.cluster.latency import HealthChanged
from heliosd.protocol.events import Event, LogReset
from heliosd.store.changes import LoggedEvent

from .context import EtcdContext
from .election import LeaderElected, LeaderLost
from .event_log import AlreadyLogged, Append, HeadMoved, Logged, LogItem, begin, compose, outcome
from .leader_history import LeaderHistory
from .members import bearing
from .outages import Outages
from .pending_events import health_events, leader_events, membership_events
from .published import Published, logged_health
from .status import raised_alarms
from .view_changes import MemberRestarted, OtherCluster, ViewChange
from .watcher import Watcher

FIRST_RETRY_SECONDS = 0.02
LONGEST_RETRY_SECONDS = 1.0
APPLIED_SECONDS = 3.0
"""How long to wait until the watch has delivered what was written, before view and log are compared again."""
ALREADY_SECONDS = 0.3
LOOK_SECONDS = 5.0
"""View and log are compared so often at least."""
LOOK_AGAIN_SECONDS = 0.25
"""The same while a member's outage is not in the log."""
MAX_AT_ONCE = 20
EXPLAIN_SECONDS = 0.06
"""So long an event about a leader may wait for the cause of the loss before it."""


class LogWriter:
    """Appends events to the cluster's log. `list_now` asks for a newer list of members."""

    def __init__(
        self,
        context: EtcdContext,
        watcher: Watcher,
        *,
        list_now: Callable[[], None],
    ) -> None:
        self._etcd = context
        self._watcher = watcher
        self._list_now = list_now
        self._pending: list[LogItem] = []
        """Events that only this node knows and that are not in the log yet."""
        self._shown: set[str] = set()
        """The keys of those that were published as provisional."""
        self._outages = Outages(context.node_id)
        self._history = LeaderHistory(context.view, context.now)
        self._published = Published(context, self._history)
        self._unexplained = False
        self._wake = trio.Event()
        self._attempt = trio.CancelScope()

    def look(self) -> None:
        """The view or the log has changed: compare them."""
        self._wake.set()

    def view_changed(self, change: ViewChange) -> None:
        """The view has changed."""
        match change:
            case LeaderLost(leader, term):
                self._history.lost(leader, term)
                self._published.leader_lost(leader, term)
            case LeaderElected(leader, term, before, restored):
                if restored:
                    self._history.clear()
                self._history.elected(leader, term, before)
                self._outages.leader_elected()
                self._unexplained = True
                # A request sent to the leader before may hang. Sending it again is safe: the dedupe keys prevent a
                # second write.
                self._attempt.cancel()
            case HealthChanged(member, healthy):
                if not healthy:
                    self._note_outage(member)
                self._published.show_health(log_works=self._log_works)
            case MemberRestarted(member):
                self._note_outage(member)
            case OtherCluster():
                self._history.clear()
                self._outages.clear()
            case _:
                pass
        self.look()

    def happened(self, key: str, event: Event) -> None:
        """Log an event of this node under this dedupe key, as soon as the log can be written."""
        self._pending.append(LogItem(key, event))
        self._show_pending()
        self.look()

    def on_logged(self, item: LoggedEvent | LogReset) -> None:
        """The log has published this to the node's clients."""
        self._published.on_logged(item)
        health = logged_health(item)
        if health is not None and health.event_type in ("unhealthy", "removed"):
            self._outages.logged(health.peer_id, self._etcd.now().mono)

    @property
    def _log_works(self) -> bool:
        """Events that are missing in the log will soon be in it."""
        reason = self._etcd.faults.reason
        refused = reason("logging events") or reason("writing") or "NOSPACE" in raised_alarms(self._etcd.view)
        return bool(self._etcd.view.leader) and not refused

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._published.run)
            nursery.start_soon(self._write)

    async def _write(self) -> None:
        backoff = Backoff(SystemRandom(), first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        while True:
            await self._etcd.subscribers.room()
            self._wake = trio.Event()
            wrote: bool | None = True
            try:
                with trio.CancelScope() as self._attempt:
                    wrote = await self._write_next()
            except EtcdLeaseGone:
                self._etcd.lease.gone()
                await self._pause(backoff.seconds())
            except EtcdError as error:
                self._etcd.faults.add("logging events", error)
                self._show()
                await self._pause(backoff.seconds())
            else:
                if wrote is not None:
                    self._etcd.faults.clear("logging events")
                    backoff.reset()
                if not wrote:
                    with trio.move_on_after(LOOK_AGAIN_SECONDS if self._outages else LOOK_SECONDS):
                        await self._wake.wait()
            await trio.lowlevel.checkpoint()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; a new leader ends it."""
        with trio.CancelScope() as self._attempt:
            await trio.sleep(seconds)

    async def _write_next(self) -> bool | None:
        """Append what is missing next. Returns whether something was; None: that cannot be known or written now."""
        mirror, view = self._etcd.mirror, self._etcd.view
        certain = view.leader and not view.doubted
        if not mirror.cluster_id or not certain or view.cluster_id != mirror.cluster_id:
            return None
        if view.suspect:
            return await self._write_beside_leader()
        if mirror.needs_birth:
            return await self._begin()
        await self._explain()
        if mirror.needs_birth:  # all keys may have been deleted meanwhile
            return None
        append = self._missing()
        if not append:
            self._show()
            return False
        await self._append(append)
        return True

    async def _write_beside_leader(self) -> bool | None:
        """The leader is silent here, and a quorum names it. Perhaps only its client port hangs, and the others
        forward to it what is written: append what does not depend on who leads."""
        append = Append() if self._etcd.mirror.needs_birth else self._missing_health() or self._own_events()
        if not append:
            return None
        await self._append(append)
        return True

    async def _explain(self) -> None:
        """Wait a moment for the leader that was: all members are polled at once after a change."""
        if self._unexplained:
            self._unexplained = False
            with trio.move_on_after(EXPLAIN_SECONDS):
                while not self._history.refresh().certain:  # noqa: ASYNC110 (polls go on)
                    await trio.sleep(EXPLAIN_SECONDS / 10)

    def _missing(self) -> Append:
        """The next events for the log, those about the leader first."""
        mirror, view = self._etcd.mirror, self._etcd.view
        assert mirror.head.head is not None, "the log has begun"
        head = mirror.head.head
        term, leader = self._history.next_after(head)
        append = leader_events(head, term, leader, self._history.observed(head.leader, head.term, term))
        if append:
            return append
        if view.members_as_of:
            learners = {each.id for each in view.known_members if view.traces.of(each.id).learner}
            members = membership_events(mirror.members, view.known_members, view.members_as_of, learners)
            if members is None:
                self._list_now()
            elif members:
                return members
        return self._missing_health() or self._own_events()

    def _own_events(self) -> Append:
        return Append(items=tuple(self._pending[:MAX_AT_ONCE]))

    def _missing_health(self) -> Append:
        """What this node has to tell of the members' health."""
        mirror, view, now = self._etcd.mirror, self._etcd.view, self._etcd.now()
        record = mirror.members.record
        unhealthy = () if record is None else record.unhealthy
        unlogged = {each.id for each in view.members}.difference(unhealthy)
        self._outages.retain(unlogged, mirror.observer, now.mono)
        judged = view.judged(now)
        # A member that is back, and whose outage is not in the log: first that it was unhealthy.
        outages = self._outages.to_log(mirror.observer, mirror.observers)
        back = {each: False for each in outages if judged.get(each)}
        return health_events(mirror.members, judged | back if mirror.observer == self._etcd.node_id else back)

    def _note_outage(self, member: str) -> None:
        """It was seen to be unhealthy, or restarted."""
        mirror, view, now = self._etcd.mirror, self._etcd.view, self._etcd.now()
        beside = member in {each.id for each in bearing(view.members, mirror.observer)}
        observer = mirror.observers.get(mirror.observer) if beside else None
        self._outages.noticed(member, observer, now.mono)

    async def _append(self, append: Append) -> None:
        head, members = self._etcd.mirror.head, self._etcd.mirror.members
        draft = compose(
            self._etcd.layout,
            append,
            head,
            lease=await self._etcd.lease.current(),
            now_wall=self._etcd.now().wall,
            max_events=self._etcd.max_events,
        )
        before = head.mod_revision, members.mod_revision
        result = await self._etcd.client.txn(draft.compares, draft.then, draft.otherwise)
        # What is missing next depends on what is in the log now: wait until that is applied here.
        with trio.move_on_after(APPLIED_SECONDS):
            match outcome(draft, result):
                case Logged(revision=revision):
                    self._forget(item.key for item in append.items)
                    await self._watcher.reach(revision)
                case AlreadyLogged():
                    self._forget(item.key for item in append.items)
                    with trio.move_on_after(ALREADY_SECONDS):
                        await self._watcher.changed(lambda: self._at() != before)
                case HeadMoved(head=head, members=members, logged=logged):
                    self._forget(logged)
                    # "Not as before": in a cluster that was set back the head has moved to an older revision.
                    await self._watcher.changed(
                        lambda: (
                            self._at() != before
                            and self._etcd.mirror.head.mod_revision >= head.mod_revision
                            and self._etcd.mirror.members.mod_revision >= members.mod_revision
                        )
                    )

    def _at(self) -> tuple[int, int]:
        """The revisions of the head and of the members that are applied here."""
        return self._etcd.mirror.head.mod_revision, self._etcd.mirror.members.mod_revision

    async def _begin(self) -> bool | None:
        """Begin the log with the present leader and members, which are no events."""
        if not self._etcd.view.members_as_of:
            self._list_now()
            return None
        draft = begin(
            self._etcd.layout,
            self._etcd.mirror.head,
            cluster_id=self._etcd.mirror.cluster_id,
            birth=secrets.token_urlsafe(9),
            members=self._etcd.view.known_members,
            term=self._etcd.view.term,
            leader=self._etcd.view.leader,
        )
        await self._etcd.client.txn(draft.compares, draft.then, draft.otherwise)
        with trio.move_on_after(APPLIED_SECONDS):
            await self._watcher.changed(lambda: not self._etcd.mirror.needs_birth)
        return True

    def _forget(self, keys: Iterable[str]) -> None:
        gone = set(keys)
        self._pending = [item for item in self._pending if item.key not in gone]
        self._shown -= gone

    def _show(self) -> None:
        self._published.show_leader()
        self._published.show_health(log_works=self._log_works)
        self._show_pending()

    def _show_pending(self) -> None:
        """Publish this node's own events that the log does not take now."""
        if self._log_works:
            return
        for item in self._pending:
            if item.key not in self._shown:
                self._shown.add(item.key)
                self._published.event(item.event)
