"""What this node's clients know of the leader and of the members' health, and what they get before the log has it.

Where there is no writable log (no leader, or etcd refuses), changes go to this node's own clients at once, as
provisional. Rules:

1. Nothing is published twice: a change is published if it differs from what the clients know.
2. While a quorum of the members answers, and the leader before does, a lost leader is published only after
   `ELECTION_SECONDS`: a planned transfer is over sooner, and then the log says both.
3. Once the log can be written again, what it says is published. A member is published as
   healthy here only if it was published here as unhealthy, and the log never called it so.
"""

from __future__ import annotations

import msgspec
import trio

from heliosd.protocol.events import Event, LogReset, Provisional
from heliosd.store.changes import LoggedEvent

from .context import EtcdContext
from .leader_history import LeaderHistory
from .pending_events import elected_event, health_event, lost_event

ELECTION_SECONDS = 0.3


class Published:
    """Kept up to date by `on_logged`; `run` publishes the losses that are due."""

    def __init__(self, context: EtcdContext, history: LeaderHistory) -> None:
        self._etcd = context
        self._history = history
        self._leader = ""
        self._unhealthy: set[str] = set()
        self._loss: tuple[str, int] = ("", 0)
        """The leader whose loss is to be published, and its term."""
        self._lost_at = 0.0
        self._lost = trio.Event()

    def on_logged(self, item: LoggedEvent | LogReset) -> None:
        """The log has published this."""
        if isinstance(item, LogReset):
            head, record = self._etcd.mirror.head.head, self._etcd.mirror.members.record
            self._leader = "" if head is None else head.leader
            self._unhealthy = set() if record is None else set(record.unhealthy)
        elif item.type == "state_change":
            self._leader = msgspec.json.decode(item.payload, type=_StateChange).data.leader
        elif (change := logged_health(item)) is not None:
            if change.event_type == "unhealthy":
                self._unhealthy.add(change.peer_id)
            elif change.event_type in ("healthy", "removed"):
                self._unhealthy.discard(change.peer_id)

    def event(self, event: Event) -> None:
        """Publish this as provisional."""
        self._etcd.subscribers.emit(Provisional(event))

    def leader_lost(self, leader: str, term: int) -> None:
        """The view has lost this leader."""
        self._loss, self._lost_at = (leader, term), trio.current_time()
        self._lost.set()
        if not self._etcd.view.quorum_answers(self._etcd.now()):
            self._show_loss()
            self._show_health_without_leader()
        elif self._etcd.view.traces.of(leader).in_doubt:
            self._show_loss()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._lost.wait()
            self._lost = trio.Event()
            # Another loss meanwhile has its own time.
            while (left := self._lost_at + ELECTION_SECONDS - trio.current_time()) > 0:  # noqa: ASYNC110
                await trio.sleep(left)  # not a poll: it ends in time unless another loss comes
            await self._etcd.subscribers.room()
            self._show_loss()
            self._show_health_without_leader()

    def show_leader(self) -> None:
        """If a leader is known and the clients have none, publish it: only this node had lost it, or the log cannot
        be written."""
        view, head = self._etcd.view, self._etcd.mirror.head.head
        logged = ("", 0) if head is None else (head.leader, head.term)
        newest = view.term > logged[1] or (view.leader, view.term) == logged
        if view.leader and newest and view.leader != self._leader:
            self._leader = view.leader
            self.event(elected_event(view.leader, view.term, self._history.observed("", 0, view.term)))

    def show_health(self, *, log_works: bool) -> None:
        """Publish what differs from what the clients know, as far as the log will not say it."""
        if self._leader and not self._etcd.view.leader:
            return  # the loss comes first
        record = self._etcd.mirror.members.record
        logged = () if record is None else record.unhealthy
        judged = self._etcd.view.judged(self._etcd.now())
        for member in self._etcd.view.known_members:
            healthy = judged.get(member.id)
            if healthy is None or healthy == (member.id not in self._unhealthy):
                continue
            if log_works and (not healthy or member.id in logged):
                continue
            (self._unhealthy.discard if healthy else self._unhealthy.add)(member.id)
            self.event(health_event(member, healthy=healthy))

    def _show_loss(self) -> None:
        leader, term = self._loss
        if leader and leader == self._leader and not self._etcd.view.leader:
            self._leader = ""
            self.event(lost_event(leader, term, self._history.observed(leader, term, 0)))

    def _show_health_without_leader(self) -> None:
        if not self._etcd.view.leader:
            self.show_health(log_works=False)


class _Leader(msgspec.Struct):
    leader: str = ""


class _StateChange(msgspec.Struct):
    data: _Leader


class LoggedHealth(msgspec.Struct):
    """A change of a member, as the log tells it."""

    event_type: str
    peer_id: str


class _PeerChange(msgspec.Struct):
    data: LoggedHealth


def logged_health(item: LoggedEvent | LogReset) -> LoggedHealth | None:
    """The change of a member that this is; None: it is another event."""
    if isinstance(item, LogReset) or item.type != "peer_change":
        return None
    return msgspec.json.decode(item.payload, type=_PeerChange).data
