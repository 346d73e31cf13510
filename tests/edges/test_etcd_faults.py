"""The client of etcd while members are stopped, killed, cut off, or full."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from heliosd.cluster.etcd.client.client import REQUEST_SECONDS, STATUS_SECONDS, EtcdClient
from heliosd.cluster.etcd.client.errors import (
    EtcdError,
    EtcdLearnerBehind,
    EtcdNoLeader,
    EtcdNoSpace,
    EtcdNotLeader,
    EtcdOutcomeUnknown,
    EtcdRefused,
    EtcdUnavailable,
)
from heliosd.cluster.etcd.client.requests import absent, get, put
from heliosd.cluster.etcd.client.responses import EtcdMember
from tests.support.deadlines import at_most
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_endpoints import END, KEY, PREFIX, client_of, in_thread, keep_from_leading, url

pytestmark = pytest.mark.needs("etcd")


@pytest.fixture(scope="module")
def shared() -> Iterator[EtcdCluster]:
    with EtcdCluster.start(3) as cluster:
        yield cluster


@pytest.fixture
def three(shared: EtcdCluster) -> Iterator[EtcdCluster]:
    """Members that are whole and hold no key; the first does not lead."""
    keep_from_leading(shared, 0)
    yield shared
    for place, member in enumerate(shared.members):
        if member.process is not None and member.process.poll() is None:
            shared.cont(place)
        else:
            shared.restart(place, wait=False)
    shared.wait_for(lambda: all(shared.status(place) for place in range(3)), "all members answer")
    shared.leader()
    everything = {"key": encoded(PREFIX), "range_end": encoded(END)}
    shared.ask(0, "/v3/kv/deleterange", everything)


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.fixture
def own_three() -> Iterator[EtcdCluster]:
    with EtcdCluster.start(3) as cluster:
        yield cluster


async def test_a_stopped_member_costs_one_read_a_part_of_its_time_and_the_next_ones_nothing(
    three: EtcdCluster,
) -> None:
    async with client_of(three) as client:
        assert (await client.range(KEY)).header.member_id == (
            await client.status(url(three, 0))
        ).header.member_id
        three.stop(0)
        began = trio.current_time()
        await client.range(KEY)
        assert 0.5 < trio.current_time() - began < at_most(REQUEST_SECONDS)
        began = trio.current_time()
        for _ in range(10):
            await client.range(KEY)
        assert trio.current_time() - began < at_most(0.5)
        assert "no answer within" in client.endpoints()[0].reason


async def test_a_write_to_a_stopped_member_is_of_unknown_outcome_and_the_next_goes_elsewhere(
    three: EtcdCluster,
) -> None:
    async with client_of(three) as client:
        await client.txn([], [put(KEY, b"0")])
        three.stop(0)
        began = trio.current_time()
        with pytest.raises(EtcdOutcomeUnknown) as raised:
            await client.txn([], [put(KEY, b"1")])
        assert trio.current_time() - began < at_most(2)
        assert str(raised.value) == f"{url(three, 0)}: no answer within 1.8 s"
        began = trio.current_time()
        assert (await client.txn([], [put(KEY, b"2")])).succeeded
        assert trio.current_time() - began < at_most(0.5)
        assert (await client.range(KEY)).kvs[0].version == 2  # nobody has repeated the lost one


async def test_a_write_that_was_not_yet_sent_to_a_stopped_member_is_put_to_another(
    three: EtcdCluster,
) -> None:
    async with client_of(three) as client:
        three.stop(0)  # before anything is known of it: not even its version
        began = trio.current_time()
        assert (await client.txn([], [put(KEY, b"1")])).succeeded
        assert trio.current_time() - began < at_most(REQUEST_SECONDS)


async def test_a_caller_that_gives_up_early_also_teaches_which_member_is_slow(three: EtcdCluster) -> None:
    async with client_of(three) as client:
        answered = (await client.range(KEY)).header.member_id
        # On a busy machine the first one asked may have been passed over by now.
        members = [(await client.status(url(three, place))).header.member_id for place in range(3)]
        three.stop(members.index(answered))
        with trio.move_on_after(0.5) as scope:
            await client.txn([], [put(KEY, b"1")])
        assert scope.cancelled_caught
        with trio.fail_after(at_most(0.5)):
            await client.txn([], [put(KEY, b"2")])


async def test_status_of_a_stopped_member_has_its_own_deadline(three: EtcdCluster) -> None:
    async with client_of(three) as client:
        await client.status(url(three, 0))
        three.stop(0)
        began = trio.current_time()
        with pytest.raises(EtcdUnavailable, match="no answer within 1 s"):
            await client.status(url(three, 0))
        assert STATUS_SECONDS <= trio.current_time() - began < at_most(STATUS_SECONDS + 0.5)
        three.cont(0)
        await client.status(url(three, 0))


async def test_a_killed_member_is_passed_over_at_once_even_by_writes(three: EtcdCluster) -> None:
    async with client_of(three) as client:
        await client.txn([], [put(KEY, b"0")])
        three.kill(0)
        began = trio.current_time()
        for number in range(5):
            await client.txn([], [put(KEY, b"%d" % number)])
        assert trio.current_time() - began < at_most(0.5)
        with pytest.raises(EtcdUnavailable) as raised:
            await client.status(url(three, 0))
        assert str(raised.value) == f"{url(three, 0)}: connection refused"
        await in_thread(three.restart, 0)
        await client.status(url(three, 0))
        while client.endpoints()[0].failures:
            await trio.sleep(0.05)  # an endpoint is forgiven with time, which is what is waited for
            await client.status(url(three, 0))


async def test_an_election_is_waited_out_or_reported_as_no_leader(three: EtcdCluster) -> None:
    async with client_of(three) as client:
        await client.txn([], [put(KEY, b"0")])
        leader = three.leader()
        three.kill(leader)
        acknowledged, failures = 0, []
        began = trio.current_time()
        while acknowledged < 3:
            try:
                await client.txn([], [put(KEY, b"1")])
                acknowledged += 1
            except EtcdError as error:
                failures.append(error)
            assert trio.current_time() - began < at_most(15)
        assert all(isinstance(error, EtcdUnavailable | EtcdOutcomeUnknown) for error in failures), failures
        version = (await client.range(KEY)).kvs[0].version
        unknown = sum(isinstance(error, EtcdOutcomeUnknown) for error in failures)
        assert 1 + acknowledged <= version <= 1 + acknowledged + unknown


@pytest.mark.extended
async def test_without_a_quorum_writes_are_refused_in_time_and_old_state_can_be_read(
    three: EtcdCluster,
) -> None:
    async with client_of(three) as client:
        await client.txn([], [put(KEY, b"0")])
        async with client.watch(PREFIX, END) as watch:
            place = next(number for number in range(3) if url(three, number) == watch.endpoint)
            assert (await anext(watch)).created
            for other in {0, 1, 2} - {place}:
                three.kill(other)
            with pytest.raises(EtcdNoLeader):
                await anext(watch)
        status = await client.status(url(three, place))
        assert (status.leader, status.errors) == ("", ("etcdserver: no leader",))
        for request in (
            partial(client.txn, [], [put(KEY, b"1")]),
            partial(client.range, KEY),
            partial(client.lease_grant, 10),
        ):
            began = trio.current_time()
            with pytest.raises(EtcdNoLeader, match="no leader"):
                await request()
            assert trio.current_time() - began < at_most(2)
        with pytest.raises(EtcdNoLeader):
            async with client.watch(PREFIX, END):
                pass
        assert (await client.range(KEY, serializable=True)).kvs[0].value == b"0"
        for other in {0, 1, 2} - {place}:
            three.restart(other, wait=False)
        await in_thread(three.leader)
        result = await client.txn([absent(KEY)], [], [get(KEY)])
        assert [kv.value for kv in result.responses[0]] == [b"0"]


@asynccontextmanager
async def swallowing_proxy(cluster: EtcdCluster) -> AsyncGenerator[tuple[str, list[bytes]], None]:
    """A way to the first member on which the answers to transactions get lost, and what was sent on it."""
    received: list[bytes] = []
    port = int(url(cluster, 0).rpartition(":")[2])

    async def serve(client: trio.SocketStream) -> None:
        async with client, await trio.open_tcp_stream("127.0.0.1", port) as server:
            while request := bytes(await client.receive_some()):
                while request.startswith(b"POST") and not request.endswith(b"}"):
                    request += await client.receive_some()
                received.append(request)
                await server.send_all(request)
                answer = await server.receive_some()
                if b"/kv/txn" in request:
                    return
                await client.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}", received
        nursery.cancel_scope.cancel()


async def test_a_write_whose_answer_is_lost_is_of_unknown_outcome_and_not_repeated(
    three: EtcdCluster,
) -> None:
    async with (
        swallowing_proxy(three) as (proxy, received),
        client_of(three, endpoints=(proxy, url(three, 1))) as client,
    ):
        with pytest.raises(EtcdOutcomeUnknown, match="the write was sent and not answered") as lost:
            await client.txn([], [put(KEY, b"1")])
        assert lost.value.endpoint == proxy
        assert sum(b"/kv/txn" in request for request in received) == 1
        assert await written_once(client)


async def written_once(client: EtcdClient) -> bool:
    while not (found := (await client.range(KEY)).kvs):  # noqa: ASYNC110
        await trio.sleep(0.02)  # the proxy swallows the answer, so only etcd knows when it is written
    await trio.sleep(0.2)  # a repetition would have come by now
    return found == (await client.range(KEY)).kvs and found[0].version == 1


@pytest.mark.extended
async def test_members_are_added_as_learners_promoted_and_removed(own_three: EtcdCluster) -> None:
    three = own_three
    spare = three.spare("etcd-4")
    async with client_of(three) as client:
        added = await when_etcd_is_ready(client, spare.peer_url)
        assert (added.is_learner, added.name, added.peer_urls) == (True, "", (spare.peer_url,))
        leader = url(three, await in_thread(three.leader))
        with pytest.raises(EtcdLearnerBehind):
            await client.member_promote(leader, added.id)
        await in_thread(three.join, spare)
        while True:
            try:
                await client.member_promote(leader, added.id)
                break
            except (EtcdLearnerBehind, EtcdUnavailable):
                await trio.sleep(0.1)  # a learner does not signal that it has caught up
        listed = await when_a_voter(client, "etcd-4")
        client.learn([address for member in listed for address in member.client_urls])
        assert spare.client_url in [each.url for each in client.endpoints()]
        assert (await client.status(spare.client_url)).header.member_id == added.id
        await client.member_remove(added.id)
        while added.id in [member.id for member in await client.members()]:  # noqa: ASYNC110
            await trio.sleep(0.02)  # etcd 3.4 lists the members as the one that is asked knows them


async def when_a_voter(client: EtcdClient, name: str) -> tuple[EtcdMember, ...]:
    """The members, once a promoted one is listed as a voter by the member that is asked."""
    while True:
        listed = await client.members()
        if any(member.name == name and not member.is_learner for member in listed):
            return listed
        await trio.sleep(0.02)  # etcd has no watch of its members


async def when_etcd_is_ready(client: EtcdClient, peer_url: str) -> EtcdMember:
    """etcd refuses changes until all members have been connected for five seconds."""
    while True:
        try:
            return await client.member_add([peer_url])
        except EtcdUnavailable as error:
            if "unhealthy cluster" not in str(error):
                raise
            await trio.sleep(0.2)  # only asking again shows that etcd takes changes


async def test_leadership_moves_by_the_leader_only(three: EtcdCluster) -> None:
    async with client_of(three) as client:
        leader = three.leader()
        target = (await client.status(url(three, 0))).header.member_id
        with pytest.raises(EtcdNotLeader):
            await client.move_leader(url(three, (leader + 1) % 3), target)
        await client.move_leader(url(three, leader), target)
        assert await in_thread(three.leader) == 0
        with pytest.raises(EtcdRefused, match="bad leader transferee"):
            await client.move_leader(url(three, 0), "abc")


async def test_a_full_database_refuses_writes_by_name_and_can_be_read() -> None:
    with EtcdCluster.start(1, options=["--quota-backend-bytes", str(2 * 1024 * 1024)]) as cluster:
        async with client_of(cluster) as client:
            with pytest.raises(EtcdNoSpace):
                await fill(client)
            assert (await client.range(KEY + b"0")).count == 1
            assert any("NOSPACE" in each for each in (await client.status(url(cluster, 0))).errors)


async def fill(client: EtcdClient) -> None:
    for number in range(100):
        await client.txn([], [put(KEY + b"%d" % number, bytes(100_000))])
