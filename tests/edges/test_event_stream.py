"""The client of an event stream in the hub: what it is given, and how it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from heliosd.auth.identity import Identity
from heliosd.hub.inbox import Tick
from heliosd.protocol import history
from heliosd.protocol.close_codes import GOING_AWAY
from heliosd.protocol.events import LogReset
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import TO_EVERYTHING, Subscription, Topic
from heliosd.web.problems import TryLater
from heliosd.web.stream import sse
from heliosd.web.stream.admission import Admission
from heliosd.web.stream.sse import EventStreams
from tests.support.hub_harness import ADDED, ELECTED, House, now, open_house


@dataclass
class Reader:
    """Reads a stream as fast as it comes, unless `reading` is replaced."""

    body: AsyncGenerator[bytes, None]
    pieces: list[bytes] = field(default_factory=list)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: bool = False
    reading: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.reading.set()

    async def run(self) -> None:
        try:
            with self.scope:
                async for piece in self.body:
                    self.pieces.append(piece)
                    await self.reading.wait()
        finally:
            self.ended = True
            await self.body.aclose()

    @property
    def blocks(self) -> list[dict[str, str]]:
        """What an EventSource would make of it: the fields of each block; a comment's name is empty."""
        blocks = b"".join(self.pieces).decode().split("\n\n")
        assert blocks.pop() == ""
        return [dict(line.partition(":")[::2] for line in block.split("\n")) for block in blocks]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(block["data"]) for block in self.blocks if "data" in block]

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.messages]

    @property
    def ids(self) -> list[str]:
        return [block["id"].strip() for block in self.blocks if "id" in block]

    @property
    def comments(self) -> list[str]:
        return [block[""].strip() for block in self.blocks if "" in block]


@dataclass
class Streaming:
    house: House
    admission: Admission

    async def read(
        self,
        *,
        cursor: Cursor | None = None,
        subscription: Subscription = TO_EVERYTHING,
        identity: Identity | None = None,
    ) -> Reader:
        streams = EventStreams(self.house.hub, self.admission)
        who = identity or self.house.identity("jti")
        reader = Reader(streams.open(who, cursor, subscription, "127.0.0.1:1"))
        self.house.nursery.start_soon(reader.run)
        await wait_all_tasks_blocked()
        return reader

    @property
    def epoch(self) -> str:
        return self.house.hub.log.history.epoch

    def client_id(self) -> str:
        (client,) = self.house.hub.connections.all()
        return client.id


@pytest.fixture
async def streaming() -> AsyncIterator[Streaming]:
    async with open_house() as house:
        yield Streaming(house, Admission(settings=house.settings, hub=house.hub, now=now))


