"""heliosd on every version of etcd that is on this machine: the main behaviour, in short.

All tests with etcd, on each of them: `make prove-etcd-versions`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.errors import EtcdCompacted, EtcdDenied, EtcdLeaseGone
from heliosd.cluster.etcd.client.requests import absent, get, put
from tests.support.daemon_process import Daemon, wait_until
from tests.support.deadlines import SECONDS, at_most
from tests.support.etcd_cluster import EtcdAuth, EtcdCluster
from tests.support.etcd_endpoints import END, KEY, PREFIX, client_of, in_thread, url
from tests.support.etcd_nodes import METRICS, Listener, beside, listening
from tests.support.etcd_versions import further_etcds

AUTH = EtcdAuth()


@pytest.fixture(params=further_etcds().items(), ids=lambda item: str(item[0]))
def further_etcd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Puts one version first in PATH; its name."""
    version, place = request.param
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return str(version)


def login(folder: Path) -> dict[str, Any]:
    file = folder / "password"
    file.touch(0o600)
    file.write_text(AUTH.password)
    return {"username": AUTH.username, "password_file": file}


def changes(listener: Listener) -> list[str]:
    return [each["data"]["leader"] for each in listener.events() if each["type"] == "state_change"]


def readiness(daemon: Daemon) -> Any:
    return httpx.get(f"{daemon.url}/readyz", timeout=SECONDS, verify=False).json()


@pytest.mark.extended
def test_its_leaders_and_metrics_are_followed_with_the_least_rights_and_a_missing_one_is_named(
    tmp_path: Path, further_etcd: str
) -> None:
    section = "\n".join(f'{name} = "{value}"' for name, value in login(tmp_path).items())
    with (
        EtcdCluster.start(3, auth=AUTH) as cluster,
        beside(tmp_path, cluster, names=["etcd-1", "etcd-2"], etcd=section) as daemons,
    ):
        token = daemons[0].token()
        with listening(daemons[0], token) as one, listening(daemons[1], token) as other:
            with daemons[0].client() as http:
                assert http.post(METRICS, json={"name": "app_x", "type": "gauge"}).status_code == 201
                assert http.get("/api/cluster/status").json()["leader"]["id"]
            killed = cluster.leader()
            cluster.kill(killed)
            wait_until(lambda: all(len(changes(each)) == 2 for each in (one, other)))
            cluster.restart(killed)
            cluster.leader()
            began = time.monotonic()
            cluster.grant(AUTH, "READ")
            try:
                for daemon in daemons:
                    wait_until(lambda it=daemon: "readwrite /heliosd/" in readiness(it).get("reason", ""))  # type: ignore[misc]
                assert time.monotonic() - began < at_most(5.0)
                with daemons[1].client() as http:
                    assert http.get("/api/cluster/status").json()["leader"]["id"] == changes(one)[-1]
            finally:
                cluster.grant(AUTH)
            wait_until(lambda: all(readiness(daemon)["ready"] for daemon in daemons))
            with daemons[1].client() as http:
                assert http.delete(METRICS, params={"name": "app_x"}).is_success
            logs = [one.events, other.events]
            wait_until(lambda: all(log() and log()[-1]["type"] == "custom_metrics" for log in logs))
            wait_until(lambda: logs[0]()[-1]["seq"] == logs[1]()[-1]["seq"])
            assert logs[0]() == logs[1]()
            assert changes(one)[:1] == [""]
        for daemon in daemons:
            assert daemon.stop() == 0


async def members(client: EtcdClient) -> set[str]:
    """Also where the list is refused."""
    try:
        return {each.id for each in await client.members()}
    except EtcdDenied:
        return set(await client.raft_members())


async def test_its_answers_and_errors_are_read(tmp_path: Path, further_etcd: str) -> None:
    cluster = await in_thread(EtcdCluster.start, 1)
    try:
        async with client_of(cluster, **login(tmp_path)) as client:
            status = await client.status(url(cluster, 0))
            assert status.version == further_etcd
            first = (await client.txn([absent(KEY)], [put(KEY, b"1")], [])).header.revision
            assert (await client.txn([absent(KEY)], [], [get(KEY)])).responses[0][0].value == b"1"
            lease = await client.lease_grant(10)
            assert (await client.lease_keepalive(lease.id)).seconds == 10
            async with client.watch(PREFIX, END, first) as watch:
                assert (await anext(watch)).created
                assert [each.kv.value for each in (await anext(watch)).events] == [b"1"]
            await client.lease_revoke(lease.id)
            with pytest.raises(EtcdLeaseGone):
                await client.txn([], [put(KEY, b"2", lease.id)])
            last = (await client.txn([], [put(KEY, b"3")])).header.revision
            compaction = {"revision": str(last), "physical": True}
            await in_thread(cluster.ask, 0, "/v3/kv/compaction", compaction)
            with pytest.raises(EtcdCompacted):
                await client.range(KEY, revision=first)
            await in_thread(cluster.enable_auth, AUTH)
            assert (await client.range(KEY)).kvs[0].value == b"3"
            with pytest.raises(EtcdDenied, match="needs the role root"):
                await client.member_add(["http://127.0.0.1:1"])
            with pytest.raises(EtcdDenied, match="needs a role with readwrite"):
                async with client.watch(b"/elsewhere"):
                    pass
            # Of a version that refuses this it is made of a page that it serves to everybody.
            assert (await client.status(url(cluster, 0))).leader == status.header.member_id
            assert await members(client) == {status.header.member_id}
    finally:
        await in_thread(cluster.close)
