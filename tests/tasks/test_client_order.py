"""What may follow what for one client (docs/protocol.md, "Order"): cases, one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from msgspec import UNSET
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.hub.client import HubClient
from heliosd.hub.inbox import Tick
from heliosd.protocol.client_commands import AskStatus, Authenticate, Ping, Subscribe
from heliosd.protocol.close_codes import TOO_SLOW
from heliosd.protocol.events import Happened, LogReset, MetricsDefined, MetricValuesChanged
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import NOTHING, Subscription, Topic
from tests.support.hub_harness import ADDED, ELECTED, House, Socket, now, open_house
from tests.support.logged_events import logged

ONLY_A = Subscription.parse({"custom_metrics": {"names": ["a*"]}})
SLOW_VALUES = Subscription.parse({"custom_metrics": {"min_interval": 60}, "peer_changes": True})


@pytest.fixture(name="house")
async def hub_harness() -> AsyncIterator[House]:
    async with open_house() as opened:
        change(opened, send_buffer=8)
        yield opened


def change(house: House, **values: Any) -> None:
    config = house.settings.current
    house.settings.replace(replace(config, websocket=replace(config.websocket, **values)))


async def set_metric(house: House, name: str, value: float) -> None:
    """Change a value, and wait until the hub has sent it to all clients that want it at once."""
    await house.publish(MetricValuesChanged(metrics={name: house.metric(name, value)}))
    await trio.sleep(0.2)


def joined_expiring(house: House, **options: Any) -> tuple[HubClient, Socket]:
    """A client whose token ends in 3 s."""
    return house.join(identity=house.access.issue("admin", now().wall, 3).identity, **options)


def present_token(house: House, client: HubClient) -> None:
    house.hub.sessions.execute(client, Authenticate("a", house.access.issue("admin", now().wall, 3600).token))


def order(socket: Socket) -> list[object]:
    """The number of each event, and the type of everything else but the updates."""
    return [
        m.get("seq", m["type"]) for m in socket.messages() if m["type"] not in {"status_update", "uptime"}
    ]


def of_type(socket: Socket, name: str) -> list[dict[str, Any]]:
    return [message for message in socket.messages() if message["type"] == name]


async def test_a_value_that_waits_under_an_old_subscription_does_not_come_back_after_a_status(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    socket.room = 0
    await house.publish(Tick.LATENCY)
    await set_metric(house, "b", 1)
    house.hub.sessions.execute(client, Subscribe(UNSET, ONLY_A))
    await house.publish(Happened(MetricsDefined(metrics={"b": None})))
    house.hub.sessions.execute(client, Subscribe(UNSET, Subscription()))
    house.hub.sessions.execute(client, AskStatus(1))
    await set_metric(house, "a", 1)
    socket.open()
    await wait_all_tasks_blocked()
    assert [sorted(m["data"]) for m in of_type(socket, "custom_metrics")] == [["a"]]


async def test_a_status_follows_all_events_that_it_contains_also_for_a_client_with_min_intervals(
    autojump_clock: MockClock, house: House
) -> None:
    _, socket = house.join(subscription=SLOW_VALUES)
    socket.room = 0
    for _ in range(30):
        house.inbox.send_nowait(ADDED)
    await wait_all_tasks_blocked()
    socket.open()
    await house.publish(ADDED)
    (gap,) = of_type(socket, "gap")
    status = of_type(socket, "status")[-1]
    at = order(socket).index("gap")
    assert order(socket)[at + 1] == "status"
    assert status["data"]["as_of_seq"] == gap["data"]["to_seq"] == 30
    assert order(socket)[at + 2 :] == [31]


async def test_a_status_never_contains_events_that_a_paused_broadcast_has_still_to_deliver(
    autojump_clock: MockClock, house: House
) -> None:
    change(house, send_buffer=256)
    (client, socket), *_ = [house.join() for _ in range(200)]
    client.send_buffer = 4
    socket.room = 0
    await house.publish(Tick.LATENCY)
    while len(client.send_queue) < 4:
        await house.publish(ADDED)
    await house.begin_to_publish(ELECTED)
    house.hub.sessions.execute(client, Ping("p", UNSET))
    await wait_all_tasks_blocked()
    socket.open()
    await wait_all_tasks_blocked()
    newest = 0
    for message in socket.messages():
        if message["type"] == "gap":
            newest = message["data"]["to_seq"]
        elif message["type"] == "status":
            newest = message["data"]["as_of_seq"]
        elif "seq" in message:
            assert message["seq"] == newest + 1
            newest += 1
    assert newest == house.hub.log.history.seq
    assert of_type(socket, "pong")[0]["id"] == "p"


async def test_a_newer_tokens_answer_comes_before_what_was_held(
    autojump_clock: MockClock, house: House
) -> None:
    change(house, send_buffer=64)
    client, socket = joined_expiring(house)
    socket.room = 0
    await house.publish(Tick.LATENCY)
    await trio.sleep(4)
    await house.publish(ADDED, ADDED)
    present_token(house, client)
    socket.open()
    await wait_all_tasks_blocked()
    assert order(socket)[-3:] == ["authenticated", 1, 2]


async def test_a_held_client_that_subscribes_gets_nothing_of_the_old_subscription(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = joined_expiring(house)
    await trio.sleep(4)
    await house.publish(ADDED, ELECTED)
    house.hub.sessions.execute(client, Subscribe(UNSET, Subscription(Topic.STATE_CHANGES)))
    present_token(house, client)
    await house.publish(ADDED, ELECTED)
    assert order(socket)[-4:] == ["subscribed", "authenticated", 2, 4]


async def test_events_of_a_gap_that_meets_a_new_epoch_are_counted_once(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    socket.room = 0
    await house.publish(Tick.LATENCY, *[ADDED] * 20)
    house.disk.full = True
    await house.publish(ADDED)
    socket.open()
    await wait_all_tasks_blocked()
    sent = [m["seq"] for m in socket.messages() if "seq" in m]
    assert sent == [1]
    assert client.dropped == sum(house.hub.connections.counters.dropped.values()) == 20


async def test_what_a_closed_client_and_a_discarded_replay_lose_is_counted(
    autojump_clock: MockClock, house: House
) -> None:
    await house.publish(*[ADDED] * 5)
    dropped = house.hub.connections.counters.dropped
    client, socket = house.join()
    socket.room = 0
    await house.publish(Tick.LATENCY, ADDED, ADDED)
    house.hub.connections.disconnect(client.id)
    assert dropped == {"closed": 2}
    resumed = joined_stream(house, Cursor(house.hub.log.history.epoch, 0))
    house.disk.full = True
    await house.publish(ADDED)
    assert (resumed.dropped, dropped["epoch_changed"]) == (7, 7)


def joined_stream(house: House, cursor: Cursor) -> HubClient:
    """An event stream's client whose reader takes nothing."""
    client = HubClient(
        serial=99,
        id="stream",
        identity=house.identity("stream"),
        address="127.0.0.1:1",
        since=0.0,
        transport=Socket(),
        send_buffer=8,
        stream_kind="sse",
    )
    client.waker = lambda: None
    house.hub.sessions.join(client, cursor)
    return client


