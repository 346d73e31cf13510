"""Several nodes on one etcd, in any order of steps, with answers that come late or never.

A node sees the cluster's leader and members with delay, writes what follows from that, and sends its client what
it has applied. The client believes that and nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.etcd import event_log, metric_transactions
from heliosd.cluster.etcd.client.responses import TxnResult
from heliosd.cluster.etcd.event_log import (
    AlreadyLogged,
    Append,
    Draft,
    HeadMoved,
    Logged,
    LogHead,
    SeenHead,
    SeenMembers,
)
from heliosd.cluster.etcd.members import KnownMember
from heliosd.cluster.etcd.metric_transactions import MetricTransaction, Outrun
from heliosd.cluster.etcd.mirror import Mirror
from heliosd.cluster.etcd.pending_events import health_events, leader_events, membership_events
from heliosd.cluster.etcd.updates import MirrorUpdate
from heliosd.cluster.metric_commands import (
    DeleteMetric,
    MetricCommand,
    RegisterMetric,
    ResetMetrics,
    UpdateMetric,
)
from heliosd.protocol.events import LogReset, MetricValuesChanged
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.store.changes import LoggedEvent

from .etcd_model import CLUSTER, LAYOUT, Etcd

IDS = ("1a", "2b", "3c", "4d")
NAMES = ("hits", "depth", "took", "hits_sum")
LOG = {"lease": "7", "now_wall": 1_700_000_000.0}


@dataclass
class Truth:
    """The etcd cluster itself."""

    term: int = 2
    leader: str = IDS[0]
    members: tuple[KnownMember, ...] = tuple(KnownMember(each, each, each + ":1", False) for each in IDS[:3])
    ill: frozenset[str] = frozenset()


@dataclass
class Client:
    """What a node's client makes of what it is sent."""

    epoch: str = ""
    seq: int = 0
    events: dict[tuple[str, int], bytes] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, bool] = field(default_factory=dict)
    """Id -> healthy."""
    leader: str = ""
    holes: list[tuple[int, int]] = field(default_factory=list)

    def hear(self, news: MirrorUpdate, mirror: Mirror) -> None:
        status = False
        for item in news.emitted:
            match item:
                case LogReset():
                    if item.lost is not None:
                        assert item.epoch == self.epoch
                        assert item.lost == (self.seq + 1, item.seq)
                        self.holes.append(item.lost)
                    else:
                        assert item.epoch != self.epoch
                    assert [each.seq for each in item.kept] == list(
                        range(item.seq + 1 - len(item.kept), item.seq + 1)
                    )
                    for each in item.kept:
                        self._keep(item.epoch, each)
                    self.epoch, self.seq, status = item.epoch, item.seq, True
                case LoggedEvent():
                    assert item.seq == self.seq + 1
                    self.seq = item.seq
                    self._keep(self.epoch, item)
                    # After a hole the status will replace it all.
                    if not status:
                        self._believe(item)
                case MetricValuesChanged():
                    for name, view in item.metrics.items():
                        # Values are sent only of metrics that the client knows.
                        assert status or name in self.metrics
                        self.metrics[name] = _sent(view)
        if status:
            self.metrics = _views(mirror.metrics.views())
            record, head = mirror.members.record, mirror.head.head
            assert record is not None
            assert head is not None
            self.peers = {each.id: each.id not in record.unhealthy for each in record.members}
            self.leader = head.leader

    def _keep(self, epoch: str, event: LoggedEvent) -> None:
        assert self.events.setdefault((epoch, event.seq), event.payload) == event.payload

    def _believe(self, event: LoggedEvent) -> None:
        data = msgspec.json.decode(event.payload)["data"]
        if event.type == "custom_metrics":
            for name, view in data.items():
                assert (name in self.metrics) == (view is None)
                if view is None:
                    del self.metrics[name]
                else:
                    self.metrics[name] = view
        elif event.type == "state_change":
            if data["new_state"] == "Leader":
                assert self.leader == ""
                self.leader = data["leader"]
            else:
                assert data["member"] == self.leader
                self.leader = ""
        else:
            match data["event_type"]:
                case "added":
                    assert data["peer_id"] not in self.peers
                    self.peers[data["peer_id"]] = True
                case "removed":
                    del self.peers[data["peer_id"]]
                case "healthy" | "unhealthy" as health:
                    assert self.peers[data["peer_id"]] != (health == "healthy")
                    self.peers[data["peer_id"]] = health == "healthy"
                case kind:
                    assert kind in {"promoted", "renamed"}


