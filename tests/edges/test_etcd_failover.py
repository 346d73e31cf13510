"""Which endpoint of etcd is asked, for how long, and what is said when none can be used."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from heliosd.cluster.etcd.client.client import REQUEST_SECONDS
from heliosd.cluster.etcd.client.endpoints import Endpoints
from heliosd.cluster.etcd.client.errors import EtcdNoLeader, EtcdOutcomeUnknown, EtcdUnavailable
from heliosd.cluster.etcd.client.failover import SHORT_ATTEMPT_SECONDS, Failover
from heliosd.cluster.etcd.client.progress import RequestProgress

ONE, TWO, THREE, FOUR = (f"http://10.0.0.{number}:2379" for number in range(1, 5))


class Members:
    """Ask them. Those in `dead` refuse, those in `silent` never answer, others know no leader."""

    def __init__(self, *urls: str, dead: tuple[str, ...] = (), silent: tuple[str, ...] = ()) -> None:
        self.failover = Failover(Endpoints(urls, random.Random(1)))
        self.asked: list[str] = []
        self._dead = dead
        self._silent = silent

    async def ask(self, endpoint: str, progress: RequestProgress) -> str:
        self.asked.append(endpoint)
        await trio.lowlevel.checkpoint()
        if endpoint in self._dead:
            raise EtcdUnavailable(endpoint, "connection refused")
        if endpoint in self._silent:
            await trio.sleep_forever()
        raise EtcdNoLeader(endpoint, "etcdserver: no leader")

    async def fail(self, *, write: bool = False) -> EtcdUnavailable:
        began = trio.current_time()
        with pytest.raises(EtcdUnavailable) as raised:
            await self.failover.first_to_answer(self.ask, REQUEST_SECONDS, write=write)
        assert trio.current_time() - began <= REQUEST_SECONDS + 1e-6
        return raised.value


@pytest.mark.parametrize("write", [False, True])
async def test_members_without_a_leader_are_asked_again_and_then_it_is_said(
    write: bool, autojump_clock: trio.testing.MockClock
) -> None:
    members = Members(ONE, TWO, THREE, dead=(TWO, THREE))
    error = await members.fail(write=write)
    assert isinstance(error, EtcdNoLeader)
    assert members.asked.count(ONE) > 4
    for words in (f"{ONE}: etcdserver: no leader", f"{TWO}: connection", f"{THREE}: connection"):
        assert words in str(error)


@pytest.mark.parametrize("late", [number / 20 for number in range(1, 40)])
async def test_a_busy_machine_that_oversleeps_a_pause_hides_nothing_that_was_answered(
    late: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Whenever it is, the clock runs on by more than a request may take."""
    members = Members(ONE, TWO, THREE, dead=(TWO, THREE))
    async with trio.open_nursery() as nursery:

        async def be_late() -> None:
            await trio.sleep(late)
            autojump_clock.jump(REQUEST_SECONDS)

        nursery.start_soon(be_late)
        with pytest.raises(EtcdNoLeader, match=f"{ONE}: etcdserver: no leader"):
            await members.failover.first_to_answer(members.ask, REQUEST_SECONDS)


async def test_nobody_is_asked_who_has_no_time_left_to_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    members = Members(ONE)
    began = trio.current_time()
    late: list[float] = []
    ask = members.ask

    async def noting(endpoint: str, progress: RequestProgress) -> str:
        late.append(trio.current_time() - began)
        return await ask(endpoint, progress)

    members.ask = noting  # type: ignore[method-assign]
    await members.fail()
    assert max(late) <= REQUEST_SECONDS - SHORT_ATTEMPT_SECONDS


async def test_silent_members_leave_time_for_those_behind_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    members = Members(ONE, TWO, THREE, FOUR, silent=(ONE, TWO, THREE))
    error = await members.fail()
    assert members.asked[:4] == [ONE, TWO, THREE, FOUR]
    assert isinstance(error, EtcdNoLeader)
    assert f"{FOUR}: etcdserver: no leader" in str(error)
    assert f"{ONE}: no answer within" in str(error)


async def test_who_could_not_be_asked_in_time_is_named(autojump_clock: trio.testing.MockClock) -> None:
    urls = [f"http://10.0.1.{number}:2379" for number in range(1, 11)]
    members = Members(*urls, silent=tuple(urls))
    error = await members.fail()
    for url in urls:
        assert url in str(error) or len(str(error)) >= 300
    assert "no answer within 0.3 s" in str(error)


async def test_a_process_that_was_stopped_before_it_asked_anybody_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    members = Members(ONE, TWO)
    for seconds in (0.0, -5.0):
        with pytest.raises(EtcdUnavailable) as raised:
            await members.failover.first_to_answer(members.ask, seconds)
        assert f"{ONE}: not asked within" in str(raised.value)
        assert f"{TWO}: not asked within" in str(raised.value)
    assert members.asked == []


async def test_a_write_that_was_sent_and_not_answered_is_put_to_nobody_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    members = Members(ONE, TWO, silent=(ONE,))

    async def send(endpoint: str, progress: RequestProgress) -> str:
        progress.sending()
        return await members.ask(endpoint, progress)

    began = trio.current_time()
    with pytest.raises(EtcdOutcomeUnknown, match=r"no answer within 1\.8 s"):
        await members.failover.first_to_answer(send, REQUEST_SECONDS, write=True)
    assert members.asked == [ONE]
    assert trio.current_time() - began == pytest.approx(REQUEST_SECONDS)
