"""Resuming: what a client is sent of what it missed, and that nothing is lost or sent twice."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.hub.event_log import READ_AT_ONCE, EventLog
from heliosd.hub.inbox import Tick
from heliosd.protocol import server_messages
from heliosd.protocol.events import BackendItem, PeerChanged, Stamped
from heliosd.protocol.history import Cursor
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.subscription import Subscription, Topic
from heliosd.store.changes import EventsLogged
from tests.support.hub_harness import ADDED, ELECTED, House, every_time_slice_ends_at_once, open_house


@pytest.fixture(name="house")
async def hub_harness() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


def cursor(house: House, after: int) -> Cursor:
    return Cursor(house.hub.log.history.epoch, after)


async def test_a_client_that_comes_back_gets_what_it_missed_then_status_then_live(
    autojump_clock: MockClock, house: House
) -> None:
    for _ in range(5):
        await house.publish(ADDED)
    _, socket = house.join(cursor=cursor(house, 2))
    await house.publish(ADDED)
    welcome, *rest = socket.messages()
    assert welcome["type"] == "welcome"
    assert welcome["data"] | {"expires_at": "", "client_id": ""} == {
        "client_id": "",
        "epoch": house.hub.log.history.epoch,
        "seq": 5,
        "oldest_seq": 1,
        "recovered": True,
        "reason": None,
        "replayed": 3,
        "expires_at": "",
    }
    assert [(m["type"], m.get("seq")) for m in rest] == [
        ("peer_change", 3),
        ("peer_change", 4),
        ("peer_change", 5),
        ("status", None),
        ("peer_change", 6),
        ("status_update", None),
    ]
    assert rest[3]["data"]["as_of_seq"] == 5


def added(seq: int, peer: str) -> OutgoingMessage:
    event = PeerChanged(event_type="added", peer_id=peer, peer_address="")
    return server_messages.of_event(Stamped(seq, 0.0, event))


async def test_a_long_history_is_read_with_pauses_and_what_comes_meanwhile_at_the_end(
    autojump_clock: MockClock,
) -> None:
    log = EventLog(max_events=5000, max_age=1e9)
    log.begin("E", 4000, [added(seq, "one") for seq in range(1, 4001)])
    wanted = Subscription.parse({"peer_changes": {"peers": ["other"]}})
    turns, excerpts = 0, []

    async def read() -> None:
        excerpts.append(await log.missed(Cursor("E", 0), wanted))

    with every_time_slice_ends_at_once():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while not excerpts:
                await trio.lowlevel.checkpoint()
                turns += 1
                if turns == 10:
                    log.keep(added(4001, "other"), 0.0)
    assert turns > 4000 / READ_AT_ONCE / 2
    log.keep(added(4002, "other"), 0.0)
    replay = log.history.since(Cursor("E", 0), wanted, excerpts[0])
    assert [message.seq for message in replay.events] == [4001, 4002]


async def test_what_goes_while_it_is_being_read_is_not_said_to_be_recovered(
    autojump_clock: MockClock,
) -> None:
    log = EventLog(max_events=1000, max_age=1e9)
    log.begin("E", 1000, [added(seq, "one") for seq in range(1, 1001)])
    wanted = Subscription.parse({"peer_changes": {"peers": ["other"]}})
    excerpts = []

    async def read() -> None:
        excerpts.append(await log.missed(Cursor("E", 0), wanted))

    with every_time_slice_ends_at_once():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.lowlevel.checkpoint()
            for seq in range(1001, 1901):
                log.keep(added(seq, "one"), 0.0)
    assert log.history.since(Cursor("E", 0), wanted, excerpts[0]).refusal == "too_old"


@pytest.mark.parametrize(
    ("after", "epoch", "reason"),
    [(3, "other", "epoch_changed"), (999, None, "ahead"), (7, None, "too_old")],
)
async def test_what_cannot_be_recovered_is_said_and_nothing_is_replayed(
    autojump_clock: MockClock, house: House, after: int, epoch: str | None, reason: str
) -> None:
    for _ in range(110):  # ten more than are kept
        await house.inbox.send(ADDED)
    await wait_all_tasks_blocked()
    _, socket = house.join(cursor=Cursor(epoch or house.hub.log.history.epoch, after))
    welcome, status = socket.messages()
    assert (welcome["data"]["recovered"], welcome["data"]["reason"]) == (False, reason)
    assert (welcome["data"]["replayed"], welcome["data"]["oldest_seq"]) == (0, 11)
    assert status["type"] == "status"


async def test_the_oldest_that_is_kept_can_be_recovered(autojump_clock: MockClock, house: House) -> None:
    for _ in range(110):
        await house.inbox.send(ADDED)
    await wait_all_tasks_blocked()
    _, socket = house.join(cursor=cursor(house, 10))
    welcome, *events, _ = socket.messages()
    assert (welcome["data"]["recovered"], welcome["data"]["replayed"]) == (True, 100)
    assert [event["seq"] for event in events] == list(range(11, 111))


async def test_after_now_only_asks_where_things_stand(autojump_clock: MockClock, house: House) -> None:
    await house.publish(ADDED)
    _, socket = house.join(cursor=Cursor())
    welcome, status = socket.messages()
    assert (welcome["data"]["recovered"], welcome["data"]["reason"], welcome["data"]["replayed"]) == (
        True,
        None,
        0,
    )
    assert (welcome["data"]["seq"], status["type"]) == (1, "status")


async def test_a_replay_is_cut_as_the_live_stream_is(autojump_clock: MockClock, house: House) -> None:
    await house.publish(ADDED, ELECTED, ADDED)
    _, socket = house.join(cursor=cursor(house, 0), subscription=Subscription(Topic.STATE_CHANGES))
    await house.publish(ADDED, ELECTED)
    welcome, *rest = socket.messages()
    assert welcome["data"]["replayed"] == 1
    assert [m["seq"] for m in rest if "seq" in m] == [2, 5]


async def test_a_replay_to_a_blocked_socket_arrives_whole_ahead_of_what_came_meanwhile(
    autojump_clock: MockClock, house: House
) -> None:
    for _ in range(100):
        await house.inbox.send(ADDED)
    await wait_all_tasks_blocked()
    client, socket = house.join(cursor=cursor(house, 0))
    socket.room = 0
    await house.publish(ADDED, ADDED)
    assert len(client.send_queue) <= 3  # the replay is not in it
    socket.open()
    await wait_all_tasks_blocked()
    assert [m["seq"] for m in socket.messages() if "seq" in m] == list(range(1, 103))


async def test_an_event_is_on_disk_before_it_is_sent(autojump_clock: MockClock, house: House) -> None:
    _, socket = house.join()
    sent_when_stored: list[int] = []
    house.disk.on_save = lambda: sent_when_stored.append(len([m for m in socket.messages() if "seq" in m]))
    for _ in range(3):
        await house.publish(ADDED)
    assert sent_when_stored == [0, 1, 2]


async def test_events_that_come_together_share_a_transaction(autojump_clock: MockClock, house: House) -> None:
    before = house.disk.transactions
    for _ in range(40):
        house.inbox.send_nowait(ADDED)
    await wait_all_tasks_blocked()
    assert house.disk.transactions - before <= 2
    logged = [e.seq for c in house.disk.changes if isinstance(c, EventsLogged) for e in c.events]
    assert logged == list(range(1, 41))


async def test_while_the_store_cannot_write_events_go_on_under_a_new_epoch_that_all_get(
    autojump_clock: MockClock, house: House
) -> None:
    _, socket = house.join()
    await house.publish(ADDED)
    first = house.hub.log.history.epoch
    house.disk.full = True
    await house.publish(ADDED, ADDED)
    second = house.hub.log.history.epoch
    assert second != first
    assert house.disk.epoch == ""  # a start does not take up what is on disk
    assert house.hub.log.trouble == "no space left on device"
    sent = [(m["type"], m.get("seq")) for m in socket.messages()[1:] if m["type"] != "status_update"]
    assert sent == [
        ("peer_change", 1),
        ("welcome", None),
        ("status", None),
        ("peer_change", 1),
        ("peer_change", 2),
    ]
    (welcome,) = [m["data"] for m in socket.messages() if m["type"] == "welcome"]
    assert (welcome["epoch"], welcome["recovered"], welcome["seq"]) == (second, False, 0)
    _, stale = house.join(cursor=Cursor(first, 1))
    assert stale.messages()[0]["data"]["reason"] == "epoch_changed"
    _, back = house.join(cursor=Cursor(second, 1))
    assert back.messages()[0]["data"]["replayed"] == 1


async def test_once_the_store_writes_again_the_epoch_of_the_meantime_becomes_durable(
    autojump_clock: MockClock, house: House
) -> None:
    house.disk.full = True
    await house.publish(ADDED, ADDED)
    epoch = house.hub.log.history.epoch
    house.disk.full = False
    await trio.sleep(1.5)
    assert house.hub.log.trouble is None
    assert (house.hub.log.history.epoch, house.disk.epoch) == (epoch, epoch)
    await house.publish(ADDED)
    logged = [e.seq for c in house.disk.changes if isinstance(c, EventsLogged) for e in c.events]
    assert logged == [1, 2, 3]


async def race(house: House, seed: int) -> None:
    """Clients join at random moments of a stream of events, also in the middle of a fan-out."""
    rng = random.Random(seed)
    for _ in range(150):
        house.join()
    sockets = []

    items: list[BackendItem | Tick] = [ADDED, ELECTED, Tick.LATENCY]

    async def produce() -> None:
        for _ in range(60):
            item = rng.choice(items)
            await house.inbox.send(item)
            for _ in range(rng.randrange(4)):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        for _ in range(30):
            for _ in range(rng.randrange(12)):
                await trio.lowlevel.checkpoint()
            after = rng.randint(0, house.hub.log.history.seq)
            sockets.append((after, house.join(cursor=cursor(house, after))[1]))
    await wait_all_tasks_blocked()
    last = house.hub.log.history.seq
    for after, socket in sockets:
        assert [m["seq"] for m in socket.messages() if "seq" in m] == list(range(after + 1, last + 1))


@pytest.mark.parametrize("seed", range(40))
async def test_between_replay_and_live_none_is_missed_and_none_comes_twice(
    autojump_clock: MockClock, house: House, seed: int
) -> None:
    await race(house, seed)


@pytest.mark.slow
async def test_in_1000_races_none_is_missed_and_none_comes_twice(autojump_clock: MockClock) -> None:
    for seed in range(1000):
        try:
            async with open_house() as house:
                await race(house, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
