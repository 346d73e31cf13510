"""Which heliosd logs the health of the members of etcd: the observer, and the others what it could not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
import trio
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.event_log import SeenHead, begin
from heliosd.cluster.etcd.log_lease import LogLease
from heliosd.cluster.etcd.log_writer import LogWriter
from heliosd.cluster.etcd.members import known
from heliosd.cluster.etcd.mirror import Mirror, PresentObserver
from heliosd.cluster.etcd.outages import KEPT_SECONDS
from heliosd.cluster.etcd.updates import MirrorUpdate
from heliosd.cluster.etcd.view_changes import MemberRestarted
from heliosd.cluster.etcd.watcher import Watcher
from heliosd.store.changes import LoggedEvent
from tests.rules.test_etcd_view import CLUSTER, THREE, A, B, C, Seen
from tests.support.etcd_model import LAYOUT, Etcd
from tests.support.etcd_model_client import ModelClient

from .test_etcd_polls import context_of

EVENTS = LAYOUT.folder("events"), LAYOUT.folder_end("events")
OBSERVER_GONE_SECONDS = 9.5
"""The presence of a heliosd that was killed ends so long after its death."""


class World:
    """Three members, led by B, and their log; `answering` are those that answer."""

    def __init__(self) -> None:
        self.etcd = Etcd()
        log = {"cluster_id": CLUSTER, "birth": "0" * 12, "members": known(THREE), "term": 5, "leader": B}
        draft = begin(LAYOUT, SeenHead(), **log)  # type: ignore[arg-type]
        self.etcd.txn(draft.compares, draft.then, draft.otherwise)
        self.answering = {A, B, C}

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
        events = [msgspec.json.decode(kv.value) for kv in self.etcd.under(*EVENTS)]
        return [
            each["data"]["event_type"]
            for each in events
            if each["type"] == "peer_change" and each["data"]["peer_id"] == member
        ]


class Node(Seen):
    """A heliosd that polls every 250 ms, and its log writer."""

    def __init__(self, world: World, node_id: str) -> None:
        super().__init__(node_id)
        self.world = world
        self.cut_off: set[str] = set()
        """Members that this node does not reach."""
        client = ModelClient(world.etcd, ClusterIdentity(CLUSTER))
        self.context = replace(
            context_of(client),
            node_id=node_id,
            now=lambda: Instant(1.8e9 + trio.current_time(), trio.current_time()),
            layout=LAYOUT,
            lease=LogLease(client, 60.0),
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
        for change in self.poll(B, who=sorted(who), seconds=0.0):
            self.writer.view_changed(change)
        self.view.listed(B if B in who else min(who), THREE, self.mono, self.now)
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


@pytest.mark.parametrize("member", [A, C])
async def test_what_the_observer_has_not_seen_is_no_event_also_after_its_end(
    autojump_clock: MockClock, world: World, member: str
) -> None:
    first, second = Node(world, "etcd-1"), Node(world, "etcd-2")
    async with running(first, second):
        second.cut_off = {member}
        await trio.sleep(4.0)
        second.cut_off = set()
        await trio.sleep(KEPT_SECONDS + 1.0 if member == A else 1.0)
        world.end_presence("etcd-1")
        world.observe("etcd-2")
        await trio.sleep(KEPT_SECONDS * 2)
        assert world.healths(member) == []


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


async def run_within(scope: trio.CancelScope, node: Node) -> None:
    with scope:
        await node.run()
