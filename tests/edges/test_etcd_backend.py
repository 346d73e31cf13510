"""What the etcd backend does beyond the contract of all backends, with a real etcd."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from heliosd.cluster.backend import Peer
from heliosd.cluster.etcd.backend import EtcdBackend
from heliosd.errors import Conflict, NotFound
from tests.support.contract_backends import Subject, etcd_backend, now, patiently, put, register, running
from tests.support.deadlines import SECONDS
from tests.support.etcd_cluster import EtcdCluster
from tests.support.simulated_harness import MemoryStore

pytestmark = pytest.mark.needs("etcd")


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster.start(1) as started:
        yield started


@pytest.fixture
async def pair(cluster: EtcdCluster, tmp_path: Path) -> AsyncIterator[tuple[Subject, Subject]]:
    """Two heliosd on one cluster: one beside the member, and an observer."""
    async with AsyncExitStack() as stack:
        found = []
        for node in ("etcd-1", "watcher"):
            revoked: list[str] = []
            folder = tmp_path / node
            folder.mkdir()
            take = partial(_take, revoked)
            url = f"https://{node}.example" if node == "watcher" else ""
            backend = etcd_backend(cluster, folder, MemoryStore(0.0), take, node, dashboard_url=url)
            found.append(await stack.enter_async_context(running(backend, revoked)))
        yield found[0], found[1]


def _take(revoked: list[str], jti: str, _expires_at: float) -> None:
    revoked.append(jti)


async def test_a_heliosd_beside_no_member_is_an_observer_and_all_list_each_other(
    pair: tuple[Subject, Subject],
) -> None:
    one, other = pair
    assert other.backend.status().node.state == "Observer"
    assert len(other.backend.status().peers) == 1
    for subject in pair:

        def seen(subject: Subject = subject) -> list[tuple[str, object]]:
            observers = subject.backend.status().observers
            return [(each.id, each.url) for each in observers] if isinstance(observers, tuple) else []

        both = [("etcd-1", msgspec.UNSET), ("watcher", "https://watcher.example")]
        await subject.until(lambda seen=seen, both=both: seen() == both)  # type: ignore[misc]
    assert one.backend.status().leader.is_leader


async def test_what_is_refused_is_said_so_though_others_write_to_this_etcd(
    pair: tuple[Subject, Subject], cluster: EtcdCluster
) -> None:
    for _ in range(3):
        await trio.to_thread.run_sync(cluster.put, "elsewhere", "x")
        with pytest.raises(NotFound):
            await pair[0].backend.propose(put("app_nowhere", 1.0))


async def test_another_heliosd_with_the_same_id_is_warned_of_once_and_the_own_restart_is_not(
    cluster: EtcdCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warned = trio.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "node.id" in record.getMessage():
                warned.set()

    def warnings() -> list[str]:
        return [record.message for record in caplog.records if "node.id" in record.message]

    def another(name: str) -> EtcdBackend:
        folder = tmp_path / name
        folder.mkdir()
        return etcd_backend(cluster, folder, MemoryStore(0.0), partial(_take, []), "same")

    watch = Watch()
    logging.getLogger("heliosd").addHandler(watch)
    async with AsyncExitStack() as stack:
        stack.callback(logging.getLogger("heliosd").removeHandler, watch)
        first = await stack.enter_async_context(running(another("first"), []))
        await first.until(lambda: first.backend.status().observers != ())
        assert warnings() == []
        await stack.enter_async_context(running(another("second"), []))
        with trio.fail_after(SECONDS):
            await warned.wait()
        (warning,) = warnings()
        assert warning.startswith("etcd: another heliosd has the node.id same as well, since 20")


async def test_both_tell_the_same_events_under_the_same_numbers(pair: tuple[Subject, Subject]) -> None:
    one, other = pair
    first = one.seqs[-1] if one.seqs else 0
    async with trio.open_nursery() as nursery:
        for number in range(20):
            subject = pair[number % 2]
            nursery.start_soon(subject.backend.propose, register(f"app_pair_{number}", "gauge"))
    for subject in pair:
        await subject.until(lambda subject=subject: len(subject.events("custom_metrics")) >= 20)  # type: ignore[misc]
    assert one.published[-20:] == other.published[-20:]
    assert one.seqs[-20:] == other.seqs[-20:]
    assert one.seqs[-1] - one.seqs[-20] == 19
    assert one.seqs[-1] > first


async def test_a_write_on_one_is_read_on_the_other(pair: tuple[Subject, Subject]) -> None:
    one, other = pair
    await one.backend.propose(register("app_shared", "gauge"))
    await one.backend.propose(put("app_shared", 4.0))
    await other.until(lambda: other.moved.get("app_shared") == 4.0)
    assert other.backend.metrics.view("app_shared").value == 4.0
    with pytest.raises(Conflict):
        await other.backend.propose(register("app_shared", "gauge"))


async def test_a_token_revoked_on_one_reaches_the_other(pair: tuple[Subject, Subject]) -> None:
    one, other = pair
    await one.backend.share_revocation("token-1", now().wall + 3600)
    await other.until(lambda: "token-1" in other.revoked)
    await one.backend.share_revocation("token-over", now().wall - 1)
    await one.backend.share_revocation("token-for-good", 253_402_300_799.0)
    await other.until(lambda: "token-for-good" in other.revoked)
    assert "token-over" not in other.revoked


async def test_a_snapshot_is_a_file_of_which_the_newest_few_stay(
    pair: tuple[Subject, Subject], tmp_path: Path
) -> None:
    one, other = pair
    for number in range(5):
        await one.backend.propose(register(f"app_snapshot_{number}", "gauge"))
        record = await one.backend.take_snapshot()
    folder = tmp_path / "etcd-1" / "etcd-snapshots"
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 3
    assert files[-1].name == f"{record.id}.db"
    assert files[-1].stat().st_size == record.size
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    await other.until(lambda: len(other.events("snapshot")) == 5)


async def test_an_added_member_is_a_learner_and_becomes_a_voter_by_itself(
    cluster: EtcdCluster, pair: tuple[Subject, Subject]
) -> None:
    one, other = pair
    spare = cluster.spare("etcd-9")
    address = spare.peer_url.partition("//")[2]
    added = await patiently(lambda: one.backend.add_peer(Peer("etcd-9", address)))
    assert added.address == address
    await trio.to_thread.run_sync(cluster.join, spare)
    try:
        for subject in pair:
            await subject.until(lambda subject=subject: "promoted" in kinds(subject, added.id), 20.0)  # type: ignore[misc]
        assert set(kinds(one, added.id)) >= {"added", "renamed", "promoted"}
        assert kinds(one, added.id)[0] == "added"
        assert isinstance(one.backend, EtcdBackend)
        await one.until(lambda: len(one.backend.status().peers) == 1)
        await one.until(
            lambda: {peer.state for peer in one.backend.status().peer_states} <= {"Follower", "Leader"}
        )
    finally:
        with trio.fail_after(60):
            while one.backend.status().leader.id == added.id:
                await one.backend.transfer_leadership(one.own)
        await patiently(lambda: one.backend.remove_peer(added.id))
        cluster.kill(1)
        cluster.members.pop()
    await other.until(lambda: kinds(other, added.id)[-1] == "removed")


def kinds(subject: Subject, member: str) -> list[str]:
    return [each["event_type"] for each in subject.events("peer_change") if each["peer_id"] == member]


async def test_names_stand_for_ids_in_what_is_asked(pair: tuple[Subject, Subject]) -> None:
    one, other = pair
    assert await other.backend.transfer_leadership("etcd-1") == one.own
    assert await other.backend.transfer_leadership(one.own) == one.own
    with pytest.raises(Conflict):
        await other.backend.transfer_leadership(None)
    with pytest.raises(Conflict):
        await one.backend.remove_peer("etcd-1")


@pytest.mark.parametrize("advertised", ["http://0.0.0.0:2379", "http://192.0.2.1:2379"])
async def test_members_that_tell_urls_of_no_use_are_found_behind_the_configured_ones(
    tmp_path: Path, advertised: str
) -> None:
    with EtcdCluster.start(1, options=["--advertise-client-urls", advertised]) as cluster:
        backend = etcd_backend(cluster, tmp_path, MemoryStore(0.0), lambda jti, at: None)
        async with running(backend, []) as subject:
            await subject.backend.propose(register("app_x", "gauge"))
            await subject.until(lambda: subject.backend.status().leader.is_leader)
            assert not subject.backend.status().stale
            assert (await subject.backend.take_snapshot()).size > 0
