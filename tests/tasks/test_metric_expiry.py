"""Custom metrics with a time to live: deleted when nothing is written to them, and never too early."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heliosd.clock import Instant, next_beat
from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.metric_commands import DeleteMetric, ExpireMetric, RegisterMetric, UpdateMetric
from heliosd.cluster.metric_expiry import CHECK_SECONDS, IDLE_SECONDS, MetricExpiry, expire_metrics
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.errors import Conflict, NotFound
from heliosd.protocol.events import Event, MetricsDefined, Value
from tests.support.simulated_harness import MemoryStore, follow, ready, running


def registered(name: str = "a", ttl: float = 10.0) -> RegisterMetric:
    return RegisterMetric(name=name, type="gauge", ttl=ttl, at=1.0)


def write(name: str = "a") -> UpdateMetric:
    return UpdateMetric(name=name, value=1.0, at=2.0)


def due(expiry: MetricExpiry, metrics: MetricSet, now: float, *, writable: bool = True) -> list[str]:
    return [metric.name for metric in expiry.due(metrics.with_ttl(), now, writable=writable)]


def test_a_metric_that_was_written_since_is_kept() -> None:
    metrics = MetricSet()
    metrics.apply(registered())
    (seen,) = metrics.with_ttl()
    metrics.apply(write())
    expire = ExpireMetric(name="a", created_at=seen.created_at, writes=seen.writes, at=20.0)
    with pytest.raises(Conflict):
        metrics.apply(expire)
    assert "a" in metrics
    (seen,) = metrics.with_ttl()
    applied = metrics.apply(ExpireMetric(name="a", created_at=seen.created_at, writes=seen.writes, at=30.0))
    assert (applied.defined, applied.reason) == ({"a": None}, "expired")
    with pytest.raises(NotFound):
        metrics.apply(expire)


def test_the_ttl_and_its_writes_are_in_a_snapshot() -> None:
    metrics, other = MetricSet(), MetricSet()
    metrics.apply(registered())
    metrics.apply(write())
    other.restore(metrics.encode())
    assert other.with_ttl() == metrics.with_ttl()
    assert other.view("a").ttl == 10


def test_time_without_a_leader_and_the_process_own_pause_do_not_count() -> None:
    metrics, expiry = MetricSet(), MetricExpiry()
    metrics.apply(registered(ttl=5.0))
    assert due(expiry, metrics, 100.0) == []
    assert due(expiry, metrics, 100.5) == []
    assert due(expiry, metrics, 3700.0) == [], "a suspended machine: at most a second of it counts"
    for tenth in range(100):
        assert due(expiry, metrics, 3700.0 + tenth / 10, writable=False) == []
    left = [due(expiry, metrics, 3710.0 + tenth / 10) for tenth in range(40)]
    assert left[33] == []
    assert left[36] == ["a"]


@given(
    ttl=st.floats(0.5, 20),
    steps=st.lists(
        st.tuples(st.sampled_from((0.1, 0.25, 0.9, 3.0)), st.booleans(), st.booleans()), max_size=30
    ),
)
def test_no_metric_ends_before_its_ttl_has_passed_since_the_last_write(
    ttl: float, steps: list[tuple[float, bool, bool]]
) -> None:
    metrics, expiry = MetricSet(), MetricExpiry()
    metrics.apply(registered(ttl=ttl))
    now = written = 0.0
    for passed, writes, writable in steps:
        now += passed
        if writes:
            metrics.apply(write())
            written = now
        if due(expiry, metrics, now, writable=writable):
            assert now - written >= ttl - 1e-9
            assert writable


@dataclass
class Expiring:
    backend: SimulatedBackend
    seen: list[Event | Value] = field(default_factory=list)

    @property
    def deleted(self) -> list[tuple[list[str], str | None]]:
        events = [event for event in self.seen if isinstance(event, MetricsDefined)]
        return [(list(each.metrics), each.reason) for each in events if None in each.metrics.values()]


@asynccontextmanager
async def expiring(store: MemoryStore | None = None) -> AsyncIterator[Expiring]:
    wall = 1_800_000_000.0

    def leaping() -> Instant:
        # The wall clock leaps a year with each look at it.
        nonlocal wall
        wall += 365 * 86_400 * (-1 if wall > 1_900_000_000 else 1)
        return Instant(wall, trio.current_time())

    async with running(store or MemoryStore()) as backend, trio.open_nursery() as nursery:
        await ready(backend)
        house = Expiring(backend)
        await nursery.start(lambda task_status: follow(backend, house.seen, task_status))
        nursery.start_soon(expire_metrics, backend, leaping)
        yield house
        nursery.cancel_scope.cancel()


async def test_what_is_not_renewed_is_gone_and_an_event_says_why(autojump_clock: MockClock) -> None:
    async with expiring() as house:
        await house.backend.propose(registered("pushed", 5))
        await house.backend.propose(registered("stays", 0))
        for _ in range(4):
            await trio.sleep(4)
            await house.backend.propose(write("pushed"))
        assert "pushed" in house.backend.metrics
        await trio.sleep(4.9)
        assert "pushed" in house.backend.metrics
        await trio.sleep(1)
        assert list(house.backend.metrics.views()) == ["stays"]
        assert house.deleted == [(["pushed"], "expired")]
        with pytest.raises(NotFound):
            await house.backend.propose(write("pushed"))
        await house.backend.propose(registered("pushed", 5))
        await house.backend.propose(DeleteMetric(name="pushed", at=3.0))
        await trio.sleep(10)
        assert house.deleted[1:] == [(["pushed"], None)]


@pytest.mark.parametrize("offset", [0.05, 0.4, 0.95])
async def test_the_first_one_is_gone_as_soon_as_one_among_others(
    autojump_clock: MockClock, offset: float
) -> None:
    async with expiring() as house:
        await trio.sleep_until(next_beat(trio.current_time(), IDLE_SECONDS) + offset)
        await house.backend.propose(registered("first", 2))
        await trio.sleep(1.9)
        assert "first" in house.backend.metrics
        await trio.sleep(0.2 + CHECK_SECONDS)
        assert "first" not in house.backend.metrics


async def test_a_restart_begins_the_time_anew_and_brings_nothing_back(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with expiring(store) as house:
        await house.backend.propose(registered("short", 3))
        await house.backend.propose(registered("long", 8))
        await trio.sleep(5)
        assert list(house.backend.metrics.views()) == ["long"]
    async with expiring(store) as house:
        await trio.sleep(7)
        assert list(house.backend.metrics.views()) == ["long"]
        await trio.sleep(3)
        assert list(house.backend.metrics.views()) == []
    async with expiring(store) as house:
        await trio.sleep(3)
        assert list(house.backend.metrics.views()) == []
        assert house.deleted == []


async def test_many_that_end_together_are_gone_together(autojump_clock: MockClock) -> None:
    async with expiring() as house, trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(house.backend.propose, registered(f"m{number}", 30))
        await trio.sleep(29)
        assert len(house.backend.metrics) == 300
        await trio.sleep(3)
        assert len(house.backend.metrics) == 0
        assert len(house.deleted) == 300
