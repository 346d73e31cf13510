"""When the members of etcd are polled, what a poll of one does to the others, and when a watch leaves one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.errors import EtcdUnavailable
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.responses import (
    EtcdMember,
    MemberList,
    MemberStatus,
    RangeResult,
    ResponseHeader,
    WatchBatch,
)
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.election import LeaderElected, LeaderLost
from heliosd.cluster.etcd.event_log import MembersRecord, SeenMembers
from heliosd.cluster.etcd.faults import Faults
from heliosd.cluster.etcd.keys import KeyLayout
from heliosd.cluster.etcd.list_polls import LIST_SECONDS
from heliosd.cluster.etcd.log_lease import LogLease
from heliosd.cluster.etcd.members import known
from heliosd.cluster.etcd.mirror import Mirror
from heliosd.cluster.etcd.pace import FAST_POLL_SECONDS, LEAST_PAUSE_SECONDS, LOOK_SECONDS, pause, until_turn
from heliosd.cluster.etcd.poller import QUIET_LOOK_SECONDS, Poller
from heliosd.cluster.etcd.view import ClusterView
from heliosd.cluster.etcd.view_changes import ViewChange
from heliosd.cluster.etcd.watcher import Watcher
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.subscribers import Subscribers
from heliosd.config.values import MAX_SECONDS

URLS = {each: f"http://127.0.0.1:{each}" for each in ("1", "2", "3")}
MEMBERS = tuple(EtcdMember(each, f"etcd-{each}", (), (url,), is_learner=False) for each, url in URLS.items())


class Members:
    """Three members, of which `leader` leads; those in `hanging` answer nothing for a second, the process of
    `ended` is away."""

    def __init__(self) -> None:
        self.leader, self.term, self.revision = "1", 5, 7
        self.hanging: set[str] = set()
        self.slow: dict[str, float] = {}
        """Seconds that an answer of this member takes."""
        self.held_up = False
        """By their databases: their statuses keep the revision that they had."""
        self.listed = MEMBERS
        self.ended = ""
        self.repeats = True
        self.polls: Counter[str] = Counter()
        self.lists: Counter[str] = Counter()
        self.polled: list[tuple[float, str]] = []
        self._ended = trio.Event()

    def kill_leader(self) -> None:
        self.ended, self.leader = self.leader, ""
        self._ended.set()

    def elect(self, leader: str) -> None:
        self.leader, self.term = leader, self.term + 1

    def urls(self) -> tuple[str, ...]:
        return tuple(URLS.values())

    def endpoints(self) -> tuple[Any, ...]:
        return ()

    def successor(self) -> str:
        return ""

    def status_refusals(self) -> tuple[Any, ...]:
        return ()

    async def identify(self) -> None:
        await trio.lowlevel.checkpoint()

    async def status(self, url: str) -> MemberStatus:
        self.polls[url] += 1
        self.polled.append((trio.current_time(), url[-1]))
        member = await self._answered(url)
        header = ResponseHeader("c", member, 7 if self.held_up else self.revision, self.term)
        status = MemberStatus(header, "3.5.1", 1, self.leader, 7, self.term, 7, is_learner=False, errors=())
        return replace(status, held_up=self.held_up)

    async def member_list(self, url: str = "") -> MemberList:
        self.lists["whole"] += 1
        await self._answered(url or URLS["2"])
        return MemberList(self.listed, self.term, b"as it came")

    async def lists_the_same(self, url: str, last: MemberList) -> bool:
        self.lists["the same"] += 1
        await self._answered(url)
        return self.repeats and last.raft_term == self.term

    async def metrics_text(self, url: str) -> str:
        await self._answered(url)
        return ""

    @asynccontextmanager
    async def attached(self, url: str) -> AsyncGenerator[SimpleNamespace, None]:
        async def closed() -> bool:
            await self._ended.wait()
            if self.ended != url[-1]:
                await trio.sleep_forever()
            return True

        yield SimpleNamespace(body=b"", date=None, lasts=True, closed=closed)

    def avoid(self, url: str, reason: str) -> None: ...

    def close(self, urls: object) -> None: ...

    def learn(self, urls: object) -> None: ...

    async def _answered(self, url: str) -> str:
        member = url[-1]
        await trio.sleep(1.0 if member in self.hanging else self.slow.get(member, 0.002))
        if member == self.ended:
            raise EtcdUnavailable(url, "refused")
        if member in self.hanging:
            raise EtcdUnavailable(url, "no answer within 1 s")
        return member


class Watched:
    """A cluster in which nothing ever changes; a member that is avoided is noted."""

    def __init__(self) -> None:
        self.avoided: list[str] = []

    async def range(self, *_: object, **__: object) -> RangeResult:
        await trio.lowlevel.checkpoint()
        return RangeResult(ResponseHeader("c", "1", 7, 5), (), more=False, count=0)

    @asynccontextmanager
    async def watch(self, *_: object) -> AsyncGenerator[Silent, None]:
        await trio.lowlevel.checkpoint()
        yield Silent()

    def avoid(self, url: str, reason: str) -> None:
        self.avoided.append(f"{url}: {reason}")


class Silent:
    """A watch that shows no change."""

    endpoint = URLS["1"]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchBatch:
        await trio.sleep_forever()
        raise AssertionError


@pytest.fixture
def members() -> Members:
    return Members()


def context_of(client: object) -> EtcdContext:
    asked, layout = cast(EtcdClient, client), KeyLayout("heliosd/")
    return EtcdContext(
        node_id="node-1",
        max_events=100,
        now=lambda: Instant(1.8e9 + trio.current_time(), trio.current_time()),
        client=asked,
        identity=ClusterIdentity("c"),
        layout=layout,
        lease=LogLease(asked, 60.0, lambda: Instant(1.8e9 + trio.current_time(), trio.current_time())),
        mirror=Mirror(layout, 100, None),
        view=ClusterView("node-1", LatencyTracker()),
        faults=Faults(),
        subscribers=Subscribers(100),
    )


def settled_on(members: Members) -> EtcdContext:
    context = context_of(members)
    context.mirror.members = SeenMembers(MembersRecord(members=known(MEMBERS)), 7)
    return context


def poller_of(
    members: Members,
    looks: list[float],
    changed: Callable[[Sequence[ViewChange]], None] = lambda _: None,
    context: EtcdContext | None = None,
    poll_interval: float = 0.25,
) -> Poller:
    return Poller(
        context or settled_on(members),
        poll_interval=poll_interval,
        view_changed=changed,
        looked=lambda: looks.append(trio.current_time()),
        read=lambda *_: None,
    )


async def test_a_member_that_hangs_does_not_delay_the_polls_of_the_others(
    autojump_clock: MockClock, members: Members
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, []).run)
        await trio.sleep(30)
        members.hanging.add("1")  # the leader
        await trio.sleep(1.0)
        members.polls.clear()
        await trio.sleep(1.0)
        assert min(members.polls[URLS[each]] for each in ("2", "3")) >= 0.5 / FAST_POLL_SECONDS
        nursery.cancel_scope.cancel()


async def test_a_leader_whose_answers_take_long_is_not_taken_for_silent(
    autojump_clock: MockClock, members: Members
) -> None:
    """It may be in another region. Its lists count, and the others are not asked in haste for ever."""
    members.slow["1"] = 0.4
    context = settled_on(members)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, [], context=context, poll_interval=1.0).run)
        await trio.sleep(30)
        members.repeats, members.listed = False, MEMBERS[:2]
        await trio.sleep(2)
        assert context.view.members == MEMBERS[:2]
        members.polls.clear()
        await trio.sleep(10)
        assert members.polls.total() < 100
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("killed", [True, False])
async def test_after_an_election_only_a_leader_before_that_may_say_why_is_asked_at_once(
    autojump_clock: MockClock, members: Members, *, killed: bool
) -> None:
    """What is reported of an election waits for nothing that says no more of it."""
    elected: list[float] = []

    def changed(changes: Sequence[ViewChange]) -> None:
        elected.extend(trio.current_time() for each in changes if isinstance(each, LeaderElected))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, [], changed).run)
        await trio.sleep(30)
        assert len(elected) == 1
        if killed:
            members.kill_leader()
            await trio.sleep(1.5)
        members.elect("2")
        await trio.sleep(1.0)
        assert len(elected) == 2
        at = elected[-1]
        near = {each for poll, each in members.polled if abs(poll - at) < FAST_POLL_SECONDS / 4}
        assert killed or "1" in near
        for voter in ("2", "3") if killed else ():
            polls = [poll for poll, each in members.polled if each == voter]
            assert all(
                later - sooner > FAST_POLL_SECONDS * 0.9
                for sooner, later in itertools.pairwise(polls)
                if later >= at
            )
        nursery.cancel_scope.cancel()


async def test_settled_members_are_polled_once_a_second_and_looked_at_twice_but_more_often_while_one_hangs(
    autojump_clock: MockClock, members: Members
) -> None:
    looks: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, looks).run)
        await trio.sleep(30)
        members.polls.clear()
        looks.clear()
        await trio.sleep(10)
        assert all(9 <= members.polls[url] <= 11 for url in URLS.values())
        longest = max(later - sooner for sooner, later in itertools.pairwise(looks))
        assert 2 * LIST_SECONDS <= longest <= QUIET_LOOK_SECONDS + LIST_SECONDS
        assert len(looks) <= 25
        members.hanging.add("2")
        await trio.sleep(1.1)
        looks.clear()
        await trio.sleep(10)
        assert max(later - sooner for sooner, later in itertools.pairwise(looks)) <= LOOK_SECONDS * 1.01
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("poll_interval", [0.01, 0.25, 0.6, 1.0, MAX_SECONDS])
async def test_no_configured_interval_lets_the_answers_of_quiet_members_become_too_old(
    autojump_clock: MockClock, members: Members, poll_interval: float
) -> None:
    lost: list[ViewChange] = []

    def changed(changes: Sequence[ViewChange]) -> None:
        lost.extend(each for each in changes if isinstance(each, LeaderLost))

    context = settled_on(members)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, [], changed, context, poll_interval).run)
        await trio.sleep(min(30.0, 8.0 + 100 * poll_interval))
        assert context.view.leader == members.leader
        assert lost == []
        nursery.cancel_scope.cancel()


async def test_while_all_is_settled_the_leader_is_asked_again_for_the_same_list(
    autojump_clock: MockClock, members: Members
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, []).run)
        await trio.sleep(30)
        members.lists.clear()
        await trio.sleep(10)
        assert members.lists["the same"] > 3 * members.lists["whole"] >= 3 * 9
        members.term += 1
        await trio.sleep(2 * LIST_SECONDS)
        members.lists.clear()
        await trio.sleep(1.0)
        assert not members.lists["the same"]
        nursery.cancel_scope.cancel()


async def test_a_leader_that_does_not_repeat_its_list_is_asked_for_a_whole_one(
    autojump_clock: MockClock, members: Members
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, []).run)
        await trio.sleep(30)
        members.repeats = False
        await trio.sleep(1.0)
        members.lists.clear()
        await trio.sleep(10)
        assert members.lists["whole"] >= 10 / LIST_SECONDS * 0.9
        nursery.cancel_scope.cancel()


async def test_a_leader_that_is_about_to_be_removed_is_not_asked_for_the_same_list(
    autojump_clock: MockClock, members: Members
) -> None:
    context = settled_on(members)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller_of(members, [], context=context).run)
        await trio.sleep(30)
        members.lists.clear()
        with trio.move_on_after(10):
            while not members.lists["whole"]:  # noqa: ASYNC110 (it is not known when)
                await trio.sleep(0.01)
        context.mirror.leaving.add(members.leader)
        members.lists.clear()
        await trio.sleep(2.0)
        assert members.lists["the same"] == 0
        nursery.cancel_scope.cancel()


async def test_a_cluster_that_is_written_to_all_the_time_is_not_taken_for_one_that_was_set_back(
    autojump_clock: MockClock, members: Members
) -> None:
    context = settled_on(members)
    poller = poller_of(members, [], context=context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await trio.sleep(30)
        for _ in range(100):
            members.revision += 1
            context.mirror.revision = members.revision
            assert not poller.is_set_back()
            await trio.sleep(0.1)
        members.revision = 7
        await trio.sleep(1.5)
        assert poller.is_set_back()
        nursery.cancel_scope.cancel()


async def test_members_whose_databases_are_held_up_are_not_taken_for_ones_that_were_set_back(
    autojump_clock: MockClock, members: Members
) -> None:
    context = settled_on(members)
    poller = poller_of(members, [], context=context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await trio.sleep(30)
        members.held_up, members.revision = True, 9
        context.mirror.revision = 9  # written between their last statuses and that
        for _ in range(100):
            assert not poller.is_set_back()
            await trio.sleep(0.1)
        members.held_up = False
        await trio.sleep(1.5)
        assert not poller.is_set_back()
        nursery.cancel_scope.cancel()


async def test_a_watched_member_that_several_find_unfit_is_left_once(autojump_clock: MockClock) -> None:
    watched = Watched()
    watcher = Watcher(context_of(watched), lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        await wait_all_tasks_blocked()
        assert watcher.endpoint == URLS["1"]
        watcher.leave_if(lambda url: "it does not answer")
        watcher.leave_if(lambda url: "it does not answer")
        await trio.lowlevel.checkpoint()
        assert watched.avoided == [f"{URLS['1']}: it does not answer"]
        nursery.cancel_scope.cancel()


@given(st.lists(st.floats(-2.0, 2.0)))
def test_a_pause_ends_with_the_first_that_is_due_or_with_a_look_and_never_at_once(
    due_in: list[float],
) -> None:
    seconds = pause(due_in)
    assert LEAST_PAUSE_SECONDS <= seconds <= LOOK_SECONDS
    assert seconds <= max(LEAST_PAUSE_SECONDS, min(due_in, default=LOOK_SECONDS))


@given(st.floats(0.0, 4e9), st.floats(0.05, 1.0), st.integers(1, 9), st.data())
def test_several_that_take_turns_ask_at_even_distances_and_each_once_in_a_period(
    wall: float, period: float, of: int, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, of - 1))
    seconds = until_turn(wall, period, place, of)
    assert period / 4 <= seconds <= period * 5 / 4
    turn = (wall + seconds) / period - place / of
    assert abs(turn - round(turn)) < 1e-4 / period
    assert until_turn(wall + seconds, period, place, of) == pytest.approx(period, abs=1e-4)