@dataclass
class Sent:
    """A transaction on its way."""

    request: Draft | MetricTransaction
    commands: tuple[MetricCommand, ...] = ()
    result: TxnResult | None = None
    forsaken: bool = False
    """The node no longer waits for the answer, but etcd may still carry it out."""


class ModelNode:
    def __init__(self, etcd: Etcd, max_events: int) -> None:
        self.mirror = Mirror(LAYOUT, max_events)
        self.client = Client()
        self.sight = Truth()
        self.sight_revision = 0
        self.head = SeenHead()
        self.members = SeenMembers()
        self.fresh = metric_transactions.SeenMetrics()
        self.wanted = 0
        """The revision to which `head`, `members` belong."""
        self.sent: Sent | None = None
        self.waiting: tuple[MetricCommand, ...] = ()
        self.read(etcd)

    def read(self, etcd: Etcd) -> None:
        self.client.hear(self.mirror.load(etcd.read()), self.mirror)

    def take(self, etcd: Etcd, upto: int, repeat: int = 0) -> None:
        """The watch delivers up to `upto`, and the last `repeat` revisions a second time."""
        start = self.mirror.revision + 1
        if start <= etcd.compacted:
            self.read(etcd)
            return
        batch = etcd.watch(max(etcd.compacted + 1, start - repeat), upto)
        self.client.hear(self.mirror.apply(batch), self.mirror)

    def newest(self) -> tuple[SeenHead, SeenMembers]:
        if self.mirror.revision >= self.wanted:
            return self.mirror.head, self.mirror.members
        return self.head, self.members


