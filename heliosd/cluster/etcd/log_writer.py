"""Writing into the cluster's log what this node sees and the log does not say yet.

There is no list of things to do that could be lost: after everything that happens, what is seen is held against
what the log says (`etcd_telling.py`), and the difference is appended. While the log cannot be written to, for want
of a leader, this node's own clients are told at once, provisionally.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from random import uniform

import msgspec
import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdLeaseGone
from heliosd.cluster.latency import HealthTurned
from heliosd.protocol.events import Event, LogReset, PeerChanged, PeerEvent, Provisional, StateChanged
from heliosd.store.changes import LoggedEvent

from .context import EtcdContext
from .election import LeaderElected, LeaderLost
from .event_log import AlreadyLogged, Append, HeadMoved, Logged, LogItem, begin, compose, outcome
from .pending_events import health_events, leader_events, membership_events
from .view import Turn
from .watcher import Watcher

RETRY_SECONDS = (0.02, 0.05, 0.1, 0.3, 1.0)
APPLIED_SECONDS = 3.0
"""How long to wait for the watch to bring what was written. After that, what is seen decides again."""
ALREADY_SECONDS = 0.3
LOOK_SECONDS = 5.0
"""What is seen is held against the log so often at least."""
MAX_AT_ONCE = 20


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
        """Events of this node alone, which the log is still to get."""
        self._shown = ""
        """The leader that this node's clients were told of last."""
        self._wake = trio.Event()
        self._attempt = trio.CancelScope()

    # What happens

    def look(self) -> None:
        """Something is seen, or said by the log, that was not before."""
        self._wake.set()

    def turned(self, turn: Turn) -> None:
        """The view has turned so."""
        match turn:
            case LeaderLost(leader, term):
                if self._shown == leader:
                    self._provisional(_lost(leader, term))
                    self._shown = ""
            case LeaderElected():
                # What was sent to the leader before it hangs with it. Nothing is written twice: the dedupe keys
                # see to that.
                self._attempt.cancel()
            case HealthTurned(member, healthy) if not self._etcd.view.leader:
                address = next(
                    (each.address for each in self._etcd.view.known_members if each.id == member), ""
                )
                kind: PeerEvent = "healthy" if healthy else "unhealthy"
                self._provisional(PeerChanged(event_type=kind, peer_id=member, peer_address=address))
            case _:
                pass
        self.look()

    def happened(self, key: str, event: Event) -> None:
        """An event of this node, to be logged under this dedupe key as soon as the log takes it."""
        self._pending.append(LogItem(key, event))
        if not self._etcd.view.leader:
            self._provisional(event)
        self.look()

    def on_logged(self, item: LoggedEvent | LogReset) -> None:
        """This node's clients are told so by the log."""
        if isinstance(item, LogReset):
            head = self._etcd.mirror.head.head
            self._shown = "" if head is None else head.leader
        elif item.type == "state_change":
            self._shown = msgspec.json.decode(item.payload, type=_StateChange).data.leader

    def _provisional(self, event: Event) -> None:
        self._etcd.subscribers.emit(Provisional(event))

    # The log

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            await self._etcd.subscribers.room()
            self._wake = trio.Event()
            wrote: bool | None = True
            try:
                with trio.CancelScope() as self._attempt:
                    wrote = await self._write_next()
            except EtcdLeaseGone:
                self._etcd.lease.gone()
                failures, wrote = failures + 1, True
            except EtcdError as error:
                self._etcd.faults.add("telling events", error)
                self._show_leader()
                failures, wrote = failures + 1, True
            else:
                if wrote is not None:
                    self._etcd.faults.clear("telling events")
                    failures = 0
            if failures:
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]
                await trio.sleep(uniform(pause / 2, pause))  # noqa: S311
            elif not wrote:
                with trio.move_on_after(LOOK_SECONDS):
                    await self._wake.wait()
            else:
                await trio.lowlevel.checkpoint()

    async def _write_next(self) -> bool | None:
        """Append what is missing next. Whether something was; None: it cannot be found out or written now."""
        mirror, view = self._etcd.mirror, self._etcd.view
        certain = view.leader and not view.suspect and not view.doubted
        if not mirror.cluster_id or not certain or view.cluster_id != mirror.cluster_id:
            return None
        if mirror.needs_birth:
            return await self._begin()
        append = self._missing()
        if not append:
            self._show_leader()
            return False
        await self._append(append)
        return True

    def _missing(self) -> Append:
        """What the log is to say next: who leads before all else."""
        mirror, view = self._etcd.mirror, self._etcd.view
        assert mirror.head.head is not None, "it needs no birth"
        append = leader_events(mirror.head.head, view.term, view.leader)
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
        # What was written, or came before it, decides what is missing next: it has to have been heard here.
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
        """The log's first transaction: without it, what is true now would have to be told as if it had happened."""
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
        """The leader is known and this node's clients were told of none: it was lost to this node alone, or the log
        does not take it. They are told all the same."""
        view, head = self._etcd.view, self._etcd.mirror.head.head
        logged = ("", 0) if head is None else (head.leader, head.term)
        newest = view.term > logged[1] or (view.leader, view.term) == logged
        if view.leader and newest and view.leader != self._shown:
            self._shown = view.leader
            self._provisional(_elected(view.leader, view.term))


class _Leader(msgspec.Struct):
    leader: str = ""


class _StateChange(msgspec.Struct):
    data: _Leader


def _lost(leader: str, term: int) -> StateChanged:
    return StateChanged(old_state="Leader", new_state="Unknown", term=term, leader="", member=leader)


def _elected(leader: str, term: int) -> StateChanged:
    return StateChanged(old_state="Follower", new_state="Leader", term=term, leader=leader, member=leader)
