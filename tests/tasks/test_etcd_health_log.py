"""Which heliosd logs the health of the members of etcd: the observer, and the others what it could not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.errors import EtcdUnavailable
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op
from heliosd.cluster.etcd.client.responses import EtcdMember, TxnResult
from heliosd.cluster.etcd.event_log import SeenHead, begin
from heliosd.cluster.etcd.log_lease import LogLease
from heliosd.cluster.etcd.log_writer import EXPLAIN_SECONDS, LogWriter
from heliosd.cluster.etcd.member_health import LATER_SECONDS
from heliosd.cluster.etcd.members import known
from heliosd.cluster.etcd.mirror import Mirror, PresentObserver
from heliosd.cluster.etcd.outages import KEPT_SECONDS
from heliosd.cluster.etcd.updates import MirrorUpdate
from heliosd.cluster.etcd.view_changes import MemberRestarted
from heliosd.cluster.etcd.watcher import Watcher
from heliosd.store.changes import LoggedEvent
from tests.rules.test_etcd_view import CLUSTER, THREE, A, B, C, Seen, member
from tests.support.etcd_model import LAYOUT, Etcd
from tests.support.etcd_model_client import URL, ModelClient

from .test_etcd_polls import context_of

EVENTS = LAYOUT.folder("events"), LAYOUT.folder_end("events")
OBSERVER_GONE_SECONDS = 9.5
"""The presence of a heliosd that was killed ends so long after its death."""
AT_ONCE_SECONDS = EXPLAIN_SECONDS + 0.02


class World:
    """Members that B leads, and their log; `answering` are those that answer."""

    def __init__(self, members: Sequence[EtcdMember] = THREE) -> None:
        self.etcd = Etcd(raft_term=5)
        log = {"cluster_id": CLUSTER, "birth": "0" * 12, "members": known(members), "term": 5, "leader": B}
        draft = begin(LAYOUT, SeenHead(), **log)  # type: ignore[arg-type]
        self.etcd.txn(draft.compares, draft.then, draft.otherwise)
        self.members = members
        self.answering = {each.id for each in members}
        self.leader, self.term = B, 5

    def show(self, node: str, since: str = "2026-01-01T00:00:00Z") -> None:
        """This heliosd has started then and is present."""
        present = PresentObserver(id=node, version="1", since=since)
        self.etcd.put(LAYOUT.present(node), msgspec.json.encode(present))

    def observe(self, node: str) -> None:
        """It is the observer from now on."""
        self.etcd.put(LAYOUT.observer, node.encode())

    def end_presence(self, node: str) -> None:
        self.etcd.delete(LAYOUT.present(node))
        self.etcd.delete(LAYOUT.observer)

    def healths(self, member: str) -> list[str]:
        """What the log says of this member's health."""
        return [
            each["data"]["event_type"]
            for each in self.events()
            if each["type"] == "peer_change" and each["data"]["peer_id"] == member
        ]

    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(kv.value) for kv in self.etcd.under(*EVENTS)]


class Writable(ModelClient):
    """A client whose writes are refused while `takes_writes` is false."""

    takes_writes = True
    refused = 0

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        if not self.takes_writes:
            await trio.lowlevel.checkpoint()
            self.refused += 1
            raise EtcdUnavailable(URL, "no leader")
        return await super().txn(compares, then, otherwise)


class Node(Seen):
    """A heliosd that polls every 250 ms, and its log writer."""

    def __init__(self, world: World, node_id: str) -> None:
        super().__init__(node_id, world.members)
        self.world = world
        self.cut_off: set[str] = set()
        """Members that this node does not reach."""
        self.client = client = Writable(world.etcd, ClusterIdentity(CLUSTER))
        self.context = replace(
            context_of(client),
            node_id=node_id,
            now=lambda: Instant(1.8e9 + trio.current_time(), trio.current_time()),
            layout=LAYOUT,
            lease=LogLease(client, 60.0, lambda: Instant(1.8e9 + trio.current_time(), trio.current_time())),
            mirror=Mirror(LAYOUT, 100, None),
            view=self.view,
        )
        self.watcher = Watcher(self.context, self.heard)
        self.writer = LogWriter(self.context, self.watcher, list_now=lambda: None)

    def heard(self, update: MirrorUpdate) -> None:
        for item in update.emitted:
            if isinstance(item, LoggedEvent):
                self.writer.on_logged(item)
        self.writer.look()

    async def run(self) -> None:
        self.mono = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watcher.run)
            nursery.start_soon(self.writer.run)
            while True:
                self.look()
                await trio.sleep(0.25)

    def look(self) -> None:
        self.mono = trio.current_time()
        self.revision = self.world.etcd.revision
        who = self.world.answering - self.cut_off
        for change in self.poll(self.world.leader, self.world.term, sorted(who), seconds=0.0):
            self.writer.view_changed(change)
        lister = self.world.leader if self.world.leader in who else min(who)
        self.view.listed(lister, self.world.members, self.mono, self.now)
        self.writer.look()


@pytest.fixture
def world() -> World:
    world = World()
    for node in ("etcd-1", "etcd-2", "etcd-3"):
        world.show(node)
    world.observe("etcd-1")
    return world


