"""`Idempotency-Key`: a write whose answer was lost is repeated, done once, and answered as before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heliosd.cluster.idempotency import WriteKey
from heliosd.errors import NoLeader, OutcomeUnknown, StoreFull
from heliosd.store.changes import Change, ValueSet
from heliosd.web.rest.route import Answer
from heliosd.web.rest.write_keys import MAX_KEPT, AnsweredWrites
from tests.support.deadlines import SECONDS
from tests.support.rest_server import Rest, simulated_rest

METRICS = "/api/cluster/metrics"
PEERS = "/api/cluster/peers"


@pytest.fixture
async def cluster() -> AsyncIterator[Rest]:
    async with simulated_rest() as rest:
        yield rest


async def write(
    rest: Rest, method: str, path: str, body: object, key: str | None, user: str = "admin"
) -> tuple[int, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await rest.ask_json(method, path, body, headers=headers, user=user)


async def value(rest: Rest, name: str = "hits") -> float:
    return float((await rest.ask_json("GET", f"{METRICS}?name={name}"))[1]["value"])


async def register(rest: Rest) -> None:
    assert (await rest.ask_json("POST", METRICS, {"name": "hits", "type": "counter"}))[0] == 201


async def test_a_repeated_write_is_done_once_and_answered_alike(
    autojump_clock: MockClock, cluster: Rest
) -> None:
    await register(cluster)
    answers = [
        await write(cluster, "PUT", METRICS, {"name": "hits", "delta": 2}, key)
        for key in ("a", "a", '"b"', "a")
    ]
    assert answers == [(200, {"message": "Metric updated successfully", "name": "hits"})] * 4
    assert await value(cluster) == 4
    await write(cluster, "PUT", METRICS, {"name": "hits", "delta": 2}, None)
    assert await value(cluster) == 6


async def test_a_refusal_is_repeated_too(autojump_clock: MockClock, cluster: Rest) -> None:
    gauge = {"name": "hits", "type": "gauge"}
    await register(cluster)
    refused = await write(cluster, "POST", METRICS, gauge, "k")
    assert refused[0] == 409
    deleted = await write(cluster, "DELETE", METRICS, {"name": "hits"}, "d")
    assert deleted[0] == 200
    assert await write(cluster, "POST", METRICS, gauge, "k") == refused
    assert await write(cluster, "DELETE", METRICS, {"name": "hits"}, "d") == deleted
    assert (await write(cluster, "POST", METRICS, gauge, "other"))[0] == 201


@pytest.mark.parametrize(
    ("method", "path", "one", "other"),
    [
        ("PUT", METRICS, {"name": "hits", "delta": 1}, {"name": "hits", "delta": 2}),
        ("POST", PEERS, {"id": "n4", "address": "127.0.0.1:9"}, {"id": "n5", "address": "127.0.0.1:9"}),
    ],
)
async def test_a_key_belongs_to_one_request_of_one_user(
    autojump_clock: MockClock, cluster: Rest, method: str, path: str, one: object, other: object
) -> None:
    await register(cluster)
    first = await write(cluster, method, path, one, "k")
    status, body = await write(cluster, method, path, other, "k")
    assert (status, body["field"]) == (422, "Idempotency-Key")
    assert await write(cluster, method, path, one, "k") == first
    user = "writer" if path == METRICS else "operator"
    assert (await write(cluster, method, path, other, "k", user=user))[0] in {200, 409}


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
async def test_a_malformed_key_is_refused_and_nothing_is_written(
    autojump_clock: MockClock, cluster: Rest, key: str
) -> None:
    await register(cluster)
    status, body = await write(cluster, "PUT", METRICS, {"name": "hits"}, key)
    assert (status, body["field"]) == (400, "Idempotency-Key")
    assert await value(cluster) == 0


async def test_concurrent_repetitions_are_done_once(autojump_clock: MockClock, cluster: Rest) -> None:
    await register(cluster)
    answers: list[tuple[int, Any]] = []

    async def one(method: str, path: str, body: object) -> None:
        answers.append(await write(cluster, method, path, body, "k"))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one, "PUT", METRICS, {"name": "hits"})
            nursery.start_soon(one, "POST", PEERS, {"id": "node-4", "address": "127.0.0.1:7003"})
    assert sorted(status for status, _ in answers) == [200] * 5 + [201] * 5
    assert await value(cluster) == 1


@pytest.mark.parametrize("seed", range(6))
async def test_writes_repeated_until_they_are_answered_are_done_once_whatever_fails(
    autojump_clock: MockClock, cluster: Rest, seed: int
) -> None:
    await register(cluster)
    rng = Random(seed)
    lost = 0
    nodes = ["node-1", "node-2", "node-3"]

    async def fail_at_random() -> None:
        while True:
            some = rng.sample(nodes, rng.randrange(3))
            faults = rng.choice([{"partitions": [some] if some else []}, {"crashed": some}, {"loss": 0.3}])
            assert (await cluster.ask_json("PUT", "/api/cluster/simulation", faults))[0] == 200
            await trio.sleep(rng.random() * 2)
            healed = {"partitions": [], "crashed": [], "loss": 0}
            assert (await cluster.ask_json("PUT", "/api/cluster/simulation", healed))[0] == 200
            await trio.sleep(rng.random() * 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_at_random)
        for serial in range(20):
            while True:
                with trio.move_on_after(rng.choice([0.003, 0.1, 10])) as patience:  # the client may hang up
                    status, _ = await write(cluster, "PUT", METRICS, {"name": "hits"}, f"k{serial}")
                if patience.cancelled_caught or status in {503, 504}:
                    lost += 1
                    continue
                assert status == 200
                break
        nursery.cancel_scope.cancel()
    assert lost
    await cluster.ask_json("PUT", "/api/cluster/simulation", {"partitions": [], "crashed": [], "loss": 0})
    with trio.fail_after(SECONDS):
        while await value(cluster) < 20:  # noqa: ASYNC110 (this node's member may be behind)
            await trio.sleep(0.1)
    assert await value(cluster) == 20


async def test_changes_of_members_are_answered_alike(autojump_clock: MockClock, cluster: Rest) -> None:
    peer = {"id": "node-4", "address": "127.0.0.1:7003"}
    added = [await write(cluster, "POST", PEERS, peer, "add") for _ in range(3)]
    assert added == [(201, {"message": "Peer added successfully", "peer": peer})] * 3
    removed = [await write(cluster, "DELETE", PEERS, {"id": "node-4"}, "remove") for _ in range(3)]
    assert removed == [(200, {"message": "Peer removed successfully", "peer_id": "node-4"})] * 3
    assert await write(cluster, "POST", PEERS, peer, "add") == added[0]
    assert len((await cluster.ask_json("GET", PEERS))[1]["peers"]) == 2, "it was not added again"


async def test_after_an_unknown_outcome_a_repetition_finds_what_was_done(autojump_clock: MockClock) -> None:
    rest = Rest()
    peer = {"id": "node-4", "address": "127.0.0.1:7003"}
    for method, body in (("POST", peer), ("DELETE", {"id": "node-4"})):
        rest.lone.trouble = OutcomeUnknown()
        assert (await write(rest, method, PEERS, body, method))[0] == 504
        rest.lone.trouble = None
        assert (await write(rest, method, PEERS, body, None))[0] in {200, 201}  # it was done after all
        assert (await write(rest, method, PEERS, body, method))[0] in {200, 201}
        assert (await write(rest, method, PEERS, body, f"new-{method}"))[0] in {404, 409}


@pytest.mark.parametrize("trouble", [NoLeader(), StoreFull("no space")])
async def test_what_was_not_begun_is_no_answer(autojump_clock: MockClock, trouble: Exception) -> None:
    rest = Rest()
    peer = {"id": "node-4", "address": "127.0.0.1:7003"}
    rest.lone.trouble = trouble
    assert (await write(rest, "POST", PEERS, peer, "k"))[0] in {503, 507}
    rest.lone.trouble = None
    assert (await write(rest, "POST", PEERS, peer, "k"))[0] == 201


async def test_answers_outlive_a_restart(autojump_clock: MockClock) -> None:
    rest = Rest()
    peer = {"id": "node-4", "address": "127.0.0.1:7003"}
    first = await write(rest, "POST", PEERS, peer, "k")
    stored = {change.name: change.body for change in rest.saved if isinstance(change, ValueSet)}
    again = Rest(rest.backend, stored={name: body for name, body in stored.items() if body is not None})
    assert await write(again, "POST", PEERS, peer, "k") == first
    assert (await write(again, "POST", PEERS, peer, "new"))[0] == 409


async def test_after_a_restart_the_oldest_answers_are_still_the_first_to_go() -> None:
    stored: dict[str, bytes] = {}

    async def save(changes: Sequence[Change]) -> None:
        for change in changes:
            assert isinstance(change, ValueSet)
            if change.body is None:
                del stored[change.name]
            else:
                stored[change.name] = change.body

    async def done(_begun: bool) -> Answer:
        return Answer(body=b"{}")

    async def write_all(answers: AnsweredWrites, numbers: range) -> None:
        for number in numbers:
            # The store returns values by name, here the newest first.
            await answers.answer(WriteKey(f"{2 * MAX_KEPT - number:06d}", "one"), done, "")

    await write_all(AnsweredWrites({}, save), range(MAX_KEPT))
    await write_all(AnsweredWrites(dict(sorted(stored.items())), save), range(MAX_KEPT, MAX_KEPT + 10))
    assert sorted(2 * MAX_KEPT - int(name.rpartition("/")[2]) for name in stored) == [
        *range(10, MAX_KEPT + 10)
    ]


async def test_without_a_disk_nothing_is_begun(autojump_clock: MockClock) -> None:
    rest = Rest()
    rest.disk_trouble = StoreFull("no space")
    peer = {"id": "node-4", "address": "127.0.0.1:7003"}
    assert (await write(rest, "POST", PEERS, peer, "k"))[0] == 507
    assert "node-4" not in rest.lone.peers
