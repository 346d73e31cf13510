"""Clients that are slow: what is dropped is named, and no other client is affected."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.hub import direct_writes
from heliosd.hub.client import BATCH_BYTES
from heliosd.hub.fanout import GONE
from heliosd.hub.flights import Flights
from heliosd.hub.inbox import Tick
from heliosd.hub.token_bucket import MAX_REFUSED_IN_A_ROW
from heliosd.protocol.client_commands import AskStatus, Ping, Subscribe
from heliosd.protocol.close_codes import EXPIRED, TOO_MANY_MESSAGES
from heliosd.protocol.events import Happened, MetricsDefined, MetricValuesChanged
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import NOTHING, TO_EVERYTHING, Subscription, Topic
from tests.support.fake_transports import Descriptors, FakeSender, FakeSocket
from tests.support.hub_harness import ADDED, House, Reader, open_house


@pytest.fixture(name="house")
async def hub_harness() -> AsyncIterator[House]:
    async with open_house() as opened:
        change(opened, send_buffer=16)
        yield opened


def change(house: House, **values: Any) -> None:
    config = house.settings.current
    house.settings.replace(replace(config, websocket=replace(config.websocket, **values)))


def seqs(messages: list[dict[str, Any]]) -> list[int]:
    return [message["seq"] for message in messages if "seq" in message]


async def test_a_client_whose_queue_was_full_gets_one_gap_that_names_the_hole_then_status_then_live(
    autojump_clock: MockClock, house: House
) -> None:
    (client, slow), (_, fast) = house.join(), house.join()
    slow.room = 0
    for _ in range(100):
        await house.publish(ADDED)
    slow.open()
    await house.publish(ADDED)
    messages = slow.messages()
    (gap,) = [m for m in messages if m["type"] == "gap"]
    at = messages.index(gap)
    assert gap["data"]["reason"] == "slow_consumer"
    assert messages[at + 1]["type"] == "status"
    before, after = seqs(messages[:at]), seqs(messages[at:])
    assert before == list(range(1, gap["data"]["from_seq"]))
    assert after == list(range(gap["data"]["to_seq"] + 1, 102))
    assert messages[at + 1]["data"]["as_of_seq"] == gap["data"]["to_seq"]
    assert gap["data"]["dropped"] == gap["data"]["to_seq"] - gap["data"]["from_seq"] + 1
    assert client.dropped == gap["data"]["dropped"] == house.hub.connections.counters.dropped["slow"]
    assert seqs(fast.messages()) == list(range(1, 102))


async def test_a_gap_counts_only_what_the_subscription_would_have_let_through(
    autojump_clock: MockClock, house: House
) -> None:
    _, slow = house.join(subscription=Subscription(Topic.CUSTOM_METRICS))
    slow.room = 0
    for number in range(40):
        await house.publish(ADDED, Happened(MetricsDefined(metrics={f"m{number}": None})))
    slow.open()
    await wait_all_tasks_blocked()
    (gap,) = [m["data"] for m in slow.messages() if m["type"] == "gap"]
    heard = seqs(slow.messages())
    assert gap["dropped"] + len(heard) == 40
    assert not [seq for seq in heard if gap["from_seq"] <= seq <= gap["to_seq"]]


async def test_with_disconnect_a_full_queue_closes_with_4408(autojump_clock: MockClock, house: House) -> None:
    change(house, slow_consumer="disconnect")
    _, slow = house.join()
    slow.room = 0
    for _ in range(40):
        await house.publish(ADDED)
    slow.open()
    await wait_all_tasks_blocked()
    assert slow.close_code() == 4408
    assert "gap" not in slow.types()


async def test_what_is_counted_as_sent_is_what_came_and_what_waits_is_counted_whole(
    autojump_clock: MockClock, house: House
) -> None:
    (_, slow), (_, fast) = house.join(), house.join()
    connections = house.hub.connections
    slow.room = 10
    for _ in range(100):
        await house.publish(ADDED, Tick.LATENCY)
    waiting = sum(view.queue for view in await connections.views())
    assert await connections.queue_depth() == waiting > 0
    sent = connections.counters.messages["peer_change"]
    assert sent in {100, 101}  # one is half written
    slow.open()
    await wait_all_tasks_blocked()
    assert connections.counters.messages == Counter([*slow.types(), *fast.types()])
    assert connections.counters.messages["gap"] == 1
    assert connections.counters.bytes == len(slow.written) + len(fast.written)


@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("flying", [False, True])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_client_that_takes_64_kib_in_the_write_timeout_gets_also_a_message_of_1_mib(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, *, encrypted: bool, flying: bool, to_all: bool
) -> None:
    descriptors = Descriptors()
    monkeypatch.setattr(direct_writes, "os", descriptors)
    async with open_house(Flights(FakeSender(descriptors)) if flying else None) as house:
        socket = FakeSocket(descriptors, encrypted=encrypted)
        client, _ = house.join(transport=socket)
        began = len(socket.messages)
        payload = b'{"type":"state_change","fill":"%b"}' % (b"x" * 2**20)
        message = OutgoingMessage("state_change", Kind.EVENT, NOTHING, payload)
        socket.set_room(0)
        if to_all:
            await house.hub.publisher.publish([message])
        else:
            house.hub.connections.send(client, message)
        await wait_all_tasks_blocked()
        assert socket.kept <= BATCH_BYTES
        for _ in range(2**20 // 7_500 + 2):
            await trio.sleep(1)
            assert not socket.broken
            socket.set_room(7_500)
            await wait_all_tasks_blocked()
        assert [message["type"] for message in socket.messages[began:]] == ["state_change"]
        assert not client.behind


class Meanwhile(FakeSender):
    """A sender during whose flights something happens."""

    lost = False
    """After the next flight it is not known what the sockets have taken."""

    def __init__(self, descriptors: Descriptors) -> None:
        super().__init__(descriptors)
        self.happens: Callable[[], None] = lambda: None

    async def send(self, fds: Sequence[int], payloads: bytes | Sequence[bytes]) -> list[tuple[int, int]]:
        self.happens()
        if not self.lost:
            return await super().send(fds, payloads)
        self.lost = False
        await trio.lowlevel.checkpoint()
        return [(place, GONE) for place in range(len(fds))]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_nothing_follows_a_message_of_which_it_is_not_known_what_was_taken(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, *, encrypted: bool, ended: bool
) -> None:
    descriptors = Descriptors()
    monkeypatch.setattr(direct_writes, "os", descriptors)
    sender = Meanwhile(descriptors)
    async with open_house(Flights(sender)) as house:
        socket = FakeSocket(descriptors, encrypted=encrypted)
        client, _ = house.join(transport=socket)
        before = socket.frames
        sender.lost = True
        connections = house.hub.connections
        # Ended in the flight it has a close frame in its queue, that must not go either.
        sender.happens = (
            partial(connections.end, client, EXPIRED) if ended else partial(connections.pong, client, b"?")
        )
        await house.publish(ADDED)
        sender.happens = lambda: None
        await house.publish(ADDED)
        house.hub.connections.disconnect(client.id)
        await wait_all_tasks_blocked()
        assert socket.frames == before
        assert isinstance(client.reader, Reader)
        assert client.reader.hung_up


async def test_a_lost_client_that_is_ended_before_anybody_has_seen_to_it_is_hung_up(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    before = len(socket.written)
    client.lose()  # as a flight does with thousands, whom it sees to one after the other
    house.hub.connections.end(client, EXPIRED, send_waiting=True)
    assert isinstance(client.reader, Reader)
    assert client.reader.hung_up
    assert len(socket.written) == before


async def test_a_client_that_asks_much_during_a_flight_and_reads_gets_all_answers(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors = Descriptors()
    monkeypatch.setattr(direct_writes, "os", descriptors)
    sender = Meanwhile(descriptors)
    async with open_house(Flights(sender)) as house:
        change(house, send_buffer=2)
        socket = FakeSocket(descriptors)
        client, _ = house.join(transport=socket)

        def ask() -> None:
            for number in range(10):
                house.hub.sessions.execute(client, Ping(number, UNSET))
            house.hub.connections.pong(client, b"?")
            house.hub.connections.ping(client)

        sender.happens = ask
        await house.publish(ADDED)
        assert [message["id"] for message in socket.messages if message["type"] == "pong"] == list(range(10))
        assert client.close_reason is None


@pytest.mark.parametrize("asked", [UNSET, "mine"])
async def test_a_status_that_was_asked_for_comes_behind_the_answers_before_it_though_the_queue_was_full(
    autojump_clock: MockClock, house: House, asked: str | UnsetType
) -> None:
    change(house, send_buffer=3)
    client, slow = house.join()
    slow.room = 0
    await house.publish(ADDED)  # on its way already
    for command in (Subscribe(UNSET, TO_EVERYTHING), AskStatus(asked)):
        house.hub.sessions.execute(client, command)
    for _ in range(3):
        await house.publish(ADDED)
    slow.open()
    await wait_all_tasks_blocked()
    assert slow.types()[3:] == ["gap", "status", "subscribed", "status"]
    assert slow.messages()[-1].get("id", UNSET) == asked


async def test_an_interval_that_is_made_shorter_is_kept_though_nothing_else_happens(
    autojump_clock: MockClock, house: House
) -> None:
    def every(seconds: float) -> Subscription:
        return Subscription.parse({"latency": {"min_interval": seconds}})

    client, socket = house.join(subscription=every(3600.0))
    await house.publish(Tick.LATENCY, Tick.LATENCY)
    began = trio.current_time()
    house.hub.sessions.execute(client, Subscribe(UNSET, every(20.0)))
    await trio.sleep(19.5)
    assert socket.types().count("latency") == 1
    await trio.sleep(1.0)
    assert socket.types().count("latency") == 2
    assert trio.current_time() == pytest.approx(began + 20.5)


async def test_values_that_wait_conflate_and_metric_values_merge_by_name(
    autojump_clock: MockClock, house: House
) -> None:
    _, slow = house.join()
    slow.room = 0
    await house.publish(Tick.LATENCY)  # on its way already
    for number in range(5):
        await house.inbox.send(
            MetricValuesChanged(metrics={f"m{number % 3}": house.metric(f"m{number % 3}", number)})
        )
        await trio.sleep(0.2)
        await house.publish(Tick.STATUS)
    slow.open()
    await wait_all_tasks_blocked()
    assert slow.types() == ["status", "latency", "custom_metrics", "status_update"]
    values = slow.messages()[2]["data"]
    assert {name: view["value"] for name, view in values.items()} == {"m0": 3, "m1": 4, "m2": 2}


async def test_a_deletion_drops_the_values_of_its_metric_that_wait(
    autojump_clock: MockClock, house: House
) -> None:
    _, slow = house.join()
    slow.room = 0
    await house.publish(Tick.LATENCY)
    await house.inbox.send(
        MetricValuesChanged(metrics={"a": house.metric("a", 1), "b": house.metric("b", 2)})
    )
    await trio.sleep(0.2)
    await house.publish(Happened(MetricsDefined(metrics={"a": None})))
    slow.open()
    await wait_all_tasks_blocked()
    sent = [m["data"] for m in slow.messages() if m["type"] == "custom_metrics"]
    assert [sorted(data) for data in sent] == [["b"], ["a"]]
    assert sent[1] == {"a": None}


async def test_a_min_interval_keeps_values_apart_and_loses_none(
    autojump_clock: MockClock, house: House
) -> None:
    asked = Subscription.parse({"custom_metrics": {"min_interval": 1.0}, "latency": {"min_interval": 10}})
    _, paced = house.join(subscription=asked)
    for number in range(10):
        await house.inbox.send(
            MetricValuesChanged(metrics={f"m{number}": house.metric(f"m{number}", number)})
        )
        await trio.sleep(0.25)
        await house.publish(Tick.LATENCY)
    await trio.sleep(2)
    sent = [m for m in paced.messages() if m["type"] == "custom_metrics"]
    assert 3 <= len(sent) <= 4
    assert {name for message in sent for name in message["data"]} == {f"m{number}" for number in range(10)}
    assert len([m for m in paced.messages() if m["type"] == "latency"]) == 1


async def test_a_client_that_asks_too_often_gets_errors_and_is_then_closed(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    for _ in range(40):
        house.hub.sessions.execute(client, Ping(UNSET, UNSET))
    assert socket.types().count("pong") == 40
    house.hub.sessions.execute(client, Ping(UNSET, UNSET))
    error = socket.messages()[-1]
    assert (error["type"], error["data"]["code"]) == ("error", "rate_limited")
    await trio.sleep(0.5)  # ten more at twenty a second
    for _ in range(10):
        house.hub.sessions.execute(client, Ping(UNSET, UNSET))
    assert socket.types().count("pong") == 50
    for _ in range(MAX_REFUSED_IN_A_ROW):
        house.hub.sessions.execute(client, Ping(UNSET, UNSET))
    assert socket.close_code() == 4429


async def test_a_client_that_floods_while_an_event_is_sent_is_closed_before_its_commands_pile_up(
    autojump_clock: MockClock, house: House
) -> None:
    (client, socket), *_ = [house.join() for _ in range(200)]
    await house.begin_to_publish(ADDED)
    everything = Subscribe(UNSET, TO_EVERYTHING)
    allowed_and_refused = house.settings.current.websocket.messages_burst + MAX_REFUSED_IN_A_ROW
    for _ in range(allowed_and_refused - 1):
        house.hub.sessions.execute(client, everything)
    assert client.close_reason is None
    house.hub.sessions.execute(client, everything)
    assert house.hub.publisher.publishing
    assert client.close_reason is TOO_MANY_MESSAGES
    await wait_all_tasks_blocked()
    assert socket.close_code() == 4429


async def test_a_refusal_keeps_its_place_behind_commands_that_wait_for_the_end_of_an_event(
    autojump_clock: MockClock, house: House
) -> None:
    (client, socket), *_ = [house.join() for _ in range(200)]
    await house.begin_to_publish(ADDED)
    for number in range(41):
        house.hub.sessions.execute(client, AskStatus(number))
    assert house.hub.publisher.publishing
    await wait_all_tasks_blocked()
    answers = [(m["type"], m["id"]) for m in socket.messages() if "id" in m]
    assert answers == [*(("status", number) for number in range(40)), ("error", 40)]


async def test_the_memory_of_a_client_that_never_reads_is_bounded(
    autojump_clock: MockClock, house: House
) -> None:
    change(house, send_buffer=256, write_timeout=1000.0)
    client, slow = house.join()
    slow.room = 0
    for _ in range(3000):
        await house.inbox.send(ADDED)
        await house.inbox.send(Tick.STATUS)
    await wait_all_tasks_blocked()
    assert client.send_queue.size <= 1024 * 1024 + 1024
    assert len(client.send_queue) <= 258


async def test_an_answer_finds_its_way_through_a_queue_full_of_events(
    autojump_clock: MockClock, house: House
) -> None:
    client, slow = house.join()
    slow.room = 0
    await house.publish(Tick.LATENCY)
    while len(client.send_queue) < 16:
        await house.publish(ADDED)
    house.hub.sessions.execute(client, Ping("p", UNSET))
    slow.open()
    await house.publish(ADDED)
    assert slow.close_code() is None
    types = slow.types()
    assert types.index("gap") < types.index("status", 1) < types.index("pong")
    (gap,) = [m["data"] for m in slow.messages() if m["type"] == "gap"]
    heard = seqs(slow.messages())
    assert heard[-1] == gap["to_seq"] + 1


async def test_a_client_that_only_asks_and_never_reads_is_closed(
    autojump_clock: MockClock, house: House
) -> None:
    change(house, messages_burst=10_000)
    client, slow = house.join()
    slow.room = 0
    await house.publish(Tick.LATENCY)
    for _ in range(20):
        house.hub.sessions.execute(client, Ping(UNSET, UNSET))
    assert client.close_reason is not None
    assert client.close_reason.code == 4408


async def test_numbers_of_two_epochs_never_meet_in_one_gap(autojump_clock: MockClock, house: House) -> None:
    _, slow = house.join()
    slow.room = 0
    for _ in range(8):
        await house.publish(ADDED)
    house.disk.full = True
    for _ in range(40):
        await house.publish(ADDED)
    slow.open()
    await house.publish(ADDED)
    messages = slow.messages()
    (welcome,) = [m for m in messages if m["type"] == "welcome"]
    assert seqs(messages[: messages.index(welcome)]) == [1]
    (gap,) = [m["data"] for m in messages if m["type"] == "gap"]
    assert gap["from_seq"] == 1
    assert gap["dropped"] == gap["to_seq"]
    assert seqs(messages[messages.index(welcome) :])[0] == gap["to_seq"] + 1


async def test_a_subscription_that_changes_during_a_fan_out_neither_misses_nor_doubles_a_message(
    autojump_clock: MockClock, house: House
) -> None:
    everything, narrowed = Subscription(), Subscription.parse({"peer_changes": {"peers": ["node-*"]}})
    crowd = [house.join(subscription=(everything, narrowed)[number % 2]) for number in range(300)]
    await house.begin_to_publish(ADDED)
    for number, (client, _) in enumerate(crowd):
        house.hub.sessions.execute(client, Subscribe(UNSET, (narrowed, everything)[number % 2]))
    await wait_all_tasks_blocked()
    await house.publish(ADDED)
    assert {tuple(seqs(socket.messages())) for _, socket in crowd} == {(1, 2)}
