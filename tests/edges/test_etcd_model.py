"""The model of etcd that the rules are tested on behaves as a real etcd does."""

from __future__ import annotations

from random import Random

import pytest

from heliosd.cluster.etcd.client.errors import EtcdRefused
from heliosd.cluster.etcd.client.requests import (
    Compare,
    Op,
    absent,
    delete,
    get,
    mod_is,
    prefix_end,
    put,
    value_is,
)
from heliosd.cluster.etcd.client.responses import KeyValue, WatchEvent
from heliosd.cluster.etcd.keys import KeyLayout
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_endpoints import client_of
from tests.support.etcd_model import MAX_OPS, Etcd, Refused

pytestmark = pytest.mark.needs("etcd")

PREFIX = b"/heliosd/"
KEYS = [PREFIX + b"%d" % number for number in range(5)]
END = prefix_end(PREFIX)


def any_compare(rng: Random, model: Etcd) -> Compare:
    key = rng.choice(KEYS)
    kv = model.kvs.get(key, KeyValue(key=key))
    return rng.choice([absent(key), mod_is(key, kv.mod_revision), value_is(key, kv.value)])


def any_op(rng: Random) -> Op:
    key, end = rng.choice(KEYS), rng.choice([None, *KEYS, END])
    if end is not None and end <= key:
        end = None
    ops: list[Op] = [put(key, b"%d" % rng.randrange(3)), delete(key, end), get(key, end)]
    return rng.choice(ops)


async def test_transactions_readings_and_the_watch_are_as_etcd_has_them() -> None:
    rng, model = Random(3), Etcd()
    refused = succeeded = 0
    with EtcdCluster.start(1) as cluster:
        async with client_of(cluster) as client:
            for _ in range(400):
                compares = [any_compare(rng, model) for _ in range(rng.randrange(3))]
                then, otherwise = ([any_op(rng) for _ in range(rng.randrange(4))] for _ in range(2))
                try:
                    expected = model.txn(compares, then, otherwise)
                except Refused:
                    refused += 1
                    with pytest.raises(EtcdRefused):
                        await client.txn(compares, then, otherwise)
                    continue
                result = await client.txn(compares, then, otherwise)
                succeeded += result.succeeded
                assert result.succeeded == expected.succeeded
                assert result.responses == expected.responses
                # The revision of an empty transaction means nothing.
                if then or otherwise:
                    assert result.header.revision == expected.header.revision
            listed = await client.range(PREFIX, END)
            assert listed.kvs == model.under(PREFIX, END)
            assert listed.header.revision == model.revision
            watched: list[WatchEvent] = []
            async with client.watch(PREFIX, END, 2) as batches:
                async for batch in batches:
                    watched += batch.events
                    if watched and watched[-1].kv.mod_revision == model.revision:
                        break
            assert watched == list(model.watch(2, layout=KeyLayout("/heliosd/")).events)
    assert refused > 20
    assert 100 < succeeded < 380


async def test_no_transaction_has_more_operations_than_the_model_allows() -> None:
    model = Etcd()
    most: list[Op] = [put(PREFIX + b"%d" % number, b"") for number in range(MAX_OPS)]
    with EtcdCluster.start(1) as cluster:
        async with client_of(cluster) as client:
            assert (await client.txn([], most)).succeeded
            model.txn([], most)
            with pytest.raises(EtcdRefused):
                await client.txn([], [*most, get(PREFIX)])
            with pytest.raises(Refused):
                model.txn([], [*most, get(PREFIX)])