async def test_the_messages_come_as_data_and_events_with_their_place(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read()
    for item in (ADDED, Tick.LATENCY, ELECTED):
        await streaming.house.publish(item)
    assert reader.types == [
        *("status", "peer_change", "status_update", "latency", "state_change", "status_update", "uptime")
    ]
    assert reader.ids == [f"{streaming.epoch}:{seq}" for seq in (0, 1, 2)]
    assert {key for block in reader.blocks for key in block} == {"id", "data"}
    placed = [
        message["type"]
        for block, message in zip(reader.blocks, reader.messages, strict=True)
        if "id" in block
    ]
    assert placed == ["status", "peer_change", "state_change"]


async def test_the_bytes_of_a_message_are_those_of_the_websocket(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read()
    _, socket = streaming.house.join()
    await streaming.house.publish(ADDED, ELECTED)
    assert reader.messages[1:] == socket.messages()[1:]
    sent = b"".join(reader.pieces)
    for event in streaming.house.hub.log.history.kept():
        assert b"data: " + event.payload + b"\n\n" in sent


async def test_a_stream_that_resumes_gets_welcome_what_it_missed_status_and_then_live_events(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    await streaming.house.publish(*[ADDED] * 5)
    reader = await streaming.read(cursor=Cursor(streaming.epoch, 3))
    await streaming.house.publish(ADDED)
    assert reader.types == ["welcome", *["peer_change"] * 2, "status", "peer_change", "status_update"]
    assert (reader.messages[0]["data"]["recovered"], reader.messages[0]["data"]["replayed"]) == (True, 2)
    assert reader.ids == [f"{streaming.epoch}:{seq}" for seq in (3, 4, 5, 5, 6)]
    stale = await streaming.read(cursor=Cursor("other", 3))
    assert stale.types == ["welcome", "status"]
    assert stale.messages[0]["data"]["reason"] == "epoch_changed"
    assert stale.ids == [f"{streaming.epoch}:6"] * 2


@pytest.mark.parametrize("cursor", [None, Cursor()])
async def test_a_stream_that_is_cut_before_its_first_event_misses_nothing_when_it_resumes(
    autojump_clock: MockClock, streaming: Streaming, cursor: Cursor | None
) -> None:
    await streaming.house.publish(ADDED)
    first = await streaming.read(cursor=cursor)
    first.scope.cancel()
    await wait_all_tasks_blocked()
    await streaming.house.publish(ELECTED)
    epoch, _, seq = first.ids[-1].partition(":")
    again = await streaming.read(cursor=Cursor(epoch, int(seq)))
    assert again.types == ["welcome", "state_change", "status"]
    assert again.messages[0]["data"]["recovered"] is True


async def test_a_stream_that_is_cut_within_its_replay_goes_on_from_there(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    await streaming.house.publish(*[ADDED] * 5)
    reader = await streaming.read(cursor=Cursor(streaming.epoch, 2))
    assert reader.types == ["welcome", *["peer_change"] * 3, "status"]
    assert reader.ids == [f"{streaming.epoch}:{seq}" for seq in (2, 3, 4, 5, 5)]


async def test_the_comment_has_the_place_of_a_client_whose_filter_let_nothing_through(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read(subscription=Subscription(Topic.STATE_CHANGES))
    await streaming.house.publish(*[ADDED] * 3)
    assert reader.ids == [f"{streaming.epoch}:0"]
    await trio.sleep(16)
    assert reader.ids == [f"{streaming.epoch}:0", f"{streaming.epoch}:3"]
    assert reader.types == ["status"]


async def test_the_comment_has_no_place_while_messages_wait(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read()
    reader.reading = trio.Event()  # so that it reads one more piece, and then waits
    await streaming.house.publish(ADDED)
    await trio.sleep(20)
    await streaming.house.publish(ADDED)
    reader.reading.set()
    await wait_all_tasks_blocked()
    blocks = [block for block in reader.blocks if "" in block or "seq" in json.loads(block["data"])]
    assert [block.get("id", "").strip() for block in blocks] == [
        f"{streaming.epoch}:1",
        "",
        f"{streaming.epoch}:2",
    ]


async def test_only_what_was_asked_for_is_sent(autojump_clock: MockClock, streaming: Streaming) -> None:
    reader = await streaming.read(subscription=Subscription(Topic.STATE_CHANGES))
    await streaming.house.publish(ADDED, ELECTED, Tick.LATENCY)
    assert reader.types == ["status", "state_change"]


async def test_every_15_seconds_there_is_a_comment_however_much_else_there_is(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read()
    await trio.sleep(46)
    assert reader.comments == ["", "", ""]
    for _ in range(46):
        await streaming.house.publish(ADDED)
        await trio.sleep(1)
    assert len(reader.comments) == 6


async def test_a_new_epoch_is_in_the_ids_from_its_first_event_on(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read()
    reader.reading = trio.Event()  # so that all of it waits
    await streaming.house.publish(ADDED)
    old = streaming.epoch
    streaming.house.disk.full = True
    await streaming.house.publish(ADDED, ADDED)
    new = streaming.epoch
    reader.reading.set()
    await wait_all_tasks_blocked()
    assert old != new
    assert [reader.ids[0], *reader.ids[-2:]] == [f"{old}:0", f"{new}:1", f"{new}:2"]
    assert all(identifier.startswith(f"{new}:") for identifier in reader.ids[-4:])


async def test_a_reader_that_is_too_slow_gets_a_gap_that_says_what_it_missed(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read()
    reader.reading = trio.Event()
    await streaming.house.publish(ADDED)
    for _ in range(300):
        await streaming.house.inbox.send(ADDED)
    await wait_all_tasks_blocked()
    (view,) = await streaming.house.hub.connections.views()
    assert view.dropped > 200
    reader.reading.set()
    await wait_all_tasks_blocked()
    (gap,) = [message["data"] for message in reader.messages if message["type"] == "gap"]
    heard = [message["seq"] for message in reader.messages if "seq" in message]
    missed = range(gap["from_seq"], gap["to_seq"] + 1)
    assert sorted([*heard, *missed]) == list(range(1, 302))
    assert gap["dropped"] == len(missed)
    assert reader.types[reader.types.index("gap") + 1] == "status"


async def test_with_disconnect_a_reader_that_is_too_slow_is_ended_and_may_come_back(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    settings = streaming.house.settings
    websocket = replace(settings.current.websocket, slow_consumer="disconnect")
    settings.current = replace(settings.current, websocket=websocket)
    reader = await streaming.read()
    reader.reading = trio.Event()
    for _ in range(300):
        await streaming.house.inbox.send(ADDED)
    await wait_all_tasks_blocked()
    reader.reading.set()
    await wait_all_tasks_blocked()
    assert reader.ended
    assert reader.comments == ["4408 too slow"]
    epoch, _, seq = reader.ids[-1].partition(":")
    again = await streaming.read(cursor=Cursor(epoch, int(seq)))
    # The history of this house keeps 100.
    assert again.messages[0]["data"]["reason"] == "too_old"


async def test_with_its_token_the_stream_ends(autojump_clock: MockClock, streaming: Streaming) -> None:
    reader = await streaming.read(identity=streaming.house.identity("short", now().wall + 90))
    await trio.sleep(29)
    assert "token_expiring" not in reader.types
    await trio.sleep(2)
    assert reader.types[-1] == "token_expiring"
    await trio.sleep(58)
    assert not reader.ended
    await trio.sleep(2)
    assert reader.ended
    assert reader.comments[-1] == "4401 token expired"


async def test_it_ends_when_the_hub_says_so(autojump_clock: MockClock, streaming: Streaming) -> None:
    hub = streaming.house.hub
    for end, said in (
        (lambda: hub.connections.disconnect(streaming.client_id()), "4000 disconnected by an administrator"),
        (lambda: hub.connections.token_revoked("jti"), "4401 token revoked"),
        (lambda: hub.connections.end_all(GOING_AWAY), "1001 the daemon is stopping"),
    ):
        reader = await streaming.read()
        end()
        await wait_all_tasks_blocked()
        assert reader.ended
        assert reader.comments == [said]
        assert hub.connections.count() == hub.connections.count("sse") == 0
    await hub.connections.wait_empty()


async def test_what_waits_is_sent_before_the_daemon_stops(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    reader = await streaming.read()
    reader.reading = trio.Event()
    await streaming.house.publish(ADDED)
    await streaming.house.publish(ADDED, ADDED)
    streaming.house.hub.connections.end_all(GOING_AWAY)
    reader.reading.set()
    await wait_all_tasks_blocked()
    assert reader.ended
    assert len(reader.ids) == 4  # the status and three events


async def test_a_stream_is_refused_while_the_daemon_stops(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    early = Reader(
        EventStreams(streaming.house.hub, streaming.admission).open(
            streaming.house.identity("jti"), None, TO_EVERYTHING, ""
        )
    )
    streaming.admission.stopping = True
    streaming.house.hub.connections.end_all(GOING_AWAY)
    streaming.house.nursery.start_soon(early.run)  # it was let in before, and joins after
    await wait_all_tasks_blocked()
    assert early.ended
    assert early.types == ["status"]
    with pytest.raises(TryLater, match="Stopping"):
        await streaming.read()


async def test_a_token_revoked_on_the_way_in_ends_the_stream(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    house = streaming.house
    body = EventStreams(house.hub, streaming.admission).open(house.identity("jti"), None, TO_EVERYTHING, "")
    house.access.revoke("jti", 1e11, now())
    house.hub.connections.token_revoked("jti")
    reader = Reader(body)
    house.nursery.start_soon(reader.run)
    await wait_all_tasks_blocked()
    assert reader.ended
    assert reader.comments == ["4401 token revoked"]


async def test_a_reader_that_leaves_leaves_the_hub(autojump_clock: MockClock, streaming: Streaming) -> None:
    idle, busy = await streaming.read(), await streaming.read()
    busy.reading = trio.Event()
    await streaming.house.publish(ADDED)
    assert streaming.house.hub.connections.count("sse") == 2
    idle.scope.cancel()
    busy.scope.cancel()
    await wait_all_tasks_blocked()
    assert streaming.house.hub.connections.count() == streaming.house.hub.connections.count("sse") == 0
    assert await streaming.house.hub.connections.queue_depth() == 0
    await streaming.house.publish(ADDED)


async def test_there_are_as_many_clients_as_the_configuration_allows(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    settings = streaming.house.settings
    for limits in ({"max_clients": 2}, {"max_clients_per_user": 2}):
        websocket = replace(settings.current.websocket, **limits)
        settings.current = replace(settings.current, websocket=websocket)
        client, _ = streaming.house.join()
        reader = await streaming.read()
        with pytest.raises(TryLater, match="Too many clients"):
            await streaming.read()
        assert (
            streaming.house.hub.connections.count("websocket")
            == streaming.house.hub.connections.count("sse")
            == 1
        )
        reader.scope.cancel()
        streaming.house.hub.sessions.leave(client)
        await wait_all_tasks_blocked()


async def test_a_stream_has_a_place_before_it_begins_and_none_if_it_never_does(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    settings = streaming.house.settings
    settings.current = replace(settings.current, websocket=replace(settings.current.websocket, max_clients=1))
    streams = EventStreams(streaming.house.hub, streaming.admission)
    who = streaming.house.identity("jti")
    opened = [streams.open(who, None, TO_EVERYTHING, "")]
    with pytest.raises(TryLater, match="Too many clients"):
        streams.open(who, None, TO_EVERYTHING, "")
    opened.clear()  # as after HEAD
    reader = await streaming.read()
    assert reader.types == ["status"]
    with pytest.raises(TryLater, match="Too many clients"):
        streams.open(who, None, TO_EVERYTHING, "")


async def test_a_cursor_is_refused_until_the_clusters_events_have_been_read(
    autojump_clock: MockClock,
) -> None:
    async with open_house(of_cluster=True) as house:
        streaming = Streaming(house, Admission(settings=house.settings, hub=house.hub, now=now))
        with pytest.raises(TryLater, match="cannot be read yet") as later:
            await streaming.read(cursor=Cursor("E", 3))
        assert (later.value.status, 1 <= later.value.seconds <= 5) == (503, True)
        early = await streaming.read()
        asking = await streaming.read(cursor=Cursor())
        await house.publish(LogReset(epoch="E", seq=5, kept=()))
        assert early.types == ["status", "welcome", "status"]
        assert asking.types == ["welcome", "status", "welcome", "status"]
        reader = await streaming.read(cursor=Cursor("E", 5))
        assert reader.messages[0]["data"]["recovered"] is True


async def test_an_event_stream_is_never_pinged(autojump_clock: MockClock, streaming: Streaming) -> None:
    reader = await streaming.read()
    streaming.house.nursery.start_soon(streaming.house.hub.connections.ping_all)
    await trio.sleep(61)
    assert reader.types == ["status"]


async def test_a_group_that_is_larger_than_the_free_queue_does_not_stall_a_stream(
    autojump_clock: MockClock, streaming: Streaming
) -> None:
    settings = streaming.house.settings
    settings.replace(replace(settings.current, websocket=replace(settings.current.websocket, send_buffer=2)))
    reader = await streaming.read()
    for _ in range(30):
        streaming.house.inbox.send_nowait(ADDED)
    await wait_all_tasks_blocked()
    assert reader.types == ["status", "gap", "status"]
    (gap,) = [message["data"] for message in reader.messages if message["type"] == "gap"]
    assert (gap["from_seq"], gap["to_seq"]) == (1, 30)


async def test_a_stream_for_which_there_is_too_much_to_replay_begins_with_the_place_it_had(
    autojump_clock: MockClock, streaming: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_REPLAY_EVENTS", 10)
    await streaming.house.publish(*[ADDED] * 11)
    reader = await streaming.read(cursor=Cursor(streaming.epoch, 0))
    assert reader.messages[0]["data"]["reason"] == "too_many"
    assert reader.ids == [f"{streaming.epoch}:0", f"{streaming.epoch}:11"]


async def test_a_long_message_comes_in_parts_with_no_comment_inside(
    autojump_clock: MockClock, streaming: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "BATCH_BYTES", 40)
    reader = await streaming.read()
    reader.reading = trio.Event()
    await streaming.house.publish(ADDED)
    for _ in range(4):
        await trio.sleep(16)
        passed, reader.reading = reader.reading, trio.Event()
        passed.set()
        await wait_all_tasks_blocked()
    reader.reading.set()
    await streaming.house.publish(ELECTED)
    assert reader.types == [
        "status",
        "peer_change",
        "status_update",
        "state_change",
        "status_update",
        "uptime",
    ]
    assert max(map(len, reader.pieces)) <= 80
    assert reader.comments
