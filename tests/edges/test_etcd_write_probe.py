"""The write that is only rehearsed: etcd stores nothing of it, and refuses it as it would refuse the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heliosd.cluster.etcd.client.errors import EtcdDenied
from heliosd.cluster.etcd.client.requests import Put, get
from heliosd.cluster.etcd.keys import KeyLayout
from heliosd.cluster.etcd.write_probe import rehearsal
from tests.support.etcd_cluster import EtcdAuth, EtcdCluster
from tests.support.etcd_endpoints import END, PREFIX, client_of, in_thread

pytestmark = pytest.mark.needs("etcd")
AUTH = EtcdAuth()
LAYOUT = KeyLayout("/heliosd/")


@pytest.fixture(scope="module")
def guarded() -> Iterator[EtcdCluster]:
    with EtcdCluster.start(1, auth=AUTH) as cluster:
        yield cluster


@pytest.fixture
def login(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "password"
    file.write_text(AUTH.password)
    return {"username": AUTH.username, "password_file": file}


def test_a_write_of_each_kind_is_rehearsed() -> None:
    places = {LAYOUT.meaning(op.key) for op in rehearsal(LAYOUT)[1] if isinstance(op, Put)}
    assert {place.part for place in places if place} == {
        *(
            "head",
            "members",
            "observer",
            "events",
            "dedupe",
            "metrics",
            "observers",
            "learners",
            "leaving",
            "revoked",
        )
    }
    assert None not in places


@pytest.mark.parametrize("begun", [False, True])
async def test_what_is_rehearsed_is_not_done(
    guarded: EtcdCluster, login: dict[str, Any], begun: bool
) -> None:
    compares, writes = rehearsal(LAYOUT)
    async with client_of(guarded, **login) as client:
        if begun:
            await in_thread(guarded.put, LAYOUT.head.decode(), "{}")
        before = await client.range(PREFIX, END)
        result = await client.txn(compares, writes, [get(LAYOUT.head)])
        assert not result.succeeded
        after = await client.range(PREFIX, END)
        assert after.kvs == before.kvs
        assert after.header.revision == before.header.revision


async def test_it_is_refused_without_the_right_to_write_or_to_read(
    guarded: EtcdCluster, login: dict[str, Any]
) -> None:
    compares, writes = rehearsal(LAYOUT)
    try:
        async with client_of(guarded, **login) as client:
            for kind in ("READ", "WRITE"):
                await in_thread(guarded.grant, AUTH, kind)
                with pytest.raises(EtcdDenied):
                    await client.txn(compares, writes)
                await in_thread(guarded.grant, AUTH)
                await client.txn(compares, writes)
            await in_thread(guarded.take_away, AUTH)
            with pytest.raises(EtcdDenied):
                await client.txn(compares, writes)
    finally:
        await in_thread(guarded.grant, AUTH)
