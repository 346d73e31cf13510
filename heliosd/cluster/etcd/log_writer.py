"""Appends to the cluster's log what this node sees and the log does not say yet.

There is no queue of changes that could be lost: after every change, the view is compared with the log
(`pending_events.py`), and the difference is appended. While there is no leader and so no writable log, the events
go to this node's own clients at once, as provisional.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from random import SystemRandom

import msgspec
import trio

from heliosd.backoff import Backoff
from heliosd.cluster.etcd.client.errors import EtcdError, EtcdLeaseGone
from heliosd.cluster.latency import HealthChanged
from heliosd.protocol.events import Cause, Event, LogReset, PeerChanged, PeerEvent, Provisional
from heliosd.store.changes import LoggedEvent

from .context import EtcdContext
from .election import LeaderElected, LeaderLost
from .event_log import AlreadyLogged, Append, HeadMoved, Logged, LogItem, begin, compose, outcome
from .loss_cause import loss_cause
from .pending_events import (
    Observed,
    elected_event,
    health_events,
    leader_events,
    lost_event,
    membership_events,
)
from .view import Turn
from .watcher import Watcher

FIRST_RETRY_SECONDS = 0.02
LONGEST_RETRY_SECONDS = 1.0
APPLIED_SECONDS = 3.0
"""How long to wait until the watch has delivered what was written, before view and log are compared again."""
ALREADY_SECONDS = 0.3
LOOK_SECONDS = 5.0
"""View and log are compared so often at least."""
MAX_AT_ONCE = 20
EXPLAIN_SECONDS = 0.08
"""So long an event about a leader may wait for the cause of the loss before it."""
HANDOVER_SECONDS = 0.5
"""If the next leader comes sooner, the cause of the loss is looked at again: it may have been a transfer."""


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
        self._shown = ""
        """The leader last published to this node's clients."""
        self._loss: tuple[str, int, float, Cause, dict[str, float]] = ("", 0, 0.0, "unknown", {})
        """Leader, term, when this node saw its loss (Unix seconds), why, and from what that was concluded."""
        self._fresh_loss = False
        self._election: tuple[str, int, float] = ("", 0, 0.0)
        self._wake = trio.Event()
        self._attempt = trio.CancelScope()

    def look(self) -> None:
        """The view or the log has changed: compare them."""
        self._wake.set()

    def turned(self, turn: Turn) -> None:
        """The view has changed."""
        match turn:
            case LeaderLost(leader, term):
                self._note_loss(leader, term)
                if self._shown == leader:
                    self._provisional(lost_event(leader, term, self._observed(leader, term)))
                    self._shown = ""
            case LeaderElected(leader, term, before):
                now = self._etcd.now().wall
                self._fresh_loss = True
                if before:
                    self._note_loss(before, self._election[1], at=now)
                elif self._loss[3] == "stepped_down" and now - self._loss[2] <= HANDOVER_SECONDS:
                    self._note_loss(self._loss[0], self._loss[1], at=self._loss[2])
                self._election = (leader, term, now)
                # A request sent to the leader before may hang. Sending it again is safe: the dedupe keys prevent a
                # second write.
                self._attempt.cancel()
            case HealthChanged(member, healthy) if not self._etcd.view.leader:
                known = (each for each in self._etcd.view.known_members if each.id == member)
                address, name = next(((each.address, each.name) for each in known), ("", ""))
                kind: PeerEvent = "healthy" if healthy else "unhealthy"
                self._provisional(
                    PeerChanged(event_type=kind, peer_id=member, peer_address=address, peer_name=name)
                )
            case _:
                pass
        self.look()

    def _note_loss(self, leader: str, term: int, *, at: float | None = None) -> None:
        """`at`: when it was seen, if that was before now."""
        now, view = self._etcd.now(), self._etcd.view
        removed = view.members_as_of > 0 and all(each.id != leader for each in view.members)
        answer = view.last_answer(leader)
        cause, evidence = loss_cause(leader, answer, now.mono, removed=removed)
        self._loss = (leader, term, now.wall if at is None else at, cause, evidence)

    def _observed(self, lost: str, lost_term: int) -> Observed:
        """What this node has seen of the loss of this leader, and of the present leader's election."""
        view, loss = self._etcd.view, self._loss
        seen_loss = loss[:2] == (lost, lost_term)
        seen_election = self._election[:2] == (view.leader, view.term)
        return Observed(
            names={each.id: each.name for each in view.members},
            lost_at=loss[2] if seen_loss else None,
            elected_at=self._election[2] if seen_election else None,
            cause=loss[3] if seen_loss else None,
            evidence=loss[4] if seen_loss else None,
        )

    def happened(self, key: str, event: Event) -> None:
        """Log an event of this node under this dedupe key, as soon as the log can be written."""
        self._pending.append(LogItem(key, event))
        if not self._etcd.view.leader:
            self._provisional(event)
        self.look()

    def on_logged(self, item: LoggedEvent | LogReset) -> None:
        """The log has published this to the node's clients."""
        if isinstance(item, LogReset):
            head = self._etcd.mirror.head.head
            self._shown = "" if head is None else head.leader
        elif item.type == "state_change":
            self._shown = msgspec.json.decode(item.payload, type=_StateChange).data.leader

    def _provisional(self, event: Event) -> None:
        self._etcd.subscribers.emit(Provisional(event))

    async def run(self) -> None:
        """Until cancelled."""
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
                await trio.sleep(backoff.seconds())
            except EtcdError as error:
                self._etcd.faults.add("logging events", error)
                self._show_leader()
                await trio.sleep(backoff.seconds())
            else:
                if wrote is not None:
                    self._etcd.faults.clear("logging events")
                    backoff.reset()
                if not wrote:
                    with trio.move_on_after(LOOK_SECONDS):
                        await self._wake.wait()
            await trio.lowlevel.checkpoint()

    async def _write_next(self) -> bool | None:
        """Append what is missing next. Returns whether something was; None: that cannot be known or written now."""
        mirror, view = self._etcd.mirror, self._etcd.view
        certain = view.leader and not view.suspect and not view.doubted
        if not mirror.cluster_id or not certain or view.cluster_id != mirror.cluster_id:
            return None
        if mirror.needs_birth:
            return await self._begin()
        await self._explain()
        append = self._missing()
        if not append:
            self._show_leader()
            return False
        await self._append(append)
        return True

    async def _explain(self) -> None:
        """Wait a moment for the leader that was: all members are polled at once after a change."""
        if self._fresh_loss and self._loss[0]:
            self._fresh_loss = False
            with trio.move_on_after(EXPLAIN_SECONDS):
                while self._loss[3] == "unknown":
                    await trio.sleep(EXPLAIN_SECONDS / 10)
                    self._note_loss(self._loss[0], self._loss[1], at=self._loss[2])

    def _missing(self) -> Append:
        """The next events for the log, those about the leader first."""
        mirror, view = self._etcd.mirror, self._etcd.view
        assert mirror.head.head is not None, "the log has begun"
        head = mirror.head.head
        append = leader_events(head, view.term, view.leader, self._observed(head.leader, head.term))
        if append:
            return append
        if view.members_as_of:
            members = membership_events(mirror.members, view.known_members, view.members_as_of)
            if members is None:
                self._list_now()
            elif members:
                return members
        if mirror.observer == self._etcd.node_id:
            append = health_events(mirror.members, view.judged(self._etcd.now()))
            if append:
                return append
        return Append(items=tuple(self._pending[:MAX_AT_ONCE]))

    async def _append(self, append: Append) -> None:
        draft = compose(
            self._etcd.layout,
            append,
            self._etcd.mirror.head,
            lease=await self._etcd.lease.current(),
            now_wall=self._etcd.now().wall,
            max_events=self._etcd.max_events,
        )
        before = self._etcd.mirror.head.mod_revision
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
                        await self._watcher.changed(lambda: self._etcd.mirror.head.mod_revision != before)
                case HeadMoved(head=head, members=members, logged=logged):
                    self._forget(logged)
                    await self._watcher.changed(
                        lambda: (
                            self._etcd.mirror.head.mod_revision >= head.mod_revision
                            and self._etcd.mirror.members.mod_revision >= members.mod_revision
                        )
                    )

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

    def _show_leader(self) -> None:
        """If a leader is known and this node's clients have none, publish it as provisional: only this node had
        lost it, or the log cannot be written."""
        view, head = self._etcd.view, self._etcd.mirror.head.head
        logged = ("", 0) if head is None else (head.leader, head.term)
        newest = view.term > logged[1] or (view.leader, view.term) == logged
        if view.leader and newest and view.leader != self._shown:
            self._shown = view.leader
            self._provisional(elected_event(view.leader, view.term, self._observed("", 0)))


class _Leader(msgspec.Struct):
    leader: str = ""


class _StateChange(msgspec.Struct):
    data: _Leader
