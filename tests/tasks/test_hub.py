"""The hub: who is connected, and who gets what, on a clock that jumps."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import trio
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.hub import publisher
from heliosd.hub.connections import PING_GROUPS
from heliosd.hub.inbox import Tick
from heliosd.protocol import filters
from heliosd.protocol.client_commands import AskStatus, BadCommand, Ping, Subscribe
from heliosd.protocol.close_codes import GOING_AWAY, SILENT
from heliosd.protocol.events import Happened, MetricsDefined, MetricValuesChanged, StateComplete
from heliosd.protocol.subscription import NOTHING, Subscription, Topic
from tests.support.hub_harness import ADDED, ELECTED, House, Reader, Socket, open_house


@pytest.fixture(name="house")
async def hub_harness() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


# -- lifecycle, registration ------------------------------------------------------------------------------------


async def test_a_client_that_joins_is_counted_and_gets_status_first(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    assert house.hub.connections.count() == 1
    assert [view.id for view in await house.hub.connections.views()] == [client.id]
    assert socket.types() == ["status"]


async def test_clients_that_join_together_share_a_status_until_something_is_sent(
    autojump_clock: MockClock, house: House
) -> None:
    first, second = house.join()[1], house.join()[1]
    assert second.frames[0] is first.frames[0]
    await house.publish(Tick.LATENCY)
    third = house.join()[1]
    assert third.frames[0] is not first.frames[0]  # its status says what it did not get


async def test_a_status_has_the_metrics_that_the_subscription_lets_through(
    autojump_clock: MockClock, house: House
) -> None:
    for name in ("a", "b"):
        await house.publish(Happened(MetricsDefined(metrics={name: house.metric(name, 1)})))
    for said, names in (
        ({"custom_metrics": True}, ["a", "b"]),
        ({"custom_metrics": {"min_interval": 5}}, ["a", "b"]),
        ({"state_changes": True}, []),
        ({"custom_metrics": {"names": ["a*"]}}, ["a"]),
        ({"custom_metrics": {"labels": {"env": "prod"}}}, []),
    ):
        client, socket = house.join(subscription=Subscription.parse(said))
        house.hub.sessions.execute(client, AskStatus("s"))
        house.hub.sessions.execute(client, Subscribe(UNSET, Subscription()))
        house.hub.sessions.execute(client, AskStatus("all"))
        statuses = [message["data"] for message in socket.messages() if message["type"] == "status"]
        assert [list(data["custom_metrics"]) for data in statuses] == [names, names, ["a", "b"]]


async def test_clients_with_equal_metric_filters_that_join_together_share_a_status(
    autojump_clock: MockClock, house: House
) -> None:
    filters_of_metrics = [Subscription.parse({"custom_metrics": {"names": [name]}}) for name in "aab"]
    one, other, third = (house.join(subscription=wanted)[1] for wanted in filters_of_metrics)
    assert other.frames[0] is one.frames[0]
    assert third.frames[0] is not one.frames[0]


@pytest.mark.parametrize("client_id", [UNSET, 7])
async def test_a_question_is_answered_as_of_now_however_new_the_status_of_those_who_join_is(
    autojump_clock: MockClock, house: House, client_id: int | UnsetType
) -> None:
    client, socket = house.join()
    house.inbox.status.metrics["a"] = house.metric("a", 1)  # written, and the hub has not heard of it yet
    house.hub.sessions.execute(client, AskStatus(client_id))
    assert [list(message["data"]["custom_metrics"]) for message in socket.messages()] == [[], ["a"]]
    _, later = house.join()
    assert list(later.messages()[0]["data"]["custom_metrics"]) == ["a"]


async def test_once_the_state_is_complete_every_client_gets_it_after_the_events_before(
    autojump_clock: MockClock, house: House
) -> None:
    (_, one), (_, other) = house.join(), house.join()
    await house.publish(ADDED, StateComplete())
    assert one.types() == other.types() == ["status", "peer_change", "status_update", "status"]
    assert one.messages()[-1]["data"]["as_of_seq"] == 1


async def test_a_client_that_leaves_gets_nothing_more(autojump_clock: MockClock, house: House) -> None:
    client, socket = house.join()
    house.hub.sessions.leave(client)
    await house.publish(ELECTED)
    assert house.hub.connections.count() == 0
    assert socket.types() == ["status"]
    house.hub.sessions.leave(client)  # twice is once


async def test_a_client_that_joins_during_a_fan_out_gets_each_event_once(
    autojump_clock: MockClock, house: House
) -> None:
    for _ in range(200):
        house.join()
    await house.begin_to_publish(ELECTED)
    _, socket = house.join()
    assert socket.types() == []  # not in the middle of a message
    await wait_all_tasks_blocked()
    await house.publish(ADDED)
    first, *rest = socket.messages()
    assert first["type"] == "status"
    assert first["data"]["as_of_seq"] == 1
    assert [message["seq"] for message in rest if "seq" in message] == [2]


async def test_a_client_that_fills_its_socket_before_it_has_joined_gets_its_status_behind_that(
    autojump_clock: MockClock, house: House
) -> None:
    for _ in range(200):
        house.join()
    await house.begin_to_publish(ELECTED)
    client, socket = house.join()
    socket.room = 0
    house.hub.connections.pong(client, b"early")
    await wait_all_tasks_blocked()
    await house.publish(ADDED)
    socket.open()
    await wait_all_tasks_blocked()
    assert socket.pongs == [b"early"]
    assert socket.types() == ["status", "peer_change", "status_update"]


async def test_an_event_does_not_wait_until_nobody_joins_or_asks_any_more(
    autojump_clock: MockClock, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "BOUNDARY_SECONDS", 0.0)
    sockets = [house.join()[1] for _ in range(200)]
    await house.begin_to_publish(ELECTED)
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        if asked < 5000:
            house.hub.publisher.at_boundary(ask)

    house.hub.publisher.at_boundary(ask)
    await house.inbox.send(ADDED)
    while "peer_change" not in sockets[-1].types():
        await trio.lowlevel.checkpoint()
    assert asked < 5000
    client, _ = house.join()
    house.hub.sessions.execute(client, AskStatus(1))
    await wait_all_tasks_blocked()
    assert asked == 5000
    assert not house.hub.publisher.publishing
    assert client.sent == 2


async def test_a_client_that_leaves_before_its_deferred_joining_is_never_registered(
    autojump_clock: MockClock, house: House
) -> None:
    for _ in range(200):
        house.join()
    await house.begin_to_publish(ELECTED)
    client, socket = house.join()
    house.hub.sessions.leave(client)
    await wait_all_tasks_blocked()
    assert socket.types() == []
    assert client.id not in {view.id for view in await house.hub.connections.views()}


# -- broadcasting -----------------------------------------------------------------------------------------------


async def test_every_client_hears_every_event_in_one_order_with_rising_seq(
    autojump_clock: MockClock, house: House
) -> None:
    sockets = [house.join()[1] for _ in range(130)]
    for _ in range(3):
        await house.inbox.send(ELECTED)
        await house.inbox.send(ADDED)
    await wait_all_tasks_blocked()
    for socket in sockets:
        events = [(m["type"], m["seq"]) for m in socket.messages() if "seq" in m]
        assert events == [("state_change", 1), ("peer_change", 2), ("state_change", 3), ("peer_change", 4),
                          ("state_change", 5), ("peer_change", 6)]  # fmt: skip


async def test_a_state_change_brings_a_fresh_status_and_uptime_at_once(
    autojump_clock: MockClock, house: House
) -> None:
    _, socket = house.join()
    await house.publish(ELECTED)
    assert socket.types() == ["status", "state_change", "status_update", "uptime"]


async def test_a_peer_change_brings_a_fresh_status_at_once(autojump_clock: MockClock, house: House) -> None:
    _, socket = house.join()
    await house.publish(ADDED)
    assert socket.types() == ["status", "peer_change", "status_update"]


async def test_each_beat_tells_its_value(autojump_clock: MockClock, house: House) -> None:
    _, socket = house.join()
    await house.publish(Tick.STATUS, Tick.LATENCY, Tick.UPTIME, Tick.WATCHDOG)
    assert socket.types() == ["status", "status_update", "latency", "uptime"]


async def test_one_frame_is_shared_by_all_clients(autojump_clock: MockClock, house: House) -> None:
    sockets = [house.join()[1] for _ in range(3)]
    await house.publish(Tick.LATENCY)
    assert len({id(socket.frames[-1]) for socket in sockets}) == 1


async def test_metric_values_are_gathered_into_one_message(autojump_clock: MockClock, house: House) -> None:
    _, socket = house.join()
    for value in range(10):
        await house.inbox.send(MetricValuesChanged(metrics={"a": house.metric("a", value)}))
    await house.inbox.send(MetricValuesChanged(metrics={"b": house.metric("b", 7)}))
    await wait_all_tasks_blocked()
    assert socket.types() == ["status"]
    await trio.sleep(0.11)
    (message,) = socket.messages()[1:]
    assert message["type"] == "custom_metrics"
    assert {name: view["value"] for name, view in message["data"].items()} == {"a": 9, "b": 7}
    assert "seq" not in message


async def test_no_value_of_a_metric_follows_its_deletion(autojump_clock: MockClock, house: House) -> None:
    _, socket = house.join()
    await house.inbox.send(MetricValuesChanged(metrics={"a": house.metric("a", 1)}))
    await house.inbox.send(Happened(MetricsDefined(metrics={"a": None})))
    await trio.sleep(0.2)
    (message,) = socket.messages()[1:]
    assert (message["data"], message["seq"]) == ({"a": None}, 1)


# -- subscription, ping and pong ---------------------------------------------------------------------------------


async def test_a_subscription_filters_what_follows(autojump_clock: MockClock, house: House) -> None:
    client, socket = house.join()
    house.hub.sessions.execute(client, Subscribe("s1", Subscription(Topic.PEER_CHANGES)))
    await house.publish(ELECTED, ADDED, Tick.STATUS)
    _, answer, *rest = socket.messages()
    assert (answer["type"], answer["id"]) == ("subscribed", "s1")
    assert answer["data"]["active"]["peer_changes"] is True
    assert answer["data"]["active"]["status"] is False
    assert [message["type"] for message in rest] == ["peer_change"]


async def test_however_many_globs_are_in_force_none_is_compiled_twice_and_others_run_between_them(
    autojump_clock: MockClock, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Subscription.parse({"peer_changes": {"peers": [f"other-{number}-*"]}}) for number in range(600)]
    sockets = [house.join(subscription=subscription)[1] for subscription in wanted]
    await house.publish(ADDED)
    monkeypatch.delattr(filters, "translate")
    await house.begin_to_publish(ADDED)
    turns = 0
    while house.hub.publisher.publishing:
        await trio.lowlevel.checkpoint()
        turns += 1
    assert turns > len(wanted) / 2
    assert {tuple(socket.types()) for socket in sockets} == {("status",)}


async def test_unsubscribe_silences_all_but_answers(autojump_clock: MockClock, house: House) -> None:
    client, socket = house.join()
    house.hub.sessions.execute(client, Subscribe(UNSET, Subscription(NOTHING)))
    await house.publish(ELECTED, ADDED, Tick.STATUS, Tick.LATENCY, Tick.UPTIME)
    house.hub.sessions.execute(client, AskStatus(5))
    assert socket.types() == ["status", "subscribed", "status"]
    assert socket.messages()[-1]["id"] == 5


async def test_a_ping_is_answered_with_its_data_and_id(autojump_clock: MockClock, house: House) -> None:
    client, socket = house.join()
    house.hub.sessions.execute(client, Ping(9, UNSET))
    pong = socket.messages()[-1]
    assert (pong["type"], pong["id"], "data" in pong) == ("pong", 9, False)


async def test_a_message_that_cannot_be_served_gets_an_error_and_changes_nothing(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    house.hub.sessions.execute(client, BadCommand("no such", "bad_field", field="data.x", client_id="q"))
    error = socket.messages()[-1]
    assert (error["type"], error["id"]) == ("error", "q")
    assert error["data"] == {"error": "no such", "code": "bad_field", "field": "data.x"}
    await house.publish(ADDED)
    assert "peer_change" in socket.types()


async def test_every_client_is_pinged_once_an_interval_and_not_all_at_once(
    autojump_clock: MockClock, house: House
) -> None:
    sockets = [house.join()[1] for _ in range(128)]
    house.nursery.start_soon(house.hub.connections.ping_all)
    interval = house.settings.current.websocket.ping_interval
    most_at_once = 0
    await trio.sleep(0.1)  # between the hub's own wakings, not beside them
    for _ in range(PING_GROUPS):
        before = sum(socket.pings for socket in sockets)
        await trio.sleep(interval / PING_GROUPS)
        most_at_once = max(most_at_once, sum(socket.pings for socket in sockets) - before)
    assert [socket.pings for socket in sockets] == [1] * 128
    assert most_at_once <= 128 / PING_GROUPS


async def test_a_shorter_interval_of_pings_holds_for_the_present_wait_as_well(
    autojump_clock: MockClock, house: House
) -> None:
    _, socket = house.join()
    set_ping_interval(house, 86_400.0)
    house.nursery.start_soon(house.hub.connections.ping_all)
    await trio.sleep(60)
    assert socket.pings == 0
    set_ping_interval(house, 20.0)
    await trio.sleep(19)
    assert socket.pings == 1


def set_ping_interval(house: House, seconds: float) -> None:
    config = house.settings.current
    websocket = replace(config.websocket, ping_interval=seconds)
    house.settings.replace(replace(config, websocket=websocket))


# -- clients that are behind -------------------------------------------------------------------------------------


async def test_a_blocked_client_gets_everything_in_order_once_it_reads(
    autojump_clock: MockClock, house: House
) -> None:
    slow, fast = house.join(), house.join()
    slow[1].room = 10
    await house.publish(ELECTED, ADDED)
    assert [m["seq"] for m in fast[1].messages() if "seq" in m] == [1, 2]
    assert slow[0].behind
    slow[1].open()
    await wait_all_tasks_blocked()
    assert [m["seq"] for m in slow[1].messages() if "seq" in m] == [1, 2]
    assert slow[1].messages()[-1] == fast[1].messages()[-1]
    assert not slow[0].behind


async def test_while_a_client_is_behind_a_newer_value_replaces_the_one_that_waits(
    autojump_clock: MockClock, house: House
) -> None:
    _, socket = house.join()
    socket.room = 0
    for _ in range(5):
        await house.publish(Tick.LATENCY)
    await house.publish(ADDED)
    socket.open()
    await wait_all_tasks_blocked()
    # The first is on its way already when the second comes; the others replace each other.
    assert socket.types() == ["status", "latency", "latency", "peer_change", "status_update"]


async def test_a_client_whose_queue_is_full_is_closed_with_4408_and_no_other_is(
    autojump_clock: MockClock, house: House
) -> None:
    house.settings.current = replace(
        house.settings.current,
        websocket=replace(house.settings.current.websocket, send_buffer=8, slow_consumer="disconnect"),
    )
    (slow, slow_socket), (_, fast_socket) = house.join(), house.join()
    slow_socket.room = 0
    await house.publish(*[ADDED] * 20)
    slow_socket.open()
    await wait_all_tasks_blocked()
    assert slow_socket.close_code() == 4408
    assert slow.dropped > 0
    assert house.hub.connections.counters.dropped["slow"] == slow.dropped
    assert [m["seq"] for m in fast_socket.messages() if "seq" in m] == list(range(1, 21))


async def test_a_client_that_takes_nothing_for_the_write_timeout_is_cut(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    socket.room = 0
    await house.publish(ELECTED)
    await trio.sleep(9.9)
    assert not socket.aborted
    await trio.sleep(0.2)
    assert socket.aborted
    assert client.reader == Reader(hung_up=True)


async def test_a_trickle_does_not_evade_the_cut(autojump_clock: MockClock, house: House) -> None:
    _, socket = house.join()
    socket.room = 0
    for _ in range(200):
        await house.inbox.send(ADDED)
    for _ in range(12):
        await trio.sleep(1)
        socket.take_one_byte()
    assert socket.aborted


async def test_a_connection_that_is_gone_ends_its_client_only(
    autojump_clock: MockClock, house: House
) -> None:
    (gone, gone_socket), (_, other) = house.join(), house.join()
    gone_socket.broken = True
    await house.publish(ADDED)
    assert gone.reader == Reader(hung_up=True)
    assert other.types() == ["status", "peer_change", "status_update"]


async def test_of_many_protocol_pings_that_wait_only_the_newest_is_answered(
    autojump_clock: MockClock, house: House
) -> None:
    client, socket = house.join()
    socket.room = 0
    await house.publish(Tick.LATENCY)
    for number in range(10_000):
        house.hub.connections.pong(client, b"%d" % number)
    assert len(client.send_queue) <= 2
    socket.open()
    await wait_all_tasks_blocked()
    assert socket.pongs[-1] == b"9999"


# -- endings -----------------------------------------------------------------------------------------------------


async def test_a_close_frame_follows_the_last_event(autojump_clock: MockClock, house: House) -> None:
    _, ready = house.join()
    _, behind = house.join()
    behind.room = 0
    await house.publish(ADDED)
    house.hub.connections.end_all(GOING_AWAY)
    await house.publish(ADDED)
    behind.open()
    await wait_all_tasks_blocked()
    for socket in (ready, behind):
        assert socket.types() == ["status", "peer_change", "status_update"]
        assert socket.close_code() == 1001
        assert socket.closed_last


async def test_once_the_close_frame_is_on_the_wire_the_client_may_answer_it(
    autojump_clock: MockClock, house: House
) -> None:
    client, _ = house.join()
    house.hub.connections.end(client, SILENT)
    assert client.reader == Reader(lingers=True)


async def test_an_admin_disconnects_one_client_by_its_id(autojump_clock: MockClock, house: House) -> None:
    (client, socket), (_, other) = house.join(), house.join()
    assert house.hub.connections.disconnect(client.id)
    assert not house.hub.connections.disconnect("no-such")
    assert (socket.close_code(), other.close_code()) == (4000, None)


async def test_a_revoked_token_closes_every_connection_that_stands_on_it(
    autojump_clock: MockClock, house: House
) -> None:
    (_, first), (_, second), (_, other) = house.join(jti="t1"), house.join(jti="t1"), house.join(jti="t2")
    house.hub.connections.token_revoked("t1")
    assert [socket.close_code() for socket in (first, second, other)] == [4401, 4401, None]


async def test_wait_empty_returns_when_the_last_client_has_left(
    autojump_clock: MockClock, house: House
) -> None:
    client, _ = house.join()
    with trio.move_on_after(1) as patience:
        await house.hub.connections.wait_empty()
    assert patience.cancelled_caught
    house.hub.sessions.leave(client)
    await house.hub.connections.wait_empty()


def test_a_socket_of_the_tests_reads_back_what_a_client_would() -> None:
    socket = Socket()
    socket.write_now(b'\x81\x0f{"type":"pong"}\x89\x00')
    assert (socket.types(), socket.pings) == (["pong"], 1)
    assert json.dumps(socket.messages()) == '[{"type": "pong"}]'


async def test_the_hub_has_caught_up_only_when_everything_is_sent(
    autojump_clock: MockClock, house: House
) -> None:
    _, socket = house.join()
    for _ in range(70):
        house.inbox.send_nowait(ADDED)
    assert house.inbox.numbering is not None
    await house.inbox.numbering.caught_up()
    await house.hub.caught_up()
    assert [m["seq"] for m in socket.messages() if "seq" in m] == list(range(1, 71))