@asynccontextmanager
async def running(*nodes: Node) -> AsyncGenerator[None, None]:
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        await trio.sleep(2.0)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("successor", ["etcd-1", "etcd-2"])
async def test_an_outage_of_a_member_whose_observer_died_with_it_is_told_by_the_others(
    autojump_clock: MockClock, world: World, successor: str
) -> None:
    second, third = Node(world, "etcd-2"), Node(world, "etcd-3")
    async with running(second, third), trio.open_nursery() as nursery:
        world.answering = {B, C}
        await trio.sleep(4.0)
        assert world.healths(A) == [], "it was the task of the observer, which seems to be there"
        world.answering = {A, B, C}
        if successor == "etcd-1":
            # It is back before its presence has ended, and has seen nothing.
            world.show("etcd-1", since="2026-01-01T00:09:00Z")
            nursery.start_soon(Node(world, "etcd-1").run)
        else:
            await trio.sleep(OBSERVER_GONE_SECONDS - 4.0)
            world.end_presence("etcd-1")
            world.observe(successor)
        await trio.sleep(2.0)
        assert world.healths(A) == ["unhealthy", "healthy"]
        await trio.sleep(KEPT_SECONDS * 2)
        assert world.healths(A) == ["unhealthy", "healthy"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("unseen", [A, C])
async def test_what_the_observer_has_not_seen_is_no_event_also_after_its_end(
    autojump_clock: MockClock, world: World, unseen: str
) -> None:
    first, second = Node(world, "etcd-1"), Node(world, "etcd-2")
    async with running(first, second):
        second.cut_off = {unseen}
        await trio.sleep(4.0)
        second.cut_off = set()
        await trio.sleep(KEPT_SECONDS + 1.0 if unseen == A else 1.0)
        world.end_presence("etcd-1")
        world.observe("etcd-2")
        await trio.sleep(KEPT_SECONDS * 2)
        assert world.healths(unseen) == []


@pytest.mark.parametrize("later", [False, True])
async def test_an_outage_that_the_observer_has_told_is_told_once_though_it_dies_then(
    autojump_clock: MockClock, world: World, *, later: bool
) -> None:
    first, second = Node(world, "etcd-1"), Node(world, "etcd-2")
    async with trio.open_nursery() as nursery, running(second):
        alive = trio.CancelScope()
        nursery.start_soon(run_within, alive, first)
        await trio.sleep(2.0)
        if not later:
            second.writer.view_changed(MemberRestarted(A))
        first.writer.view_changed(MemberRestarted(A))
        await trio.sleep(1.0)
        assert world.healths(A) == ["unhealthy", "healthy"]
        if later:
            second.writer.view_changed(MemberRestarted(A))
        alive.cancel()
        await trio.sleep(OBSERVER_GONE_SECONDS)
        world.end_presence("etcd-1")
        world.observe("etcd-2")
        await trio.sleep(KEPT_SECONDS * 2)
        assert world.healths(A) == ["unhealthy", "healthy"]
        nursery.cancel_scope.cancel()


async def test_a_member_that_dies_while_the_leader_is_silent_and_leads_is_told_and_so_is_the_leader(
    autojump_clock: MockClock,
) -> None:
    dead, other = member("d", "etcd-4"), member("e", "etcd-5")
    world = World((*THREE, dead, other))
    world.show("etcd-1")
    world.observe("etcd-1")
    node = Node(world, "etcd-1")
    async with running(node):
        world.answering -= {B}
        await trio.sleep(3.0)
        assert node.view.suspect
        world.answering -= {dead.id}
        await trio.sleep(LATER_SECONDS - 3.5)
        assert (world.healths(B), world.healths(dead.id)) == ([], [])
        await trio.sleep(4.5)
        assert (world.healths(B), world.healths(dead.id)) == (["unhealthy"], ["unhealthy"])
        assert node.view.leader == B
        world.answering |= {B, dead.id}
        await trio.sleep(1.0)
        assert world.healths(B) == world.healths(dead.id) == ["unhealthy", "healthy"]


async def test_a_leader_whose_silence_ends_with_its_loss_is_told_to_be_unhealthy_after_it(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.show("etcd-1")
    world.observe("etcd-1")
    node = Node(world, "etcd-1")
    async with running(node):
        world.answering -= {B}
        await trio.sleep(2.0)
        world.leader = ""
        await trio.sleep(1.0)
        world.leader, world.term = C, 6
        await trio.sleep(1.0)
        assert [each["type"] for each in world.events()] == ["state_change", "state_change", "peer_change"]


async def test_a_new_leader_is_logged_at_once_also_after_many_vain_attempts_to_log_something_else(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.show("etcd-1")
    world.observe("etcd-1")
    node = Node(world, "etcd-1")
    async with running(node):
        # It has died, and the members of this cluster take long to notice.
        world.answering -= {B}
        node.client.takes_writes = False
        await trio.sleep(3 * LATER_SECONDS)
        assert node.client.refused > 10
        assert node.view.suspect
        node.client.takes_writes = True
        world.leader, world.term = C, 6
        node.look()
        await trio.sleep(AT_ONCE_SECONDS)
        assert [each["type"] for each in world.events()][:2] == ["state_change", "state_change"]


async def run_within(scope: trio.CancelScope, node: Node) -> None:
    with scope:
        await node.run()
