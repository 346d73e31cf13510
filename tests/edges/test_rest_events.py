"""The event stream's request and the history, as REST answers them; and the tickets that open the first."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from heliosd.protocol.events import MetricsDefined, PeerChanged, StateChanged
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import TO_EVERYTHING, Subscription, Topic
from heliosd.web.problems import TryLater
from tests.support.rest_server import START, Rest

ELECTED = StateChanged(old_state="Follower", new_state="Leader", term=2, leader="node-1", member="node-1")
ADDED = PeerChanged(event_type="added", peer_id="ⓝode \n 4", peer_address="127.0.0.1:7003")
HISTORY, EVENTS = "/api/cluster/history", "/api/cluster/events"


@pytest.fixture
async def rest() -> Rest:
    rest = Rest()
    for _ in range(5):
        rest.events.happen(ADDED)
        rest.events.happen(ELECTED)
    return rest


async def ticket(rest: Rest, user: str = "viewer", token: str | None = None) -> str:
    status, body = await rest.ask_json("POST", "/api/auth/ticket", user=user, token=token)
    assert (status, list(body)) == (201, ["ticket", "expires_at"])
    return str(body["ticket"])


# -- the history ---------------------------------------------------------------------------------------------


async def test_without_a_cursor_the_history_begins_with_the_oldest(
    autojump_clock: MockClock, rest: Rest
) -> None:
    status, body = await rest.ask_json("GET", f"{HISTORY}?limit=4", user="viewer")
    heads = {key: body[key] for key in ("epoch", "oldest_seq", "seq", "more")}
    assert (status, heads) == (200, {"epoch": "e1", "oldest_seq": 1, "seq": 10, "more": True})
    assert [event["seq"] for event in body["events"]] == [1, 2, 3, 4]


async def test_page_by_page_the_whole_history_is_read(autojump_clock: MockClock, rest: Rest) -> None:
    no_peer = "&filter=%7b%22peer_changes%22:%7b%22peers%22:%5b%22nobody%22%5d%7d,%22state_changes%22:true%7d"
    for types, expected in (
        ("", range(1, 11)),
        ("&types=state_changes,status", range(2, 11, 2)),
        (no_peer, range(2, 11, 2)),
    ):
        seqs: list[int] = []
        after, more = 0, True
        while more:
            _, body = await rest.ask_json("GET", f"{HISTORY}?epoch=e1&after={after}&limit=3{types}")
            seqs += [event["seq"] for event in body["events"]]
            after, more = seqs[-1], body["more"]
        assert seqs == list(expected)
    _, body = await rest.ask_json("GET", f"{HISTORY}?epoch=e1&after=10")
    assert (body["events"], body["more"]) == ([], False)


async def test_an_event_has_the_bytes_that_the_websocket_sent(autojump_clock: MockClock, rest: Rest) -> None:
    message = rest.events.happen(ADDED)
    answer = await rest.ask("GET", f"{HISTORY}?epoch=e1&after=10")
    assert b'"events":[' + message.payload + b'],"more":false}' in await answer.get_data()


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("epoch=e2&after=3", "epoch_changed"),
        ("epoch=e1&after=1011", "ahead"),
        ("epoch=e1&after=3", "too_old"),
    ],
)
async def test_events_that_are_not_known_are_410_with_the_present_epoch_and_seq(
    autojump_clock: MockClock, rest: Rest, query: str, reason: str
) -> None:
    for _ in range(1000):
        rest.events.happen(ADDED)
    status, body = await rest.ask_json("GET", f"{HISTORY}?{query}")
    assert (status, body.pop("error") != "") == (410, True)
    assert body == {"reason": reason, "epoch": "e1", "oldest_seq": 11, "seq": 1010}
    status, _ = await rest.ask_json("GET", f"{HISTORY}?epoch=e1&after=10")
    assert status == 200


async def test_what_is_older_than_max_age_is_left_out(autojump_clock: MockClock, rest: Rest) -> None:
    autojump_clock.jump(3601)
    status, body = await rest.ask_json("GET", f"{HISTORY}?epoch=e1&after=3")
    assert (status, body["oldest_seq"], body["seq"]) == (410, 11, 10)
    _, body = await rest.ask_json("GET", HISTORY)
    assert (body["events"], body["more"]) == ([], False)


async def test_a_page_ends_before_it_grows_beyond_a_mebibyte(autojump_clock: MockClock, rest: Rest) -> None:
    for number in range(40):
        rest.events.happen(MetricsDefined(metrics={f"m{number:060000}": None}))
    answer = await rest.ask("GET", f"{HISTORY}?limit=1000")
    raw = await answer.get_data()
    assert len(raw) < 1.1 * 1024 * 1024
    body = json.loads(raw)
    assert body["more"]
    _, rest_of_it = await rest.ask_json(
        "GET", f"{HISTORY}?epoch=e1&after={body['events'][-1]['seq']}&limit=1000"
    )
    assert rest_of_it["events"][0]["seq"] == body["events"][-1]["seq"] + 1


# -- the stream's request ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "header", "cursor", "subscription"),
    [
        ("", "", None, TO_EVERYTHING),
        ("?after=now", "", Cursor(), TO_EVERYTHING),
        ("?epoch=e1&after=7", "", Cursor("e1", 7), TO_EVERYTHING),
        ("?epoch=e1&after=7", "e0:3", Cursor("e0", 3), TO_EVERYTHING),
        ("?after=now", "e-0_:12", Cursor("e-0_", 12), TO_EVERYTHING),
        ("?types=status,latency", "", None, Subscription(Topic.STATUS | Topic.LATENCY)),
        ("?filter=%7B%22uptime%22:true%7D", "", None, Subscription(Topic.UPTIME)),
    ],
)
async def test_a_stream_starts_where_and_with_what_the_request_says(
    autojump_clock: MockClock,
    rest: Rest,
    query: str,
    header: str,
    cursor: Cursor | None,
    subscription: Subscription,
) -> None:
    for path in (EVENTS, EVENTS.replace("/api/", "/admin/")):
        headers = {"Last-Event-ID": header} if header else {}
        answer = await rest.ask("GET", path + query, user="watcher", headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.get_data() == b":\n\n"
        assert rest.streams.asked.pop() == ("watcher", cursor, subscription, "127.0.0.1:50000")


@pytest.mark.parametrize("header", ["e1", ":1", "e1:", "e1:-1", "e1:01", "e1:9007199254740992", "e 1:1"])
async def test_a_last_event_id_that_is_none_of_ours_is_400(
    autojump_clock: MockClock, rest: Rest, header: str
) -> None:
    status, body = await rest.ask_json("GET", EVENTS, headers={"Last-Event-ID": header})
    assert (status, body["field"]) == (400, "Last-Event-ID")


async def test_head_opens_no_stream(autojump_clock: MockClock, rest: Rest) -> None:
    answer = await rest.ask("HEAD", EVENTS)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")
    assert await answer.get_data() == b""


async def test_without_room_it_is_503_and_says_when_to_come_back(
    autojump_clock: MockClock, rest: Rest
) -> None:
    rest.streams.full = TryLater("Too many clients", status=503, seconds=7)
    answer = await rest.ask("GET", EVENTS)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")


async def test_a_history_that_has_not_been_read_yet_is_503_and_not_empty(
    autojump_clock: MockClock, rest: Rest
) -> None:
    rest.events.readable = False
    for query in ("", "?epoch=e1&after=0", "?epoch=other&after=9"):
        answer = await rest.ask("GET", f"/api/cluster/history{query}")
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        assert json.loads(await answer.get_data()) == {"error": "The cluster's events cannot be read yet"}
    rest.events.readable = True
    assert (await rest.ask("GET", "/api/cluster/history")).status_code == 200


# -- tickets -------------------------------------------------------------------------------------------------


async def test_a_stream_takes_a_token_or_a_ticket_in_its_query(autojump_clock: MockClock, rest: Rest) -> None:
    assert (await rest.ask("GET", f"{EVENTS}?token={rest.token('watcher')}", user=None)).status_code == 200
    assert (await rest.ask("GET", f"{EVENTS}?ticket={await ticket(rest)}", user=None)).status_code == 200
    assert [asked[0] for asked in rest.streams.asked] == ["watcher", "viewer"]


async def test_no_other_route_takes_either(autojump_clock: MockClock, rest: Rest) -> None:
    for query in (f"token={rest.token()}", f"ticket={await ticket(rest)}"):
        status, body = await rest.ask_json("GET", f"/api/cluster/status?{query}", user=None)
        assert (status, body) == (401, {"error": "Authentication required"})


async def test_a_ticket_works_once_for_thirty_seconds(autojump_clock: MockClock, rest: Rest) -> None:
    status, body = await rest.ask_json("POST", "/api/auth/ticket", user="watcher")
    assert body["expires_at"] == "2027-01-15T08:00:30.000000Z"
    assert START == 1_800_000_000
    for expected in (200, 401):
        answer = await rest.ask("GET", f"{EVENTS}?ticket={body['ticket']}", user=None)
        assert answer.status_code == expected
    assert await answer.get_json() == {"error": "Invalid token"}
    late = await ticket(rest)
    autojump_clock.jump(30)
    status, refused = await rest.ask_json("GET", f"{EVENTS}?ticket={late}", user=None)
    assert (status, refused) == (401, {"error": "Invalid token"})


async def test_a_ticket_is_spent_also_where_the_request_is_refused(
    autojump_clock: MockClock, rest: Rest
) -> None:
    spent = await ticket(rest)
    for query, status in (("&after=1", 400), ("", 401)):
        assert (await rest.ask("GET", f"{EVENTS}?ticket={spent}{query}", user=None)).status_code == status
    spent = await ticket(rest, "writer")
    status, body = await rest.ask_json("GET", f"{EVENTS}?ticket={spent}", user=None)
    assert (status, body) == (403, {"error": "Permission required: cluster:watch"})
    assert (await rest.ask("GET", f"{EVENTS}?ticket={spent}", user=None)).status_code == 401


async def test_a_ticket_is_no_token_and_a_token_no_ticket(autojump_clock: MockClock, rest: Rest) -> None:
    for query, token in ((f"?ticket={rest.token()}", None), ("", await ticket(rest))):
        status, body = await rest.ask_json("GET", EVENTS + query, user=None, token=token)
        assert (status, body) == (401, {"error": "Invalid token"})


async def test_a_ticket_dies_with_its_token(autojump_clock: MockClock, rest: Rest) -> None:
    token = rest.token("viewer")
    dead = await ticket(rest, token=token)
    assert (await rest.ask("POST", "/api/auth/logout", token=token)).status_code == 200
    assert (await rest.ask("GET", f"{EVENTS}?ticket={dead}", user=None)).status_code == 401
    short = await ticket(rest, token=rest.token("viewer", ttl=5))
    await trio.sleep(6)
    assert (await rest.ask("GET", f"{EVENTS}?ticket={short}", user=None)).status_code == 401


async def test_a_ticket_beside_its_own_token_is_fine_and_beside_another_400(
    autojump_clock: MockClock, rest: Rest
) -> None:
    token = rest.token("viewer")
    own = await ticket(rest, token=token)
    assert (await rest.ask("GET", f"{EVENTS}?ticket={own}", token=token)).status_code == 200
    mixed: list[dict[str, Any]] = [{"token": rest.token("viewer")}, {"user": "admin"}]
    for other in mixed:
        own = await ticket(rest, token=token)
        status, body = await rest.ask_json("GET", f"{EVENTS}?ticket={own}", **other)
        assert (status, body) == (400, {"error": "Two different tokens in one request"})
    two = f"{EVENTS}?ticket={await ticket(rest, token=token)}&ticket={await ticket(rest, token=token)}"
    assert (await rest.ask("GET", two, user=None)).status_code == 400
