"""A hub whose events come numbered from the cluster's own log: what clients hear of it, whatever becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.protocol.client_commands import AskStatus
from heliosd.protocol.events import (
    LogReset,
    MetricValuesChanged,
    PeerChanged,
    Provisional,
    StateChanged,
    StateComplete,
    StatusChanged,
)
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import Subscription
from heliosd.store.changes import LoggedEvent
from tests.support.hub_harness import House, open_house
from tests.support.logged_events import logged

LOST = StateChanged(old_state="Leader", new_state="Unknown", term=3, leader="", member="8e9e")
GONE = PeerChanged(event_type="unhealthy", peer_id="8e9e", peer_address="127.0.0.1:2380")


def kept(first: int, last: int) -> tuple[LoggedEvent, ...]:
    return tuple(logged(seq) for seq in range(first, last + 1))


@asynccontextmanager
async def open_shared(to: LogReset) -> AsyncIterator[House]:
    async with open_house(of_cluster=True) as house:
        await house.publish(to)
        assert house.hub.log.readable
        yield house


def heard(messages: list[dict[str, Any]]) -> list[object]:
    """The seq of each event, and the type of everything else but the values."""
    return [
        message.get("seq", message["type"])
        for message in messages
        if message["type"] not in {"status_update", "uptime"}
    ]


async def test_events_of_the_cluster_are_sent_with_its_numbers_and_its_very_bytes(
    autojump_clock: MockClock,
) -> None:
    async with open_shared(LogReset(epoch="E", seq=7)) as house:
        _, socket = house.join()
        event = logged(8)
        await house.publish(event, logged(9))
        assert heard(socket.messages()) == ["status", 8, 9]
        assert event.payload in bytes(socket.written)
        assert house.disk.transactions == 0


async def test_an_event_of_a_type_that_only_a_newer_daemon_knows_reaches_every_client(
    autojump_clock: MockClock,
) -> None:
    new = "quorum_change"
    async with open_shared(LogReset(epoch="E", seq=7, kept=(logged(7, new),))) as house:
        _, resumed = house.join(cursor=Cursor("E", 6), subscription=Subscription.parse({"latency": True}))
        _, socket = house.join()
        await house.publish(logged(8, new), logged(9))
        assert heard(resumed.messages()) == ["welcome", 7, "status", 8]
        assert heard(socket.messages()) == ["status", 8, 9]


async def test_a_client_of_another_daemon_resumes_from_what_the_cluster_keeps(
    autojump_clock: MockClock,
) -> None:
    async with open_shared(LogReset(epoch="E", seq=9, kept=kept(3, 9))) as house:
        _, socket = house.join(cursor=Cursor("E", 7))
        welcome = socket.messages()[0]["data"]
        assert (welcome["recovered"], welcome["epoch"], welcome["oldest_seq"]) == (True, "E", 3)
        assert heard(socket.messages()) == ["welcome", 8, 9, "status"]
        _, too_late = house.join(cursor=Cursor("E", 1))
        assert too_late.messages()[0]["data"]["reason"] == "too_old"


async def test_a_status_that_changed_without_an_event_is_sent_at_once_and_once(
    autojump_clock: MockClock,
) -> None:
    async with open_shared(LogReset(epoch="E", seq=0)) as house:
        _, socket = house.join()
        await house.publish(StatusChanged())
        assert socket.types() == ["status", "status_update"]
        house.inbox.send_nowait(StatusChanged())
        await house.publish(logged(1, "peer_change"))
        assert socket.types() == ["status", "status_update", "peer_change", "status_update"]


async def test_state_and_peer_changes_bring_a_status_update_with_them(autojump_clock: MockClock) -> None:
    async with open_shared(LogReset(epoch="E", seq=0)) as house:
        _, socket = house.join()
        await house.publish(logged(1, "snapshot"))
        await house.publish(logged(2, "state_change"))
        await house.publish(logged(3, "peer_change"))
        after_state = ["state_change", "status_update", "uptime"]
        assert socket.types()[1:] == ["snapshot", *after_state, "peer_change", "status_update"]


async def test_a_provisional_event_has_no_number_and_is_not_kept(
    autojump_clock: MockClock,
) -> None:
    async with open_shared(LogReset(epoch="E", seq=4)) as house:
        _, socket = house.join()
        await house.publish(Provisional(LOST))
        message = next(m for m in socket.messages() if m["type"] == "state_change")
        assert message["provisional"] is True
        assert "seq" not in message
        assert message["data"]["leader"] == ""
        assert "status_update" in socket.types()
        await house.publish(logged(5, "state_change"))
        assert heard(socket.messages())[-1] == 5
        assert [event.seq for event in house.hub.log.history.kept()] == [5]


async def test_another_log_of_the_cluster_is_a_new_epoch(autojump_clock: MockClock) -> None:
    async with open_shared(LogReset(epoch="E", seq=4)) as house:
        _, socket = house.join()
        await house.publish(logged(5), LogReset(epoch="F", seq=2, kept=kept(1, 2)), logged(3))
        assert heard(socket.messages()) == ["status", 5, "welcome", "status", 3]
        welcome = next(m for m in socket.messages() if m["type"] == "welcome")
        assert (welcome["data"]["recovered"], welcome["data"]["reason"]) == (False, "epoch_changed")
        assert (welcome["data"]["epoch"], welcome["data"]["seq"]) == ("F", 2)
        _, other = house.join(cursor=Cursor("F", 0))
        assert heard(other.messages()) == ["welcome", 1, 2, 3, "status"]


async def test_a_hole_in_the_log_is_named_exactly_and_what_comes_after_it_is_sent(
    autojump_clock: MockClock,
) -> None:
    async with open_shared(LogReset(epoch="E", seq=4, kept=kept(1, 4))) as house:
        _, socket = house.join()
        await house.publish(LogReset(epoch="E", seq=9, kept=kept(7, 9), lost=(5, 6)), logged(10))
        assert heard(socket.messages()) == ["status", "gap", "status", 7, 8, 9, 10]
        gap = next(m for m in socket.messages() if m["type"] == "gap")
        assert gap["data"] == {"from_seq": 5, "to_seq": 6, "dropped": 2, "reason": "too_old"}
        _, other = house.join(cursor=Cursor("E", 4))
        assert other.messages()[0]["data"]["reason"] == "too_old"


@pytest.mark.parametrize(
    ("item", "announced"),
    [
        (LogReset(epoch="F", seq=2), ["welcome", "status"]),
        (LogReset(epoch="E", seq=9, lost=(5, 9)), ["gap", "status"]),
        (StateComplete(), ["status"]),
    ],
)
async def test_what_is_announced_to_all_is_sent_in_turns_and_joins_and_questions_wait_for_its_end(
    autojump_clock: MockClock, item: LogReset | StateComplete, announced: list[str]
) -> None:
    async with open_shared(LogReset(epoch="E", seq=4)) as house:
        clients = [house.join() for _ in range(9)]
        house.inbox.send_nowait(item)
        while len(clients[0][1].frames) == 1:
            await trio.lowlevel.checkpoint()
        assert house.hub.publisher.publishing
        (last, its), (leaving, left) = clients[-1], clients[-2]
        assert heard(its.messages()) == ["status"]
        house.hub.sessions.execute(last, AskStatus(id="?"))
        house.hub.sessions.leave(leaving)
        _, joined = house.join()
        await wait_all_tasks_blocked()
        assert [heard(socket.messages()) for _, socket in clients[:-2]] == [["status", *announced]] * 7
        assert heard(its.messages()) == ["status", *announced, "status"]
        assert its.messages()[-1]["id"] == "?"
        assert heard(left.messages()) == heard(joined.messages()) == ["status"]
        assert not house.hub.publisher.publishing


async def test_with_everything_lost_the_gap_ends_with_the_newest_number(autojump_clock: MockClock) -> None:
    async with open_shared(LogReset(epoch="E", seq=4, kept=kept(1, 4))) as house:
        _, socket = house.join()
        await house.publish(LogReset(epoch="E", seq=9, lost=(5, 9)), logged(10))
        assert heard(socket.messages()) == ["status", "gap", "status", 10]


async def test_a_client_that_is_behind_hears_of_the_hole_in_its_place(autojump_clock: MockClock) -> None:
    async with open_shared(LogReset(epoch="E", seq=4, kept=kept(1, 4))) as house:
        _, socket = house.join()
        socket.room = 0
        await house.publish(logged(5), LogReset(epoch="E", seq=9, kept=kept(8, 9), lost=(6, 7)))
        socket.open()
        await house.publish(logged(10))
        assert heard(socket.messages()) == ["status", 5, "gap", "status", 8, 9, 10]


async def test_values_of_a_metric_that_was_deleted_elsewhere_do_not_follow(
    autojump_clock: MockClock,
) -> None:
    async with open_shared(LogReset(epoch="E", seq=0)) as house:
        _, socket = house.join()
        moved = MetricValuesChanged(metrics={"a": house.metric("a", 1.0), "b": house.metric("b", 2.0)})
        await house.publish(moved)
        await house.publish(logged(1, "custom_metrics", {"a": None}))
        await trio.sleep(1.0)
        values = [m["data"] for m in socket.messages() if m["type"] == "custom_metrics" and "seq" not in m]
        assert [sorted(value) for value in values] == [["b"]]


async def test_a_client_that_got_more_from_another_daemon_waits_until_this_one_has_it(
    autojump_clock: MockClock,
) -> None:
    async with open_shared(LogReset(epoch="E", seq=4, kept=kept(1, 4))) as house:
        log, cursor = house.hub.log, Cursor("E", 6)
        assert not log.behind(None)
        assert not log.behind(Cursor())
        assert not log.behind(Cursor("E", 4))
        assert not log.behind(Cursor("F", 9))
        assert log.behind(cursor)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.reach, cursor)
            await trio.sleep(0.5)
            await house.publish(logged(5), logged(6))
        assert not log.behind(cursor)
        assert trio.current_time() - began < 1.0
        await log.reach(Cursor("E", 99))  # which may never come
        assert trio.current_time() - began < 5.0


async def test_until_the_log_has_been_read_no_client_is_promised_that_nothing_was_lost(
    autojump_clock: MockClock,
) -> None:
    async with open_house(of_cluster=True) as house:
        assert not house.hub.log.readable
        _, socket = house.join(cursor=Cursor("E", 3))
        assert socket.messages()[0]["data"]["reason"] == "epoch_changed"
        await house.publish(LogReset(epoch="E", seq=5, kept=kept(1, 5)))
        assert heard(socket.messages()) == ["welcome", "status", "welcome", "status"]
        assert house.hub.log.readable


async def test_a_client_that_joined_before_the_log_was_read_gets_its_epoch_and_begins_there(
    autojump_clock: MockClock,
) -> None:
    async with open_house(of_cluster=True) as house:
        _, plain = house.join()
        _, asking = house.join(cursor=Cursor())
        await house.publish(Provisional(LOST))
        await house.publish(LogReset(epoch="E", seq=5, kept=kept(1, 5)), logged(6))
        assert heard(plain.messages()) == ["status", "state_change", "welcome", "status", 6]
        assert heard(asking.messages()) == ["welcome", "status", "state_change", "welcome", "status", 6]
        for socket in (plain, asking):
            welcome = [m["data"] for m in socket.messages() if m["type"] == "welcome"][-1]
            assert (welcome["epoch"], welcome["seq"], welcome["oldest_seq"]) == ("E", 5, 1)
            assert (welcome["recovered"], welcome["reason"]) == (False, "epoch_changed")
            status = [m["data"] for m in socket.messages() if m["type"] == "status"][-1]
            assert status["as_of_seq"] == 5


@pytest.mark.parametrize("revoked", [True, False])
async def test_a_client_that_is_being_closed_is_not_told_of_a_new_epoch(
    autojump_clock: MockClock, revoked: bool
) -> None:
    async with open_shared(LogReset(epoch="E", seq=4)) as house:
        client, slow = house.join()
        slow.room = 0
        await house.publish(logged(5))
        if revoked:
            house.hub.connections.token_revoked(client.identity.jti)
        else:
            house.hub.connections.disconnect(client.id)
        await house.publish(LogReset(epoch="F", seq=2))
        slow.open()
        await wait_all_tasks_blocked()
        assert heard(slow.messages()) == ["status", 5]
        assert slow.close_code() == (4401 if revoked else 4000)