class World:
    """One run, determined by its seed."""

    def __init__(self, seed: int, *, nodes: int = 3, max_events: int = 40, calm: bool = False) -> None:
        self.rng = Random(seed)
        self.max_events = max_events
        self.calm = calm
        self.etcd = Etcd(raft_term=2)
        self.truth = Truth()
        draft = event_log.begin(
            LAYOUT, SeenHead(), cluster_id=CLUSTER, birth="x" * 12, members=self.truth.members
        )
        self._carry_out(Sent(draft))
        self.nodes = [ModelNode(self.etcd, max_events) for _ in range(nodes)]
        self.ghosts: list[Sent] = []
        self.log: dict[int, bytes] = {}
        self.counted: Counter[str] = Counter()
        """Increments that were answered as committed, or would have been."""
        self.clock = 0.0

    def run(self, steps: int) -> None:
        for _ in range(steps):
            node = self.rng.choice(self.nodes)
            self.rng.choices(
                [self.turn, self.look, self.send, self.command, self.deliver, self.listen, self.trouble],
                [1, 2, 6, 6, 16, 6, 0 if self.calm else 0.5],
            )[0](node)

    def settle(self) -> None:
        """Everything arrives, and every node does what is left to do."""
        for sent in self.ghosts:
            self._carry_out(sent)
        self.ghosts.clear()
        for _ in range(60):
            for node in self.nodes:
                self.look(node)
                self.send(node)
                self.deliver(node, lose=False)
                self.listen(node, everything=True)
        for node in self.nodes:
            self.listen(node, everything=True)

    def verify(self) -> None:
        """What holds once everything has arrived."""
        head = event_log.read_head((self.etcd.kvs[LAYOUT.head],)).head
        assert head is not None
        assert head.seq == len(self.log)
        self._verify_leaders(head)
        truth = self.truth
        assert head.leader == truth.leader
        record = event_log.read_members((self.etcd.kvs[LAYOUT.members],)).record
        assert record is not None
        assert record.members == truth.members
        assert set(record.unhealthy) == truth.ill & {each.id for each in truth.members}
        stored = MetricSet()
        kvs = self.etcd.under(LAYOUT.folder("metrics"), LAYOUT.folder_end("metrics"))
        for kv in sorted(kvs, key=lambda kv: (kv.create_revision, kv.key)):
            stored.put(LAYOUT.meaning(kv.key).name, kv.value)  # type: ignore[union-attr]
        if "hits" in stored:
            assert stored.view("hits").value == self.counted["hits"]
        for node in self.nodes:
            mirror, client = node.mirror, node.client
            assert (client.epoch, client.seq) == (head.epoch, head.seq)
            assert {seq: payload for (_, seq), payload in client.events.items()}.items() <= self.log.items()
            assert list(mirror.metrics.views().items()) == list(stored.views().items())
            assert mirror.seen_metrics().revisions == {
                kv.key.rpartition(b"/")[2].decode(): kv.mod_revision for kv in kvs
            }
            assert client.metrics == _views(stored.views())
            assert client.leader == head.leader
            assert client.peers == {each.id: each.id not in truth.ill for each in truth.members}

    def _verify_leaders(self, head: LogHead) -> None:
        """Every leader in its turn: elected, lost, elected, …, in terms that never go back."""
        leader, term = "", 0
        for seq in sorted(self.log):
            logged = msgspec.json.decode(self.log[seq])
            if logged["type"] != "state_change":
                continue
            data = logged["data"]
            if data["new_state"] == "Leader":
                assert leader == ""
                assert data["term"] >= term
                assert (data["old_state"], data["member"]) == ("Follower", data["leader"])
                leader, term = data["leader"], data["term"]
            else:
                assert (data["old_state"], data["new_state"]) == ("Leader", "Unknown")
                assert (data["member"], data["term"], data["leader"]) == (leader, term, "")
                leader = ""
        assert (leader, term) == (head.leader, head.term)

    # What happens

    def turn(self, node: ModelNode) -> None:
        """The cluster changes."""
        del node
        truth = self.truth
        match self.rng.randrange(6):
            case 0:
                truth.leader = ""
            case 1 | 2:
                if not truth.leader or self.rng.random() < 0.5:
                    truth.term += self.rng.randint(1, 2)
                    truth.leader = self.rng.choice(IDS)
                    self.etcd.raft_term = truth.term
            case 3:
                ids = self.rng.sample(IDS, self.rng.randint(2, 4))
                learner = self.rng.choice([*IDS, ""])
                truth.members = tuple(
                    KnownMember(each, self.rng.choice([each, "new"]), each + ":1", each == learner)
                    for each in sorted(ids)
                )
            case 4:
                truth.ill = frozenset(self.rng.sample(IDS, self.rng.randint(0, 2)))
            case _:
                pass

    def look(self, node: ModelNode) -> None:
        """A node sees the cluster as it is now; it will act on that later."""
        node.sight = Truth(self.truth.term, self.truth.leader, self.truth.members, self.truth.ill)
        if not self.truth.leader:
            # Whom it misses: the leader in the log, as this node has read it.
            head = node.mirror.head.head
            assert head is not None
            node.sight.term = head.term
        # Any member may answer, and none is ahead of the cluster.
        node.sight_revision = self.etcd.revision

    def send(self, node: ModelNode) -> None:
        """A node sends off what it wants logged, if it is not waiting for an answer."""
        if node.sent is not None:
            return
        head, members = node.newest()
        assert head.head is not None
        sight = node.sight
        choices: list[Append | None] = [
            leader_events(head.head, sight.term, sight.leader),
            membership_events(members, sight.members, node.sight_revision),
        ]
        if node is self.nodes[0] or not self.calm:
            choices.append(health_events(members, {each: each not in sight.ill for each in IDS}))
        for append in self.rng.sample(choices, len(choices)):
            if append:
                draft = event_log.compose(LAYOUT, append, head, max_events=self.max_events, **LOG)  # type: ignore[arg-type]
                node.sent = Sent(draft)
                return

    def command(self, node: ModelNode) -> None:
        """A node is asked for a change of the metrics."""
        if node.sent is not None:
            return
        if not node.waiting:
            node.waiting = tuple(self._any_command() for _ in range(self.rng.randint(1, 5)))
        seen = node.mirror.seen_metrics()
        if node.fresh.revision > seen.revision:
            seen = node.fresh
        batch = metric_transactions.compose(LAYOUT, node.waiting, seen, max_events=self.max_events, **LOG)  # type: ignore[arg-type]
        node.sent = Sent(batch, node.waiting[: len(batch.answers)])
        node.waiting = node.waiting[len(batch.answers) :]

    def deliver(self, node: ModelNode, lose: bool = True) -> None:
        """A request is carried out, or its answer comes, or neither for now."""
        if self.ghosts and self.rng.random() < 0.3:
            self._carry_out(self.ghosts.pop(self.rng.randrange(len(self.ghosts))))
        sent = node.sent
        if sent is None:
            return
        if lose and not self.calm and self.rng.random() < 0.15:
            node.sent = None
            if sent.result is None:
                sent.forsaken = True
                self.ghosts.append(sent)
            return
        if sent.result is None:
            self._carry_out(sent)
        if not lose or self.rng.random() < 0.7:
            node.sent = None
            self._answered(node, sent)

    def listen(self, node: ModelNode, everything: bool = False) -> None:
        """The watch delivers some."""
        upto = self.etcd.revision
        start = node.mirror.revision
        if not everything and upto > start:
            upto = self.rng.randint(start, upto)
        node.take(self.etcd, upto, repeat=self.rng.choice([0, 0, 1, 3]))

    def trouble(self, node: ModelNode) -> None:
        match self.rng.randrange(4):
            case 0:
                self.etcd.compact()
            case 1:
                node.read(self.etcd)
            case 2:
                # A node starts anew; its client comes back to it later.
                place = self.nodes.index(node)
                self.nodes[place] = ModelNode(self.etcd, self.max_events)
                if node.sent is not None and node.sent.result is None:
                    self.ghosts.append(node.sent)
            case _:
                pass

    # How it is carried out

    def _carry_out(self, sent: Sent) -> None:
        before = self.etcd.revision
        request = sent.request
        sent.result = self.etcd.txn(request.compares, request.then, request.otherwise)
        if self.etcd.revision > before:
            self._look_through(self.etcd.revision)
        if sent.result.succeeded and isinstance(request, MetricTransaction):
            for command, refused in zip(sent.commands, request.answers, strict=True):
                if refused is None:
                    self._count(command)

    def _count(self, command: MetricCommand) -> None:
        match command:
            case UpdateMetric(name="hits"):
                self.counted["hits"] += 1
            case ResetMetrics() | DeleteMetric(name="hits") | RegisterMetric(name="hits"):
                self.counted["hits"] = 0
            case _:
                pass

    def _look_through(self, revision: int) -> None:
        """What the rules promise of every write."""
        for event in self.etcd.revisions[revision]:
            place = LAYOUT.meaning(event.kv.key)
            assert place is not None
            seq = LAYOUT.seq(place)
            if event.kind == "put" and seq is not None:
                assert seq == len(self.log) + 1
                assert event.kv.version == 1
                self.log[seq] = event.kv.value
            if event.kind == "put" and place.part == "dedupe":
                assert event.kv.version == 1

    def _answered(self, node: ModelNode, sent: Sent) -> None:
        assert sent.result is not None
        request = sent.request
        if isinstance(request, MetricTransaction):
            match metric_transactions.settle(LAYOUT, request, sent.result):
                case Outrun(seen=seen):
                    node.waiting = sent.commands + node.waiting
                    node.fresh = seen
                case settled:
                    node.fresh = settled.seen
            return
        match event_log.outcome(request, sent.result):
            case HeadMoved() as moved:
                assert moved.head.head is not None
                node.head, node.members, node.wanted = moved.head, moved.members, moved.revision
            case AlreadyLogged():
                node.wanted = 0
            case Logged(events=events):
                assert all(self.log[each.seq] == each.payload for each in events)

    def _any_command(self) -> MetricCommand:
        self.clock += 1.0
        name = self.rng.choice(NAMES)
        match self.rng.randrange(40):
            case 0 | 1 | 2 | 5 | 6 | 7:
                kind = {"depth": "gauge", "took": "histogram"}.get(name, "counter")
                return RegisterMetric(name=name, type=kind, at=self.clock)  # type: ignore[arg-type]
            case 3 | 8:
                return DeleteMetric(name=name, at=self.clock)
            case 4:
                return ResetMetrics(at=self.clock)
            case _:
                value = self.clock if name in {"depth", "took"} else None
                return UpdateMetric(name=name, value=value, at=self.clock)


def _views(metrics: dict[str, MetricView]) -> dict[str, Any]:
    return {name: _sent(view) for name, view in metrics.items()}


def _sent(view: MetricView) -> Any:
    """As a client decodes it: its lists are no tuples."""
    return msgspec.json.decode(msgspec.json.encode(view))
