"""The client of etcd against a real etcd that is well."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from heliosd.cluster.etcd.client.errors import (
    NOT_FOUND,
    EtcdCompacted,
    EtcdLeaseGone,
    EtcdRefused,
    EtcdUnavailable,
)
from heliosd.cluster.etcd.client.requests import absent, delete, get, mod_is, prefix_end, put, value_is
from tests.support.deadlines import SECONDS
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_endpoints import END, KEY, client_of, url

pytestmark = pytest.mark.needs("etcd")


@pytest.fixture(scope="module")
def one() -> Iterator[EtcdCluster]:
    """One member that nobody hurts."""
    with EtcdCluster.start(1) as cluster:
        yield cluster


async def test_a_transaction_writes_and_reads_by_its_conditions(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        key, other = b"/heliosd/txn/\x00\xff", b"/heliosd/txn/b"
        first = await client.txn(
            [absent(key)], [put(key, b"\xff\x00"), get(key), put(other, b"")], [get(key)]
        )
        assert first.succeeded
        assert [kv.value for kv in first.responses[1]] == [b"\xff\x00"]
        revision = first.header.revision
        second = await client.txn([absent(key)], [put(key, b"no")], [get(key), get(b"/heliosd/txn/none")])
        assert not second.succeeded
        assert second.responses[1] == ()
        assert second.responses[0][0].mod_revision == revision
        third = await client.txn(
            [mod_is(key, revision), value_is(other, b""), mod_is(b"/heliosd/txn/none", 0)],
            [delete(key), get(b"/heliosd/txn/", prefix_end(b"/heliosd/txn/"))],
        )
        assert third.succeeded
        assert [kv.key for kv in third.responses[1]] == [other]
        listed = await client.range(b"/heliosd/txn/", prefix_end(b"/heliosd/txn/"))
        assert (listed.count, listed.more, [kv.version for kv in listed.kvs]) == (1, False, [1])


async def test_a_range_is_read_in_pages_at_one_revision(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        keys = [b"/pages/%02d" % number for number in range(10)]
        written = await client.txn([], [put(key, key) for key in keys])
        await client.txn([], [put(keys[9], b"later")])
        page = await client.range(
            b"/pages/", prefix_end(b"/pages/"), limit=6, revision=written.header.revision
        )
        assert (page.more, page.count, [kv.key for kv in page.kvs]) == (True, 10, keys[:6])
        rest = await client.range(
            keys[5] + b"\0", prefix_end(b"/pages/"), revision=written.header.revision, serializable=True
        )
        assert [kv.value for kv in rest.kvs] == keys[6:]


async def test_a_member_tells_its_status_and_the_list_of_members(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        status = await client.status(url(one, 0))
        (member,) = await client.members()
        assert await client.members(url(one, 0)) == (member,)
        assert status.leader == status.header.member_id == member.id
        assert (member.name, member.client_urls, member.is_learner) == ("etcd-1", (url(one, 0),), False)
        assert f"{int(one.ask(0, '/v3/cluster/member/list', {})['members'][0]['ID']):x}" == member.id
        assert (status.version, status.errors, status.raft_term > 1) == (one_version(one), (), True)
        assert "etcd_server_is_leader 1" in (await client.metrics_text(url(one, 0)))


def one_version(cluster: EtcdCluster) -> str:
    status = cluster.status(0)
    assert status is not None
    return str(status["version"])


async def test_a_lease_is_granted_kept_and_revoked(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        lease = await client.lease_grant(100)
        assert lease.seconds == 100
        await client.txn([], [put(KEY, b"x", lease.id)])
        assert (await client.range(KEY)).kvs[0].lease == lease.id
        assert await client.lease_keepalive(lease.id) == lease
        await client.lease_revoke(lease.id)
        assert (await client.range(KEY)).kvs == ()
        assert (await client.lease_keepalive(lease.id)).seconds == 0
        with pytest.raises(EtcdLeaseGone):
            await client.lease_revoke(lease.id)
        with pytest.raises(EtcdLeaseGone):
            await client.txn([], [put(KEY, b"x", lease.id)])


async def test_what_is_refused_says_so_in_one_line_that_names_the_endpoint(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        with pytest.raises(EtcdRefused) as raised:
            await client.txn([], [put(KEY, b"1"), put(KEY, b"2")])
        assert str(raised.value) == f"{url(one, 0)}: etcdserver: duplicate key given in txn request"
        with pytest.raises(EtcdRefused) as raised:
            await client.member_remove("ffffffffffffffff")
        assert raised.value.code == NOT_FOUND
        with pytest.raises(ValueError, match="not the id of a member"):
            await client.member_remove("etcd-1")
        with pytest.raises(EtcdRefused):
            await client.range(b"")


async def test_a_watch_tells_changes_in_order_and_where_it_began(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        before = await client.txn([], [put(b"/watch/a", b"1")])
        async with client.watch(b"/watch/", prefix_end(b"/watch/"), before.header.revision) as watch:
            assert watch.endpoint == url(one, 0)
            assert (await anext(watch)).created
            (event,) = (await anext(watch)).events
            assert (event.kind, event.kv.value) == ("put", b"1")
            after = await client.txn([], [delete(b"/watch/a"), put(b"/watch/b", b"x" * 300_000)])
            batch = await anext(watch)
            assert [(each.kind, each.kv.key, len(each.kv.value)) for each in batch.events] == [
                ("delete", b"/watch/a", 0),
                ("put", b"/watch/b", 300_000),
            ]
            assert {each.kv.mod_revision for each in batch.events} == {after.header.revision}


async def test_a_watch_that_is_left_or_cancelled_closes_its_stream(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        for _ in range(3):
            with trio.move_on_after(0.05):
                async with client.watch(b"/quiet") as watch:
                    async for _batch in watch:
                        pass
            async with client.watch(b"/watch/", prefix_end(b"/watch/"), 1) as watch:
                await anext(watch)  # more is on its way
        with pytest.raises(ZeroDivisionError):
            async with client.watch(b"/quiet"):
                raise ZeroDivisionError

        watchers = "etcd_debugging_mvcc_watcher_total "
        with trio.fail_after(SECONDS):
            while watchers + "0" not in (await client.metrics_text(url(one, 0))).splitlines():  # noqa: ASYNC110
                await trio.sleep(0.02)  # etcd shows it nowhere but in its metrics


async def test_a_compacted_start_is_reported_with_the_revision_from_which_history_is_kept() -> None:
    with EtcdCluster.start(1) as cluster:
        revisions = [cluster.put("/heliosd/a", str(number)) for number in range(4)]
        cluster.ask(0, "/v3/kv/compaction", {"revision": str(revisions[2])})
        async with client_of(cluster) as client:
            async with client.watch(b"/heliosd/", END, revisions[0]) as watch:
                batches = [batch async for batch in watch]
            assert [batch.created for batch in batches] == [True, False]
            assert batches[1].canceled
            assert batches[1].compact_revision == revisions[2]
            with pytest.raises(EtcdCompacted):
                await client.range(KEY, revision=revisions[0])
            async with client.watch(b"/heliosd/", END, revisions[2]) as watch:
                await anext(watch)
                assert [event.kv.value for event in (await anext(watch)).events] == [b"2", b"3"]


async def test_a_snapshot_is_whole_and_ends_with_its_digest(one: EtcdCluster, tmp_path: Path) -> None:
    async with client_of(one) as client:
        await client.txn([], [put(b"/big/%d" % number, random.randbytes(20_000)) for number in range(60)])
        file = tmp_path / "db"
        with file.open("wb") as out:
            async with client.snapshot(url(one, 0)) as snapshot:
                async for part in snapshot:
                    out.write(part)
        content = file.read_bytes()
        assert len(content) == snapshot.size > 1_200_000
        assert hashlib.sha256(content[:-32]).digest() == content[-32:]
        assert content[-32:].hex() == snapshot.sha256
        assert len(content) % 512 == 32  # what `etcdctl snapshot restore` takes for one with a digest
        async with client.snapshot(url(one, 0)) as snapshot:
            await anext(snapshot)  # left early: nothing stays behind


async def test_an_endpoint_that_nobody_named_is_not_asked(one: EtcdCluster) -> None:
    async with client_of(one) as client:
        with pytest.raises(EtcdUnavailable, match=r"http://127\.0\.0\.1:1: it is neither"):
            await client.status("http://127.0.0.1:1")
        await client.status(url(one, 0).upper().replace("HTTP", "http") + "/")
