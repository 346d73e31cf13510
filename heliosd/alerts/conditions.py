"""What holds in the cluster now, as the event log says it: the conditions that alerts wait for.

1. The event log opens and closes conditions. Every daemon of a cluster reads the same log, so the same condition
   has the same `ref` on each of them.
2. The observed status opens and closes what the log does not say within `DISAGREE_SECONDS`: without a quorum, etcd
   cannot log that its leader is lost.
3. Values of custom metrics are not in the log. Their conditions follow the observed value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import UNSET, Raw, Struct

from heliosd.clock import Instant
from heliosd.config.alert_condition import AlertCondition
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.protocol.views.status import ClusterStatus
from heliosd.raft.quorum import majority

DISAGREE_SECONDS = 3.0
"""The status may be ahead of the log by so long before it counts."""
FORGET_SECONDS = 10.0
"""A peer that the log calls unhealthy may look healthy for so long: a start does not know yet that it is silent."""
MAX_REMOVED = 100
"""Removed peers that are remembered."""
EVENT_TYPES = frozenset({"state_change", "peer_change", "snapshot"})
"""The events that open or close a condition."""
NO_EVENT = Raw(b"null")


class Occurrence(Struct, frozen=True, kw_only=True):
    """A condition that holds, or the event that it began with."""

    kind: str
    """As the key `when` of an alert."""
    subject: str = ""
    """The peer's or leader's id, where there can be several."""
    ref: str
    """Names this occurrence: the same after a restart."""
    at: float
    """Unix seconds at which it began: `observed_at` of its event, else its `timestamp`."""
    event: Raw = NO_EVENT
    """The event as on the WebSocket, or `null`."""


class Closed(Struct, frozen=True):
    """An occurrence that ended at `at`, in Unix seconds; None: at a time that is not known."""

    occurrence: Occurrence
    at: float | None


class Observation(Struct, frozen=True, kw_only=True):
    """The cluster as this node sees it."""

    complete: bool = False
    """Whether what it lacks is not there. Until then, after a start, that may only not be known yet."""
    leader: str = ""
    """ "": none is known."""
    voters: frozenset[str] = frozenset()
    unhealthy: frozenset[str] = frozenset()
    """Members that this node has no contact with; its own may be one."""

    @classmethod
    def of(cls, status: ClusterStatus, *, complete: bool = True) -> Observation:
        """What a status says. `complete`: as `Backend.complete` when it was taken."""
        voters = {peer.id for peer in status.peers if peer.voter}
        unhealthy = {peer.id for peer in status.peers if not peer.latency.connection_healthy}
        node = status.node
        by_role = node.state not in {"Observer", "Unknown", "Learner"}
        if by_role if node.voter is UNSET else node.voter:
            voters.add(node.id)
        if node.healthy is False:
            unhealthy.add(node.id)
        return cls(
            complete=complete and bool(voters),
            leader=status.leader.id,
            voters=frozenset(voters),
            unhealthy=frozenset(unhealthy),
        )


def quorum_at_risk(voters: Collection[str], unhealthy: Collection[str]) -> bool:
    """Whether the loss of one more voter would cost the majority, or it is lost; never while all are healthy."""
    lost = len(set(voters) & set(unhealthy))
    return lost > 0 and len(voters) - lost <= majority(len(voters))


class ConditionState(Struct, kw_only=True):
    """What of `Conditions` is stored."""

    leader: str = ""
    """As the log says, or as this node sees it where the log is behind."""
    logged: str = ""
    """The leader as the log says."""
    leader_ref: str = ""
    """The event that the leader of the log was elected with."""
    losses: int = 0
    """Since then, those that this node saw before the log had them."""
    untold: bool = False
    """The log may still tell of the loss that was seen last."""
    open: list[Occurrence] = []


class _EventData(Struct):
    leader: str = ""
    observed_at: str = ""
    event_type: str = ""
    peer_id: str = ""
    success: bool = True


class _Event(Struct):
    data: _EventData


_decode = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class Conditions:
    """The open conditions. `node` is this daemon's id: it names what only this node has seen."""

    node: str
    state: ConditionState
    observed: Observation = field(default_factory=Observation)
    _open: dict[tuple[str, str], Occurrence] = field(default_factory=dict)
    _disagree: dict[tuple[str, str], Instant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._open = {(each.kind, each.subject): each for each in self.state.open}

    def open(self, kind: str) -> list[Occurrence]:
        """All open conditions of this kind."""
        return [each for each in self._open.values() if each.kind == kind]

    def stored(self) -> ConditionState:
        """What goes on after a restart."""
        self.state.open = list(self._open.values())
        return self.state

    def agrees(self, occurrence: Occurrence) -> bool:
        """Whether this node sees it as well."""
        match occurrence.kind:
            case "leader_lost":
                return not self.observed.leader
            case "peer_unhealthy":
                return occurrence.subject in self.observed.unhealthy
            case "quorum_at_risk":
                return quorum_at_risk(self.observed.voters, self.observed.unhealthy)
            case _:
                return True

    def apply(self, message: OutgoingMessage, epoch: str) -> list[Closed]:
        """Take the next event of the log; returns what it closes."""
        data = _decode(message.payload).data
        at = datetime.fromisoformat(data.observed_at).timestamp() if data.observed_at else message.at
        ref = f"{epoch}:{message.seq}"
        closed: list[Closed] = []

        def begin(kind: str, subject: str = "") -> None:
            self._begin(kind, subject, ref, at, Raw(message.payload))

        match message.type:
            case "state_change" if data.leader != self.state.logged:
                closed += self._led_by(data.leader, ref, at, begin)
            case "peer_change":
                closed += self._peer_changed(data, at, begin)
                closed += self._judge_quorum(at, ref, Raw(message.payload))
            case "snapshot" if data.success:
                closed += self._end("snapshot_failed", at)
            case "snapshot":
                begin("snapshot_failed")
        return closed

    def _led_by(self, leader: str, ref: str, at: float, begin: Callable[[str, str], None]) -> list[Closed]:
        """The log has the loss of its leader, or the election of this one."""
        state = self.state
        state.logged = leader
        closed = self._end("leader_elected", at)
        if leader:
            closed += self._end("leader_lost", at)
            state.leader, state.leader_ref, state.losses, state.untold = leader, ref, 0, False
            begin("leader_elected", leader)
        elif state.untold:
            state.untold = False
        else:
            state.leader = ""
            begin("leader_lost", "")
        return closed

    def _peer_changed(self, data: _EventData, at: float, begin: Callable[[str, str], None]) -> list[Closed]:
        peer = data.peer_id
        match data.event_type:
            case "unhealthy":
                begin("peer_unhealthy", peer)
            case "healthy":
                return self._end("peer_unhealthy", at, peer)
            case "added":
                return self._end("peer_removed", at, peer)
            case "removed":
                closed = self._end("peer_unhealthy", at, peer) + self._end("peer_removed", at, peer)
                begin("peer_removed", peer)
                # Ids of etcd's members never come again, so that nothing else would end these.
                for oldest in self.open("peer_removed")[:-MAX_REMOVED]:
                    closed += self._end("peer_removed", at, oldest.subject)
                return closed
        return []

    def paused(self) -> None:
        """This process did not run for a while: what the status says by now is from before."""
        self._disagree.clear()

    def observe(self, observed: Observation, now: Instant) -> list[Closed]:
        """Take what this node sees; returns what that closes: nothing before it is complete."""
        self.observed = observed
        wrong: dict[tuple[str, str], bool] = {}
        if bool(observed.leader) != bool(self.state.leader):
            wrong["leader_lost", ""] = not observed.leader
        known = {each.subject for each in self.open("peer_unhealthy")}
        for peer in observed.unhealthy ^ known:
            wrong["peer_unhealthy", peer] = peer in observed.unhealthy
        if not observed.complete:
            wrong = {key: holds for key, holds in wrong.items() if holds}
        self._disagree = {key: self._disagree.get(key, now) for key in wrong}
        closed: list[Closed] = []
        for key, holds in wrong.items():
            since = self._disagree[key]
            if now.mono - since.mono < (DISAGREE_SECONDS if holds or not key[1] else FORGET_SECONDS):
                continue
            own = self._own_ref(since, key[1])
            if key[0] == "leader_lost" and holds:
                own = self._loss(own)
                closed += self._end("leader_elected", since.wall)
            elif key[0] == "leader_lost":
                # The one that was lost is back, or the log will not say who was elected.
                self.state.leader = observed.leader
                if observed.leader == self.state.logged:
                    self.state.untold = False
            if holds:
                self._begin(*key, own, since.wall, NO_EVENT)
            else:
                closed += [Closed(each.occurrence, None) for each in self._end(key[0], now.wall, key[1])]
        return closed + self._judge_quorum(now.wall, self._own_ref(now), NO_EVENT)

    def observe_metrics(
        self, wanted: Iterable[AlertCondition], metrics: Mapping[str, MetricView], now: Instant
    ) -> list[Closed]:
        """Take the values of the metrics that alerts wait for; conditions on others are forgotten."""
        by_kind = {str(condition): condition for condition in wanted if condition.metric}
        closed: list[Closed] = []
        for kind, condition in by_kind.items():
            metric = metrics.get(condition.metric)
            if metric is not None and metric.value > condition.above:
                if (kind, "") not in self._open:
                    event = {"type": "custom_metrics", "data": {condition.metric: metric}}
                    ref = f"metric:{condition.metric}:{metric.updated_at}"
                    self._begin(kind, "", ref, now.wall, Raw(msgspec.json.encode(event)))
            elif self.observed.complete:
                closed += self._end(kind, now.wall)
        for kind, subject in list(self._open):
            if kind.startswith("metric:") and kind not in by_kind:
                del self._open[kind, subject]
        return closed

    def _judge_quorum(self, at: float, ref: str, event: Raw) -> list[Closed]:
        if not self.observed.complete:
            return []
        unhealthy = {each.subject for each in self.open("peer_unhealthy")}
        if not quorum_at_risk(self.observed.voters, unhealthy):
            return self._end("quorum_at_risk", at)
        self._begin("quorum_at_risk", "", ref, at, event)
        return []

    def _loss(self, ref: str) -> str:
        """This node sees the loss of the leader, and the log says nothing yet. Names the loss by the election of
        that leader, which every daemon knows."""
        self.state.leader, self.state.untold = "", True
        self.state.losses += 1
        number = "" if self.state.losses == 1 else f".{self.state.losses}"
        return f"{self.state.leader_ref or ref}{number}"

    def _own_ref(self, began: Instant, subject: str = "") -> str:
        """Names what only this node has seen. What one look finds began at one time: the subject tells it apart."""
        name = f"{self.node}:{round(began.wall * 1000)}"
        return f"{name}:{subject}" if subject else name

    def _begin(self, kind: str, subject: str, ref: str, at: float, event: Raw) -> None:
        self._open.setdefault(
            (kind, subject), Occurrence(kind=kind, subject=subject, ref=ref, at=at, event=event)
        )

    def _end(self, kind: str, at: float, subject: str | None = None) -> list[Closed]:
        """Close the conditions of this kind, or the one of this subject."""
        ended = [each for each in self.open(kind) if subject in {None, each.subject}]
        for each in ended:
            del self._open[kind, each.subject]
        return [Closed(each, at) for each in ended]
