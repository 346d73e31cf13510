"""What every backend must do, tested on the simulated cluster and on a real etcd of three members."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from heliosd.cluster.backend import Peer
from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.metric_commands import DeleteMetric, RegisterMetric, ResetMetrics
from heliosd.cluster.metric_expiry import expire_metrics
from heliosd.cluster.permits import Permit
from heliosd.errors import Conflict, Invalid, KeyReused, NoLeader, NotFound
from tests.support.contract_backends import (
    Subject,
    add,
    etcd_backend,
    now,
    patiently,
    put,
    register,
    running,
    simulated_backend,
)
from tests.support.deadlines import SECONDS
from tests.support.etcd_cluster import EtcdCluster
from tests.support.simulated_harness import MemoryStore

BACKENDS = ["simulated", pytest.param("etcd", marks=pytest.mark.needs("etcd"))]


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[EtcdCluster | None]:
    if request.param == "simulated":
        yield None
        return
    with EtcdCluster.start(3) as started:
        yield started


@pytest.fixture
async def subject(cluster: EtcdCluster | None, tmp_path: Path) -> AsyncIterator[Subject]:
    revoked: list[str] = []
    store = MemoryStore(0.0)
    backend = (
        simulated_backend(store)
        if cluster is None
        else etcd_backend(cluster, tmp_path, store, lambda jti, _: revoked.append(jti))
    )
    async with running(backend, revoked) as alive:
        await alive.backend.propose(ResetMetrics(at=now().wall))
        await fence(alive)
        alive.published.clear()
        yield alive


async def fence(subject: Subject) -> list[dict[str, Any]]:
    """The events of metrics so far: they come in order, so all are there once a later one is."""
    await subject.backend.propose(register("app_fence"))
    await subject.until(lambda: any(event.get("app_fence") for event in subject.events("custom_metrics")))
    events = [event for event in subject.events("custom_metrics") if "app_fence" not in event]
    await subject.backend.propose(DeleteMetric(name="app_fence", at=now().wall))
    await subject.until(lambda: {"app_fence": None} in subject.events("custom_metrics"))
    return events


pytestmark = pytest.mark.parametrize("cluster", BACKENDS, indirect=True)


async def test_the_status_shows_this_node_its_leader_and_every_peer(subject: Subject) -> None:
    status = subject.backend.status()
    assert status.node.state in {"Leader", "Follower"}
    assert status.node.term >= 1
    ids = {subject.own, *(peer.id for peer in status.peers)}
    assert len(ids) == 3
    assert status.leader.id in ids
    assert status.leader.is_leader == (status.leader.id == subject.own)
    assert status.leader.address
    assert [peer.id for peer in status.peers] == [peer.id for peer in status.peer_states]
    assert {peer.state for peer in status.peer_states} <= {"Leader", "Follower"}
    assert all(peer.address for peer in status.peers)
    assert not status.stale
    assert status.indices.applied_index > 0
    assert abs(status.observed_at - now().wall) < 5
    assert status.cluster_health.total_peers == 2


async def test_every_peer_is_measured_and_healthy(subject: Subject) -> None:
    def measured() -> bool:
        peers = subject.backend.status().peers
        return all(peer.latency.sample_count > 0 and peer.latency.reachable for peer in peers)

    await subject.until(measured)
    report = subject.backend.latency.report(now())
    assert report.health_summary.healthy == 2


async def test_a_read_after_a_write_shows_it(subject: Subject) -> None:
    backend = subject.backend
    await backend.propose(register("app_total"))
    assert backend.metrics.view("app_total").value == 0
    before = 0.0
    for delta in (1.0, 2.5, 0.0):
        place = await backend.propose(add("app_total", delta))
        before += delta
        assert backend.metrics.view("app_total").value == before
        assert place.index > 0
        assert place.term >= 1
    await backend.propose(DeleteMetric(name="app_total", at=now().wall))
    with pytest.raises(NotFound):
        backend.metrics.view("app_total")


async def test_places_in_the_log_go_up(subject: Subject) -> None:
    await subject.backend.propose(register("app_gauge", "gauge"))
    places = [await subject.backend.propose(put("app_gauge", value)) for value in range(5)]
    assert [place.index for place in places] == sorted({place.index for place in places})


async def test_definitions_are_events_in_their_order_and_values_are_not(subject: Subject) -> None:
    backend = subject.backend
    await backend.propose(register("app_a", "gauge"))
    await backend.propose(put("app_a", 7.0))
    await backend.propose(register("app_b", "histogram"))
    await backend.propose(put("app_b", 0.2))
    await backend.propose(DeleteMetric(name="app_a", at=now().wall))
    await backend.propose(ResetMetrics(at=now().wall))
    await subject.until(lambda: len(subject.events("custom_metrics")) == 4)
    events = subject.events("custom_metrics")
    assert [(list(each), next(iter(each.values())) is None) for each in events] == [
        (["app_a"], False),
        (["app_b"], False),
        (["app_a"], True),
        (["app_b"], True),
    ]
    await subject.until(lambda: subject.moved == {"app_a": 7.0, "app_b": 1.0})


async def test_many_writes_at_once_are_all_carried_out_once(subject: Subject) -> None:
    backend = subject.backend
    for number in range(5):
        await backend.propose(register(f"app_{number}"))
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(backend.propose, add(f"app_{number % 5}"))
    assert [backend.metrics.view(f"app_{number}").value for number in range(5)] == [20.0] * 5


async def test_a_refusal_is_answered_and_changes_nothing(subject: Subject) -> None:
    backend = subject.backend
    await backend.propose(register("app_total"))
    with pytest.raises(Conflict) as exists:
        await backend.propose(register("app_total"))
    assert exists.value.field == "name"
    for wrong in (add("app_unknown"), DeleteMetric(name="app_unknown", at=now().wall)):
        with pytest.raises(NotFound):
            await backend.propose(wrong)
    with pytest.raises(Invalid):
        await backend.propose(put("app_total", 1.0))
    with pytest.raises(Invalid):
        await backend.propose(register("raft_total"))
    assert backend.metrics.view("app_total").value == 0
    events = await fence(subject)
    assert [set(event) for event in events] == [{"app_total"}]


async def test_a_write_with_a_key_is_done_once_and_answered_alike(subject: Subject) -> None:
    propose = subject.backend.propose
    keys = [WriteKey(f"{name}-{now().wall}", "r") for name in ("a", "b", "c", "d")]
    await propose(register("app_k"), keys[0])
    await propose(register("app_k"), keys[0])
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(propose, add("app_k"), keys[1])
            nursery.start_soon(propose, add("app_k"), None)
    assert subject.backend.metrics.view("app_k").value == 6
    with pytest.raises(KeyReused):
        await propose(add("app_k"), WriteKey(keys[1].id, "other"))
    for _ in range(2):
        with pytest.raises(NotFound) as refused:
            await propose(add("app_none"), keys[2])
        assert refused.value.field == "name"
    await propose(register("app_none"), keys[3])
    with pytest.raises(NotFound):
        await propose(add("app_none"), keys[2])


async def test_a_metric_that_is_not_renewed_is_gone_with_an_event(subject: Subject) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire_metrics, subject.backend, now)
        await subject.backend.propose(RegisterMetric(name="app_pushed", type="gauge", ttl=1.0, at=now().wall))
        for _ in range(3):
            await trio.sleep(0.4)  # renewed within its second, three times: longer than that in all
            await subject.backend.propose(put("app_pushed", 1.0))
        await subject.until(lambda: {"app_pushed": None} in subject.events("custom_metrics"))
        nursery.cancel_scope.cancel()
    assert "app_pushed" not in subject.backend.metrics
    assert subject.reasons == ["expired"]
    with pytest.raises(NotFound):
        await subject.backend.propose(put("app_pushed", 2.0))


async def test_a_peer_is_added_and_removed_and_both_are_events(subject: Subject) -> None:
    backend = subject.backend
    before = {peer.id for peer in backend.status().peers}
    address = "127.0.0.1:7999"
    added = await patiently(lambda: backend.add_peer(Peer("node-9", address)))
    assert added.address == address
    assert {peer.id for peer in backend.status().peers} == before | {added.id}
    with pytest.raises(Conflict):
        await backend.add_peer(Peer("node-8", address))
    for again in (False, True):
        with pytest.raises(Conflict):
            await backend.add_peer(Peer(added.id, "127.0.0.1:7998"), again=again)
    assert await backend.add_peer(Peer("node-9", address), again=True) == added
    assert await patiently(lambda: backend.remove_peer(added.id)) == added
    assert {peer.id for peer in backend.status().peers} == before
    with pytest.raises(NotFound):
        await backend.remove_peer(added.id)
    await subject.until(lambda: len(subject.events("peer_change")) >= 2)
    events = [
        (each["event_type"], each["peer_id"], each["peer_address"]) for each in subject.events("peer_change")
    ]
    assert [each for each in events if each[0] in {"added", "removed"}] == [
        ("added", added.id, address),
        ("removed", added.id, address),
    ]


async def test_this_node_and_unknown_ones_cannot_be_removed(subject: Subject) -> None:
    with pytest.raises(Conflict):
        await subject.backend.remove_peer(subject.own)
    with pytest.raises(NotFound):
        await subject.backend.remove_peer("unknown")
    with pytest.raises(Conflict):
        await subject.backend.add_peer(Peer(subject.own, "127.0.0.1:7997"))


async def test_leadership_goes_where_it_is_sent_and_is_an_event(subject: Subject) -> None:
    backend = subject.backend
    first = backend.status().leader.id
    target = next(peer.id for peer in backend.status().peers if peer.id != first)
    assert await backend.transfer_leadership(target) == target
    assert backend.status().leader.id == target
    await subject.until(lambda: any(each["leader"] == target for each in subject.events("state_change")))
    anyone = await backend.transfer_leadership(None)
    assert anyone != target
    assert backend.status().leader.id == anyone
    with pytest.raises(NotFound) as unknown:
        await backend.transfer_leadership("unknown")
    assert unknown.value.field == "target"
    await subject.until(lambda: backend.not_ready() is None)


async def test_a_snapshot_is_taken_reported_and_counted(subject: Subject) -> None:
    backend = subject.backend
    await backend.propose(register("app_total"))
    record = await backend.take_snapshot()
    assert record.size > 0
    assert record.id == f"{record.term}-{record.index}"
    assert backend.snapshots.latest == record
    await subject.until(lambda: bool(subject.events("snapshot")))
    events = subject.events("snapshot")[-1]
    assert (events["index"], events["term"], events["size_bytes"]) == (record.index, record.term, record.size)
    assert (events["type"], events["success"]) == ("created", True)
    await backend.propose(add("app_total"))
    assert (await backend.take_snapshot()).index > record.index
    await backend.reset_snapshots()
    assert backend.snapshots.report(now()).total_snapshots == 0
    assert backend.snapshots.latest is not None


async def test_uptime_counts_and_can_be_reset(subject: Subject) -> None:
    backend = subject.backend
    assert backend.uptime.report(now()).historical.total_sessions == 1
    await backend.reset_uptime()
    assert backend.uptime.report(now()).historical.restarts == 0


async def test_a_revoked_token_is_accepted(subject: Subject) -> None:
    with trio.fail_after(60):
        await subject.backend.share_revocation("some-token", now().wall + 60)


async def test_events_of_the_cluster_have_numbers_without_a_hole(subject: Subject) -> None:
    for number in range(10):
        await subject.backend.propose(register(f"app_{number}", "gauge"))
    await subject.until(lambda: len(subject.events("custom_metrics")) == 10)
    if subject.seqs:
        assert subject.seqs == list(range(subject.seqs[0], subject.seqs[-1] + 1))


async def test_a_permit_to_stop_a_member_is_out_only_once(subject: Subject) -> None:
    permits = subject.backend.permits
    peer = subject.backend.status().peers[0]
    assert await permits.current() is None
    given = await permits.grant(peer.name or peer.id, "ann", 60)
    assert (given.member, given.user) == (peer.id, "ann")
    assert await permits.current() == given
    for member in (peer.id, subject.own):
        with pytest.raises(Conflict, match="ann has the permit"):
            await permits.grant(member, "bob", 60)
    renewed = await permits.renew(given.id, 600)
    assert renewed.expires_at > given.expires_at + 500
    assert await permits.end(given.id) == renewed
    assert await permits.current() is None
    for late in (permits.renew(given.id, 60), permits.end(given.id)):
        with pytest.raises(NotFound):
            await late
    with pytest.raises(NotFound):
        await permits.grant("unknown", "ann", 60)


async def test_of_many_who_ask_for_a_permit_at_once_one_gets_it(subject: Subject) -> None:
    permits = subject.backend.permits
    given: list[Permit] = []

    async def ask(number: int) -> None:
        with suppress(Conflict, NoLeader):
            given.append(await permits.grant(subject.own, f"user-{number}", 60))

    for rounds in range(1, 4):
        while len(given) < rounds:  # on a busy machine a leader may be lost for a moment
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(ask, number)
        assert len(given) == rounds
        assert await permits.current() == given[-1]
        await permits.end(given[-1].id)


async def test_the_permit_of_somebody_who_has_died_ends_by_its_time(subject: Subject) -> None:
    permits = subject.backend.permits
    await permits.grant(subject.own, "ann", 2)
    with trio.fail_after(SECONDS):
        while await permits.current() is not None:  # noqa: ASYNC110 (nothing reports the end)
            await trio.sleep(0.2)  # a permit ends by its time, here 2 s: nothing to wait on
    again = await permits.grant(subject.own, "bob", 60)
    await permits.end(again.id)
