"""The connection that is kept to each member of etcd."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.clock import Instant
from heliosd.cluster.etcd.client.responses import EtcdMember
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.member_traces import MemberTraces
from heliosd.cluster.etcd.reachability import Reachability


class Connection:
    """Lasts until the member's process, or with `by_network` the network, `ends` it."""

    date = None
    lasts = True

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.ends = trio.Event()
        self.by_network = False

    async def closed(self) -> bool:
        await self.ends.wait()
        return not self.by_network


async def test_a_member_that_comes_back_at_another_url_is_followed_there(autojump_clock: MockClock) -> None:
    urls = ["http://127.0.0.1:1"]
    attached: list[tuple[str, Connection]] = []

    @asynccontextmanager
    async def attach(url: str) -> AsyncGenerator[Connection, None]:
        attached.append((url, Connection()))
        yield attached[-1][1]

    ended: list[str] = []
    member = EtcdMember("1", "etcd-1", (), tuple(urls), is_learner=False)
    view = SimpleNamespace(
        traces=MemberTraces(),
        to_poll=lambda: (member,),
        process_ended=lambda each, _now: ended.append(each),
    )
    context = SimpleNamespace(
        client=SimpleNamespace(attached=attach),
        view=view,
        now=lambda: Instant(1.8e9 + trio.current_time(), trio.current_time()),
    )
    reachability = Reachability(cast(EtcdContext, context), lambda _member: None, lambda _member: urls[0])
    async with trio.open_nursery() as nursery:
        reachability.follow("1", nursery)
        await wait_all_tasks_blocked()
        urls[0] = "http://127.0.0.1:2"
        attached[0][1].ends.set()
        await trio.sleep(10)
        assert [url for url, _ in attached] == ["http://127.0.0.1:1", "http://127.0.0.1:2"]
        assert ended == ["1"]
        reachability.leave({"1"})


METRICS = b"process_start_time_seconds 1.7e+09\n"


@pytest.mark.parametrize("by_network", [True, False])
async def test_a_process_that_is_found_again_has_not_ended(
    autojump_clock: MockClock, by_network: bool
) -> None:
    attached: list[Connection] = []

    @asynccontextmanager
    async def attach(_url: str) -> AsyncGenerator[Connection, None]:
        attached.append(Connection(METRICS))
        yield attached[-1]

    ended: list[str] = []
    member = EtcdMember("1", "etcd-1", (), ("http://127.0.0.1:1",), is_learner=False)
    view = SimpleNamespace(traces=MemberTraces(), to_poll=lambda: (member,))

    def process_ended(name: str, now: Instant) -> None:
        ended.append(name)
        view.traces.of(name).process_ended(now.mono)

    view.process_ended = process_ended
    context = SimpleNamespace(
        client=SimpleNamespace(attached=attach),
        view=view,
        now=lambda: Instant(1.8e9 + trio.current_time(), trio.current_time()),
    )
    reachability = Reachability(
        cast(EtcdContext, context), lambda _member: None, lambda _member: "http://127.0.0.1:1"
    )
    async with trio.open_nursery() as nursery:
        reachability.follow("1", nursery)
        await wait_all_tasks_blocked()
        attached[0].by_network = by_network
        attached[0].ends.set()
        await wait_all_tasks_blocked()
        assert ended == ([] if by_network else ["1"])
        await trio.sleep(10)
        assert len(attached) == 2
        assert view.traces.of("1").ended is None
        reachability.leave({"1"})