async def test_subscribing_again_does_not_shorten_a_min_interval(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join(subscription=SLOW_VALUES)
    for value in range(1, 4):
        house.hub.sessions.execute(client, Subscribe(UNSET, SLOW_VALUES))
        await set_metric(house, "a", value)
    assert [m["data"]["a"]["value"] for m in of_type(socket, "custom_metrics")] == [1]
    await trio.sleep(61)
    assert [m["data"]["a"]["value"] for m in of_type(socket, "custom_metrics")] == [1, 3]


async def test_a_status_ends_the_waiting_only_of_values_that_it_contains(
    autojump_clock: MockClock, house: House
) -> None:
    seldom = {"min_interval": 60}
    wanted = {"uptime": seldom, "latency": seldom, "status": seldom, "custom_metrics": seldom}
    client, socket = house.join(subscription=Subscription.parse(wanted))
    for value in range(2):
        await house.publish(Tick.UPTIME, Tick.LATENCY, Tick.STATUS)
        await set_metric(house, "a", value)
    house.hub.sessions.execute(client, AskStatus("s"))
    before = len(socket.messages())
    await trio.sleep(120)
    assert sorted(socket.types()[before:]) == ["latency", "uptime"]


async def test_every_answer_repeats_the_id_of_its_question(autojump_clock: MockClock, house: House) -> None:
    client, socket = house.join()
    for number in range(41):
        house.hub.sessions.execute(client, Ping(number, UNSET))
    (error,) = of_type(socket, "error")
    assert (error["data"]["code"], error["id"]) == ("rate_limited", 40)


async def test_a_status_that_was_asked_for_is_answered_also_by_a_queue_that_overflows(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    socket.room = 0
    await house.publish(Tick.LATENCY)
    while len(client.send_queue) < 8:
        await house.publish(ADDED)
    house.hub.sessions.execute(client, AskStatus(7))
    house.hub.sessions.execute(client, Ping(8, UNSET))
    await house.publish(*[ADDED] * 9)
    socket.open()
    await wait_all_tasks_blocked()
    ids = [m["id"] for m in socket.messages() if "id" in m]
    assert ids == [7, 8]


async def test_a_client_that_asks_for_statuses_and_does_not_read_is_too_slow_once_they_fill_its_queue(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    socket.room = 0
    await house.publish(*[ADDED] * 9)
    for number in range(3 * house.settings.current.websocket.send_buffer):
        house.hub.sessions.execute(client, AskStatus(number))
        await trio.sleep(0.1)
    assert client.close_reason == TOO_SLOW


async def test_answers_keep_the_order_of_their_questions_during_a_broadcast(
    autojump_clock: MockClock, house: House
) -> None:
    (client, socket), *_ = [house.join() for _ in range(200)]
    await house.begin_to_publish(ADDED)
    house.hub.sessions.execute(client, AskStatus(1))
    house.hub.sessions.execute(client, Ping(2, UNSET))
    house.hub.sessions.execute(client, Subscribe(3, ONLY_A))
    house.hub.sessions.execute(client, Ping(4, UNSET))
    await wait_all_tasks_blocked()
    assert [m["id"] for m in socket.messages() if "id" in m] == [1, 2, 3, 4]


async def test_a_metrics_values_of_before_a_status_do_not_follow_it(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join(subscription=SLOW_VALUES)
    await set_metric(house, "a", 1)
    await set_metric(house, "a", 2)
    house.hub.sessions.execute(client, AskStatus(UNSET))
    await trio.sleep(61)
    assert [m["data"]["a"]["value"] for m in of_type(socket, "custom_metrics")] == [1]


# -- events that the cluster lost -------------------------------------------------------------------------------


async def test_events_that_were_lost_in_the_cluster_are_named_in_their_place_for_a_held_client(
    autojump_clock: MockClock,
) -> None:
    async with open_house(of_cluster=True) as house:
        await house.publish(LogReset(epoch="E", seq=4))
        client, socket = joined_expiring(house)
        await trio.sleep(4)
        await house.publish(logged(5), LogReset(epoch="E", seq=9, kept=(logged(8), logged(9)), lost=(6, 7)))
        assert "gap" not in socket.types()
        present_token(house, client)
        await wait_all_tasks_blocked()
        assert order(socket)[-6:] == ["authenticated", 5, "gap", "status", 8, 9]
        assert client.dropped == house.hub.connections.counters.dropped["too_old"] == 2


async def test_a_gap_of_a_full_queue_takes_in_the_one_that_waits_for_lost_events(
    autojump_clock: MockClock,
) -> None:
    async with open_house(of_cluster=True) as house:
        change(house, send_buffer=8)
        await house.publish(LogReset(epoch="E", seq=0))
        _, socket = house.join()
        socket.room = 0
        await house.publish(logged(1), logged(2), LogReset(epoch="E", seq=4, lost=(3, 4)))
        for seq in range(5, 20):
            await house.publish(logged(seq))
        socket.open()
        await house.publish(logged(20))
        (gap,) = of_type(socket, "gap")
        first, last = gap["data"]["from_seq"], gap["data"]["to_seq"]
        assert first <= 3 < last
        assert gap["data"]["dropped"] == last - first + 1
        assert order(socket) == ["status", *range(1, first), "gap", "status", *range(last + 1, 21)]


async def test_a_client_that_wants_no_events_gets_no_gap_for_lost_ones(autojump_clock: MockClock) -> None:
    async with open_house(of_cluster=True) as house:
        await house.publish(LogReset(epoch="E", seq=4))
        _, values = house.join(subscription=Subscription(Topic.LATENCY))
        _, silent = house.join(subscription=Subscription(NOTHING))
        await house.publish(LogReset(epoch="E", seq=9, lost=(5, 9)))
        assert order(values) == order(silent) == ["status"]
