"""A reader of events that takes none: the backend holds what fits its queue, and waits with the rest."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from heliosd.clock import Instant
from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.etcd import backend as etcd_backend
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.event_log import Append, LogItem, compose, read_head
from heliosd.cluster.metric_commands import DeleteMetric
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.cluster.subscribers import ItemQueue, Subscribers
from heliosd.config.model import EtcdConfig, HistoryConfig
from heliosd.errors import HeliosError, NoLeader, OutcomeUnknown
from heliosd.protocol.events import (
    BackendItem,
    Happened,
    MetricsDefined,
    MetricValuesChanged,
    PeerChanged,
    StatusChanged,
)
from heliosd.store.changes import LoggedEvent, ValueSet
from tests.support.etcd_model import LAYOUT, Etcd
from tests.support.etcd_model_client import URL, ModelClient
from tests.support.simulated_harness import ALONE, MemoryStore, make_backend, register
from tests.support.simulated_harness import count as count_up

HOW_MANY = pytest.mark.parametrize("number", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
"""Events; the long form is in `make prove-slow`."""
BUFFER = 256
MOST_SECONDS = 100_000.0
"""Of the mock clock, which goes on for ever where an event does not come."""
AT_MOST = BUFFER + 64
"""What a backend may hold: a full queue, and the events of one step."""


async def write_for_ever(backend: SimulatedBackend, name: str) -> None:
    """Register a metric and delete it, again and again. What is not answered may have been done all the same."""
    for turn in count():
        try:
            await backend.propose(DeleteMetric(name=name, at=1.0) if turn % 2 else register(name))
        except (NoLeader, OutcomeUnknown):
            await trio.sleep(1)
        except HeliosError:
            pass


@HOW_MANY
async def test_a_simulated_cluster_waits_for_a_reader_and_loses_nothing(
    autojump_clock: MockClock, number: int
) -> None:
    backend = make_backend(MemoryStore(), ALONE, buffer=BUFFER)
    indices: list[int] = []
    with trio.fail_after(MOST_SECONDS):
        async with trio.open_nursery() as nursery, backend.events() as events:
            await nursery.start(backend.run)
            for writer in range(200):
                nursery.start_soon(write_for_ever, backend, f"app_{writer}")
            await trio.sleep(10)
            stood_at = backend.status().indices.commit_index
            await trio.sleep(30)
            assert backend.status().indices.commit_index == stood_at
            assert BUFFER <= events.waiting <= AT_MOST
            while len(indices) < number:
                assert events.waiting <= AT_MOST
                item = await events.receive()
                if isinstance(item, Happened) and isinstance(item.event, MetricsDefined):
                    (marker,) = item.applied_marker
                    assert isinstance(marker, ValueSet)
                    indices.append(int(marker.body or b""))
            nursery.cancel_scope.cancel()
    # Of the writes that are refused there is no event, so indices may be passed over.
    assert indices == sorted(set(indices))


async def log_events(etcd: Etcd, number: int) -> None:
    """What another heliosd logs, twenty events in each transaction."""
    change = PeerChanged(event_type="healthy", peer_id="1", peer_address="127.0.0.1:2380")
    append = Append(items=(LogItem("", change),) * 20)
    for _ in range(number // 20):
        seen = read_head(etcd.under(LAYOUT.head, LAYOUT.head + b"\0"))
        draft = compose(LAYOUT, append, seen, lease="1", now_wall=1e9, max_events=100)
        assert etcd.txn(draft.compares, draft.then, draft.otherwise).succeeded
        await trio.lowlevel.checkpoint()


@HOW_MANY
async def test_an_etcd_backend_waits_for_a_reader_and_keeps_its_polls_and_leases(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    etcd, store = Etcd(), MemoryStore()
    clients: list[ModelClient] = []

    def make(_config: EtcdConfig, identity: ClusterIdentity) -> ModelClient:
        clients.append(ModelClient(etcd, identity))
        return clients[-1]

    monkeypatch.setattr(etcd_backend, "EtcdClient", make)
    backend = etcd_backend.EtcdBackend(
        node_id="etcd-1",
        config=EtcdConfig(endpoints=(URL,)),
        history=HistoryConfig(max_events=100),
        directory=tmp_path,
        saved=store.load(),
        save=store.save,
        revoked=lambda _jti, _expires_at: None,
        now=lambda: Instant(1_800_000_000.0 + trio.current_time(), trio.current_time()),
        buffer=BUFFER,
    )
    (client,) = clients
    with trio.fail_after(MOST_SECONDS):
        async with trio.open_nursery() as nursery:
            await nursery.start(backend.run)
            await trio.sleep(5)
            assert backend.not_ready() is None
            async with backend.events() as events:
                await log_events(etcd, number)
                await trio.sleep(10)
                (watch,) = client.watches
                reached, polls, renewals = watch.reached, client.polls, client.renewals
                await trio.sleep(60)
                assert watch.reached == reached < etcd.revision
                assert BUFFER <= events.waiting <= AT_MOST
                assert client.polls - polls >= 30
                assert client.renewals - renewals >= 15
                assert backend.not_ready() is None
                seqs: list[int] = []
                while len(seqs) < number:
                    assert events.waiting <= AT_MOST
                    item = await events.receive()
                    if isinstance(item, LoggedEvent):
                        seqs.append(item.seq)
            nursery.cancel_scope.cancel()
    assert seqs == list(range(seqs[0], seqs[0] + number))
    assert len(client.watches) == 1


def of_peer(number: int) -> Happened:
    return Happened(PeerChanged(event_type="added", peer_id=f"node-{number}", peer_address=""))


def value(name: str, number: float) -> MetricValuesChanged:
    metrics = MetricSet()
    metrics.apply(register(name))
    metrics.apply(count_up(name, number))
    return MetricValuesChanged(metrics={name: metrics.view(name)})


async def test_values_that_wait_behind_one_another_are_one_and_events_are_never_merged() -> None:
    queue = ItemQueue(2)
    items: list[BackendItem] = [
        of_peer(1),
        value("app_a", 1.0),
        value("app_b", 1.0),
        value("app_a", 2.0),
        of_peer(2),
        StatusChanged(),
        StatusChanged(),
    ]
    for item in items:
        queue.put(item)
    both = MetricValuesChanged(metrics={**value("app_a", 2.0).metrics, **value("app_b", 1.0).metrics})
    assert [await queue.receive() for _ in range(4)] == [of_peer(1), both, of_peer(2), StatusChanged()]
    with pytest.raises(trio.WouldBlock):
        queue.receive_nowait()


async def test_all_who_wait_for_room_go_on_when_there_is_some_or_when_the_reader_leaves(
    autojump_clock: MockClock,
) -> None:
    subscribers = Subscribers(1)
    gone_on: list[float] = []

    async def wait() -> None:
        await subscribers.room()
        gone_on.append(trio.current_time())

    async with subscribers.listener() as slow, trio.open_nursery() as nursery:
        async with subscribers.listener():
            for number in range(2):
                subscribers.emit(of_peer(number))
            began = trio.current_time()
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.sleep(1)
            assert await slow.receive() == of_peer(0)
            await trio.sleep(1)
            assert not gone_on
        await trio.sleep(1)
        assert gone_on == [began + 2] * 2
        assert await slow.receive() == of_peer(1)
        subscribers.emit(of_peer(7))
        assert await slow.receive() == of_peer(7)
