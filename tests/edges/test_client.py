"""The Python client against a daemon of the test's own: what it asks, what it makes of the answers."""

from __future__ import annotations

from functools import partial

import httpx
import pytest
import trio
from trio_websocket import WebSocketConnection
from wsproto.utilities import LocalProtocolError

from heliosd.client import http_api, websocket
from heliosd.client.client import Client, Connected, Disconnected, open_client
from heliosd.client.http_api import Password
from heliosd.client.rest_client import RestClient
from heliosd.client.resume import Gap, Message
from heliosd.errors import AccessRefused, NotUnderstood
from heliosd.protocol.filters import BadSubscription
from heliosd.protocol.history import Cursor
from heliosd.websocket.frames import frame, ping_frame, text_frame
from tests.support.client_sessions import (
    NOW,
    TOKEN,
    Chance,
    Daemon,
    Visitor,
    daemon_of,
    events_of,
    stay,
    take,
)
from tests.support.deadlines import SECONDS, at_most
from tests.support.front_server import tls_contexts

ADMIN = Password("admin", "correct horse")
LOGIN, REFRESH, HISTORY = "/api/auth/login", "/api/auth/refresh", "/api/cluster/history"

opening = partial(open_client, rng=Chance())


def url(daemon: Daemon) -> str:
    return f"http://127.0.0.1:{daemon.port}"


async def next_of(client: Client, kind: type) -> object:
    """The next item of one kind."""
    async for item in client:
        if isinstance(item, kind):
            return item
    raise AssertionError


async def ten_events(visitor: Visitor) -> None:
    await visitor.begin(0)
    await visitor.events(1, 10)
    await stay(visitor)


# -- coming in ----------------------------------------------------------------------------------------------------


async def test_it_logs_in_and_brings_the_token_in_a_header() -> None:
    async with daemon_of(ten_events) as daemon:
        daemon.answers[LOGIN] = [(200, {"token": TOKEN, "user_id": "admin"})]
        async with opening(url(daemon), ADMIN) as client:
            assert await events_of(client, 10) == list(range(1, 11))
        assert daemon.asked == [(LOGIN, "", {"username": "admin", "password": "correct horse"})]
        (visitor,) = daemon.visitors
        assert visitor.authorization == f"Bearer {TOKEN}"
        assert visitor.query == {"after": "now"}


async def test_a_wrong_password_ends_it() -> None:
    async with daemon_of(ten_events) as daemon:
        daemon.answers[LOGIN] = [(401, {"error": "Invalid credentials"})]
        async with opening(url(daemon), ADMIN) as client:
            with pytest.raises(AccessRefused, match="Invalid credentials"):
                await anext(client)
            with pytest.raises(AccessRefused):
                await anext(client)
        assert len(daemon.asked) == 1
        assert daemon.visitors == []


@pytest.mark.parametrize("status", [429, 503, 500])
async def test_a_busy_login_is_tried_again(status: int) -> None:
    async with daemon_of(ten_events) as daemon:
        daemon.answers[LOGIN] = [(status, {"error": "Too many"}), (200, {"token": TOKEN})]
        async with opening(url(daemon), ADMIN) as client:
            assert await events_of(client, 1) == [1]


@pytest.mark.parametrize("body", ["text", {}, {"token": 5}, {"token": "with space"}, {"token": "x\r\ny: z"}])
async def test_a_login_that_is_answered_otherwise_is_not_understood(body: object) -> None:
    async with daemon_of(ten_events) as daemon:
        daemon.answers[LOGIN] = [(200, body)]
        async with opening(url(daemon), ADMIN) as client:
            with pytest.raises(NotUnderstood):
                await anext(client)


async def test_a_given_token_that_is_refused_ends_it() -> None:
    async with daemon_of((401, "Invalid token", {})) as daemon, opening(url(daemon), TOKEN) as client:
        with pytest.raises(AccessRefused, match="Invalid token"):
            await anext(client)
        assert len(daemon.visitors) == 1


async def test_a_token_that_has_ended_is_replaced_by_a_login() -> None:
    async def brief(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.events(1, 1)
        await visitor.close(1001)

    async with daemon_of(brief, (401, "Invalid token", {}), ten_events) as daemon:
        daemon.answers[LOGIN] = [(200, {"token": TOKEN}), (200, {"token": "another"})]
        async with opening(url(daemon), ADMIN, notices=True) as client:
            assert await events_of(client, 1) == [1]
            lost = await next_of(client, Disconnected)
            assert isinstance(lost, Disconnected)
            assert lost.code == 1001
            await next_of(client, Connected)
        assert [each.authorization for each in daemon.visitors] == [
            f"Bearer {TOKEN}",
            f"Bearer {TOKEN}",
            "Bearer another",
        ]


async def test_a_token_source_is_asked_for_each_new_token_and_may_fail_for_a_while() -> None:
    given = iter([OSError("not there yet"), TOKEN, "another"])

    async def source() -> str:
        await trio.lowlevel.checkpoint()
        token = next(given)
        if isinstance(token, OSError):
            raise token
        return str(token)

    async def ended(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.close(4401, "token expired")

    async with daemon_of(ended, ten_events) as daemon, opening(url(daemon), source) as client:
        assert await events_of(client, 1) == [1]
        assert [each.authorization for each in daemon.visitors] == [f"Bearer {TOKEN}", "Bearer another"]


@pytest.mark.parametrize(
    ("status", "error"), [(403, AccessRefused), (400, NotUnderstood), (404, NotUnderstood)]
)
async def test_a_refusal_that_will_not_change_ends_it(status: int, error: type[Exception]) -> None:
    async with daemon_of((status, "because", {})) as daemon, opening(url(daemon), TOKEN) as client:
        with pytest.raises(error, match="because"):
            await anext(client)


async def silence(_: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_a_daemon_that_does_not_answer_is_said_not_to_have_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_api, "REQUEST_SECONDS", 0.05)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, silence, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        server = http_api.parse_server_url(f"http://127.0.0.1:{port}")
        async with http_api.open_http(server, None) as http:
            with pytest.raises(httpx.HTTPError) as caught:
                await http.get("/")
        assert http_api.words_of(caught.value) == "no answer within 0.05 s"
        nursery.cancel_scope.cancel()


async def test_a_full_daemon_is_left_alone_as_long_as_it_asks() -> None:
    refusal = (503, "Too many clients", {"Retry-After": "1"})
    async with daemon_of(refusal, ten_events) as daemon:
        started = trio.current_time()
        async with opening(url(daemon), TOKEN, notices=True) as client:
            lost = await anext(client)
            assert isinstance(lost, Disconnected)
            assert (lost.reason, lost.code) == ("Too many clients", None)
            assert lost.retry_in >= 1
            assert await events_of(client, 1) == [1]
        assert trio.current_time() - started >= 1


async def test_a_daemon_that_is_not_there_gives_disconnected_and_is_tried_again() -> None:
    async with opening("http://127.0.0.1:1", TOKEN, notices=True) as client:
        with trio.fail_after(SECONDS):
            for _ in range(3):
                assert isinstance(await anext(client), Disconnected)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"\x00\x01\x02", b"SSH-2.0-OpenSSH\r\n", b"\xff" * 99999]
)
async def test_an_upgrade_that_is_not_answered_is_noticed_at_once(answer: bytes) -> None:
    async def rude(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(4096)
            await stream.send_all(answer)

    with trio.fail_after(at_most(websocket.CONNECT_SECONDS / 2)):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, rude, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
            async with opening(f"http://127.0.0.1:{port}", TOKEN, notices=True) as client:
                assert isinstance(await anext(client), Disconnected)
                assert isinstance(await anext(client), Disconnected)
            nursery.cancel_scope.cancel()


async def test_over_tls_the_certificate_is_checked() -> None:
    server, trusting = tls_contexts()
    async with daemon_of(ten_events, tls=server) as daemon:
        daemon.answers[LOGIN] = [(200, {"token": TOKEN})]
        secure = f"https://127.0.0.1:{daemon.port}"
        async with opening(secure, ADMIN, ssl_context=trusting) as client:
            assert await events_of(client, 10) == list(range(1, 11))
        for credentials in (TOKEN, ADMIN):
            async with opening(secure, credentials, notices=True) as client:
                lost = await anext(client)
                assert isinstance(lost, Disconnected)
                assert "certificate" in lost.reason.lower()


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "127.0.0.1:8080",
        "ftp://a",
        "http://",
        "http://u:secret@a",
        "http://a/?token=secret",
        "http://a:99999",
    ],
)
async def test_a_wrong_url_is_reported_without_its_secrets(wrong: str) -> None:
    with pytest.raises(ValueError, match="URL") as raised:
        async with open_client(wrong, TOKEN):
            pass
    assert "secret" not in str(raised.value)


def test_a_url_is_read_as_people_write_it() -> None:
    server = http_api.parse_server_url("https://[::1]:8443/helios/")
    assert (server.host, server.port, server.tls, server.netloc, server.prefix) == (
        "::1",
        8443,
        True,
        "[::1]:8443",
        "/helios",
    )
    assert http_api.parse_server_url("ws://a").port == 80
    assert http_api.parse_server_url("https://a").port == 443


# -- going on -----------------------------------------------------------------------------------------------------


async def test_it_goes_on_where_the_connection_was_cut() -> None:
    async def break_off(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.events(1, 3)
        visitor.stream.abort()

    async def rest(visitor: Visitor) -> None:
        await visitor.welcome(5, replayed=2)
        await visitor.events(4, 5)
        await visitor.say("status", {"as_of_seq": 5})
        await visitor.events(6, 6)
        await stay(visitor)

    async with daemon_of(break_off, rest) as daemon, opening(url(daemon), TOKEN) as client:
        assert client.cursor is None
        assert await events_of(client, 6) == [1, 2, 3, 4, 5, 6]
        assert client.cursor == Cursor("A", 6)
        assert [each.query for each in daemon.visitors] == [{"after": "now"}, {"epoch": "A", "after": "3"}]


async def test_a_later_run_goes_on_from_a_stored_cursor() -> None:
    async def missed(visitor: Visitor) -> None:
        await visitor.welcome(9, reason="too_old")
        await visitor.say("status", {"as_of_seq": 9})
        await stay(visitor)

    async with daemon_of(missed) as daemon:
        async with opening(url(daemon), TOKEN, since=Cursor("A", 4)) as client:
            assert client.cursor == Cursor("A", 4)
            welcome, gap, status = await take(client, 3)
            assert isinstance(welcome, Message)
            assert gap == Gap("A", 5, 9, "too_old")
            assert isinstance(status, Message)
            assert client.cursor == Cursor("A", 9)
        assert daemon.visitors[0].query == {"epoch": "A", "after": "4"}


async def test_the_cursor_covers_a_gap_only_once_it_was_yielded() -> None:
    async def missed(visitor: Visitor) -> None:
        await visitor.welcome(9, reason="too_old")
        await stay(visitor)

    async with daemon_of(missed) as daemon, opening(url(daemon), TOKEN, since=Cursor("A", 4)) as client:
        await anext(client)
        assert client.cursor == Cursor("A", 4)
        await anext(client)
        assert client.cursor == Cursor("A", 9)


async def test_a_gap_of_the_daemon_comes_with_its_own_words() -> None:
    async def slow(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.say("gap", {"from_seq": 1, "to_seq": 7, "dropped": 7, "reason": "slow_consumer"})
        await stay(visitor)

    async with daemon_of(slow) as daemon, opening(url(daemon), TOKEN) as client:
        gap = await next_of(client, Gap)
        assert isinstance(gap, Gap)
        assert (gap.from_seq, gap.to_seq, gap.dropped, gap.reason) == (1, 7, 7, "slow_consumer")
        assert gap.raw is not None


async def test_a_subscription_is_asked_for_on_every_connection() -> None:
    async def break_off(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.close(4408)

    async with daemon_of(break_off, ten_events) as daemon:
        async with opening(url(daemon), TOKEN, subscription={"peer_changes": {"peers": ["a*"]}}) as client:
            await events_of(client, 1)
        assert {each.query["filter"] for each in daemon.visitors} == {'{"peer_changes":{"peers":["a*"]}}'}
        assert len(daemon.visitors) == 2


async def test_a_subscription_that_no_request_holds_is_refused_at_once() -> None:
    names = [f"metric_of_a_long_name_{number:0100d}" for number in range(60)]
    with pytest.raises(ValueError, match="7000 are the most"):
        async with open_client(
            "http://127.0.0.1:1", TOKEN, subscription={"custom_metrics": {"names": names}}
        ):
            pass


async def test_a_wrong_subscription_is_refused_at_once() -> None:
    with pytest.raises(BadSubscription):
        async with open_client("http://127.0.0.1:1", TOKEN, subscription={"weather": True}):
            pass


@pytest.mark.parametrize(("code", "seconds"), [(4000, 5.0), (4429, 10.0), (1001, 0.0), (4408, 0.0)])
async def test_some_closes_keep_it_away_for_longer(code: int, seconds: float) -> None:
    async def closing(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.close(code, "so")

    async with daemon_of(closing) as daemon, opening(url(daemon), TOKEN, notices=True) as client:
        lost = await next_of(client, Disconnected)
        assert isinstance(lost, Disconnected)
        assert (lost.code, lost.reason) == (code, "so")
        assert seconds < lost.retry_in < seconds + 1


@pytest.mark.parametrize(
    ("code", "error"), [(4403, AccessRefused), (1009, NotUnderstood), (1003, NotUnderstood)]
)
async def test_some_closes_end_it(code: int, error: type[Exception]) -> None:
    async def closing(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.events(1, 1)
        await visitor.close(code, "so")

    async with daemon_of(closing) as daemon, opening(url(daemon), TOKEN) as client:
        assert await events_of(client, 1) == [1]
        with pytest.raises(error, match="so"):
            await anext(client)


async def test_a_number_that_comes_again_is_answered_by_a_new_connection() -> None:
    async def twice(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.events(1, 2)
        await visitor.events(2, 2)
        await stay(visitor)

    async def rest(visitor: Visitor) -> None:
        await visitor.begin(2)
        await visitor.events(3, 3)
        await stay(visitor)

    async with daemon_of(twice, rest) as daemon, opening(url(daemon), TOKEN) as client:
        assert await events_of(client, 3) == [1, 2, 3]


@pytest.mark.parametrize(
    "sent", [frame(2, b"\x00"), text_frame(b"no json"), text_frame(b'{"type":"status"}')]
)
async def test_what_is_not_the_protocol_ends_it(sent: bytes) -> None:
    async def odd(visitor: Visitor) -> None:
        await visitor.stream.send_all(sent)
        await stay(visitor)

    async with daemon_of(odd) as daemon, opening(url(daemon), TOKEN) as client:
        with pytest.raises(NotUnderstood):
            await anext(client)


# -- tokens -------------------------------------------------------------------------------------------------------


async def expiring(visitor: Visitor, heard: list[object]) -> None:
    await visitor.begin(0)
    await visitor.say("token_expiring", {"expires_at": NOW})
    heard.append(await visitor.hear())
    await visitor.say("authenticated", {"expires_at": NOW})
    await visitor.events(1, 1)
    await stay(visitor)


async def test_a_token_that_is_about_to_end_is_renewed_on_the_open_connection() -> None:
    heard: list[object] = []
    async with daemon_of(partial(expiring, heard=heard)) as daemon:
        daemon.answers[REFRESH] = [(503, {"error": "later"}), (200, {"token": "another"})]
        async with opening(url(daemon), TOKEN) as client:
            assert await events_of(client, 1) == [1]
        assert heard == [{"type": "auth", "data": {"token": "another"}}]
        assert [each[1] for each in daemon.asked_for(REFRESH)] == [f"Bearer {TOKEN}"] * 2
        assert len(daemon.visitors) == 1


@pytest.mark.extended
async def test_a_newer_token_that_is_not_accepted_is_followed_by_another() -> None:
    heard: list[object] = []

    async def unsure(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.say("token_expiring", {"expires_at": NOW})
        heard.append(await visitor.hear())
        await visitor.say("error", {"error": "not now", "code": "expired", "field": "data.token"})
        heard.append(await visitor.hear())
        await visitor.events(1, 1)
        await stay(visitor)

    async with daemon_of(unsure) as daemon:
        daemon.answers[REFRESH] = [
            (200, {"token": "second"}),
            (408, {"error": "slow"}),
            (200, {"token": "third"}),
        ]
        async with opening(url(daemon), TOKEN) as client:
            assert await events_of(client, 1) == [1]
        assert heard == [{"type": "auth", "data": {"token": each}} for each in ("second", "third")]


async def test_a_close_for_the_old_token_does_not_take_away_the_newer_one() -> None:
    async def forgetful(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.say("token_expiring", {"expires_at": NOW})
        await visitor.hear()
        await visitor.close(4401)

    async with daemon_of(forgetful, ten_events) as daemon:
        daemon.answers[REFRESH] = [(200, {"token": "another"})]
        async with opening(url(daemon), TOKEN) as client:
            assert await events_of(client, 1) == [1]
        assert [visitor.authorization for visitor in daemon.visitors] == [f"Bearer {TOKEN}", "Bearer another"]


async def test_requests_that_meet_the_tokens_end_together_all_go_on_with_the_next_one() -> None:
    tokens = iter(["first", "second", "third"])
    both, answered = trio.Event(), trio.Event()
    asked: list[str] = []

    async def source() -> str:
        await trio.lowlevel.checkpoint()
        return next(tokens)

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["Authorization"].removeprefix("Bearer "))
        if asked[-1] == "first" and len(asked) == 1:
            return httpx.Response(200, json={})
        if asked[-1] == "first":
            late = both.is_set() or asked.count("first") == 3
            if late:
                both.set()
                await answered.wait()  # the other request is through with the next token
            else:
                await both.wait()
            return httpx.Response(401, json={"error": "expired"})
        answered.set()
        return httpx.Response(200, json={"token": asked[-1]})

    async with httpx.AsyncClient(base_url="http://daemon", transport=httpx.MockTransport(answer)) as http:
        rest = RestClient("http://daemon", http, source)
        await rest.get("/")
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rest.get, "/")
                nursery.start_soon(rest.get, "/")
    assert asked == ["first", "first", "first", "second", "second"]


async def test_a_token_that_was_refused_is_not_used_again_by_who_goes_on_asking() -> None:
    tokens = iter(["old", "old", "new"])

    async def source() -> str:
        await trio.lowlevel.checkpoint()
        return next(tokens)

    def answer(request: httpx.Request) -> httpx.Response:
        ended = request.headers["Authorization"] == "Bearer old" and asked > 0
        return httpx.Response(401, json={"error": "expired"}) if ended else httpx.Response(200, json={})

    asked = 0
    async with httpx.AsyncClient(base_url="http://daemon", transport=httpx.MockTransport(answer)) as http:
        rest = RestClient("http://daemon", http, source)
        await rest.get("/")
        asked = 1
        with pytest.raises(AccessRefused, match="expired"):
            await rest.get("/")
        assert await rest.get("/") == {}


async def test_a_client_whose_block_has_ended_gives_no_more_items_and_does_not_wait() -> None:
    async with daemon_of(ten_events) as daemon:
        async with opening(url(daemon), TOKEN) as client:
            await events_of(client, 1)
        with pytest.raises(trio.ClosedResourceError):
            await anext(client)


@pytest.mark.extended
async def test_the_present_token_is_not_sent_as_a_newer_one() -> None:
    heard: list[object] = []
    tokens = iter([TOKEN, TOKEN, TOKEN, "another"])

    async def source() -> str:
        await trio.lowlevel.checkpoint()
        return next(tokens)

    async with daemon_of(partial(expiring, heard=heard)) as daemon:
        daemon.answers[REFRESH] = [(400, {"error": "not ours"})] * 3
        async with opening(url(daemon), source) as client:
            assert await events_of(client, 1) == [1]
        assert heard == [{"type": "auth", "data": {"token": "another"}}]


async def test_a_token_that_cannot_be_renewed_is_replaced_by_a_login() -> None:
    heard: list[object] = []
    async with daemon_of(partial(expiring, heard=heard)) as daemon:
        daemon.answers[REFRESH] = [(401, {"error": "Invalid token"})]
        daemon.answers[LOGIN] = [(200, {"token": TOKEN}), (200, {"token": "another"})]
        async with opening(url(daemon), ADMIN) as client:
            assert await events_of(client, 1) == [1]
        assert heard == [{"type": "auth", "data": {"token": "another"}}]


async def test_a_renewal_that_is_refused_for_good_does_not_disturb_what_is_still_coming() -> None:
    async def dying(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.say("token_expiring", {"expires_at": NOW})
        with trio.move_on_after(0.3):
            await visitor.hear()
        await visitor.events(1, 3)
        await visitor.close(4401)

    async with daemon_of(dying, (401, "Invalid token", {})) as daemon:
        daemon.answers[REFRESH] = [(401, {"error": "Invalid token"})]
        daemon.answers[LOGIN] = [(200, {"token": TOKEN}), (401, {"error": "Invalid credentials"})]
        async with opening(url(daemon), ADMIN) as client:
            assert await events_of(client, 3) == [1, 2, 3]
            with pytest.raises(AccessRefused, match="Invalid credentials"):
                await anext(client)


# -- too much for a replay ----------------------------------------------------------------------------------------


def page(first: int, last: int, *, more: bool, epoch: str = "A") -> tuple[int, object]:
    events = [
        {
            "type": "peer_change",
            "timestamp": NOW,
            "seq": seq,
            "data": {"peer_id": f"node-{seq}", "event_type": "added"},
        }
        for seq in range(first, last + 1)
    ]
    return 200, {"epoch": epoch, "oldest_seq": 1, "seq": last, "events": events, "more": more}


async def too_many(visitor: Visitor) -> None:
    await visitor.welcome(6, reason="too_many")
    await visitor.say("status", {"as_of_seq": 6})
    await visitor.events(7, 8)
    await stay(visitor)


async def test_what_is_too_much_for_a_replay_is_fetched_page_by_page() -> None:
    async with daemon_of(too_many) as daemon:
        daemon.answers[HISTORY] = [page(1, 3, more=True), page(4, 8, more=True)]
        async with opening(url(daemon), TOKEN, since=Cursor("A", 0)) as client:
            seen = []
            async for item in client:
                assert isinstance(item, Message)
                seen.append(item.seq if item.seq is not None else item.type)
                assert client.cursor is not None
                if item.seq is not None:
                    assert client.cursor.after == item.seq
                if item.seq == 8:
                    break
        assert seen == ["welcome", 1, 2, 3, 4, 5, 6, "status", 7, 8]
        asked = [each[0] for each in daemon.asked_for(HISTORY)]
        assert asked == [f"{HISTORY}?epoch=A&after=0&limit=1000", f"{HISTORY}?epoch=A&after=3&limit=1000"]


async def test_filters_hold_for_the_pages_of_the_history_too() -> None:
    async with daemon_of(too_many) as daemon:
        daemon.answers[HISTORY] = [page(1, 6, more=False)]
        filters = {"peer_changes": {"peers": ["node-2", "node-5", "node-7"]}}
        async with opening(url(daemon), TOKEN, since=Cursor("A", 0), subscription=filters) as client:
            assert await events_of(client, 3) == [2, 5, 7]
        assert "types=peer_changes" in daemon.asked_for(HISTORY)[0][0]


@pytest.mark.parametrize("answer", [(410, {}), (403, {"error": "no"}), page(4, 6, more=False, epoch="B")])
async def test_a_page_that_cannot_be_had_leaves_a_gap(answer: tuple[int, object]) -> None:
    async with daemon_of(too_many) as daemon:
        daemon.answers[HISTORY] = [page(1, 3, more=True), answer]
        async with opening(url(daemon), TOKEN, since=Cursor("A", 0)) as client:
            assert await next_of(client, Gap) == Gap("A", 4, 6, "too_many")
            assert await events_of(client, 2) == [7, 8]


async def test_a_page_that_is_refused_as_heliosd_never_does_ends_it() -> None:
    async with daemon_of(too_many) as daemon:
        daemon.answers[HISTORY] = [(404, {"error": "no such page here"})]
        async with opening(url(daemon), TOKEN, since=Cursor("A", 0)) as client:
            with pytest.raises(NotUnderstood, match="no such page here"):
                await events_of(client, 1)


async def test_a_token_that_ends_while_pages_are_read_is_replaced_and_leaves_no_gap() -> None:
    async with daemon_of(too_many) as daemon:
        answers = [page(1, 3, more=True), (401, {"error": "expired"}), page(4, 6, more=False)]
        daemon.answers[HISTORY] = answers
        tokens = iter(["first", "second"])

        async def source() -> str:
            await trio.lowlevel.checkpoint()
            return next(tokens)

        async with opening(url(daemon), source, since=Cursor("A", 0)) as client:
            assert await events_of(client, 8) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert daemon.visitors[-1].query["after"] == "3"


@pytest.mark.parametrize("answer", [(503, {"error": "later"}), (200, {}), (200, "no JSON of ours")])
async def test_a_history_that_fails_for_a_moment_is_asked_again(answer: tuple[int, object]) -> None:
    async with daemon_of(too_many) as daemon:
        daemon.answers[HISTORY] = [page(1, 3, more=True), answer, page(4, 6, more=False)]
        async with opening(url(daemon), TOKEN, since=Cursor("A", 0)) as client:
            assert await events_of(client, 8) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert daemon.visitors[-1].query["after"] == "3"


@pytest.mark.parametrize("peers", [[], ["node-2", "node-5", "node-7"]])
async def test_a_history_of_a_daemon_that_has_not_come_as_far_is_not_taken_for_all(peers: list[str]) -> None:
    async with daemon_of(too_many) as daemon:
        daemon.answers[HISTORY] = [page(1, 3, more=False), page(4, 4, more=False), page(5, 6, more=False)]
        filters = {"peer_changes": {"peers": peers}} if peers else None
        async with opening(url(daemon), TOKEN, since=Cursor("A", 0), subscription=filters) as client:
            seen = []
            async for item in client:
                assert not isinstance(item, Gap)
                if isinstance(item, Message) and item.seq is not None:
                    seen.append(item.seq)
                if seen and seen[-1] >= 7:
                    break
        assert seen == ([2, 5, 7] if peers else [1, 2, 3, 4, 5, 6, 7])


# -- living together ----------------------------------------------------------------------------------------------


async def test_a_slow_consumer_is_waited_for_at_the_daemon() -> None:
    """What is not taken stays unsent there; here nothing piles up."""
    sent = 0

    async def flood(visitor: Visitor) -> None:
        nonlocal sent
        await visitor.begin(0)
        while sent < 2000:
            await visitor.say("peer_change", {"peer_id": "x" * 8192}, sent + 1)
            sent += 1
        await stay(visitor)

    async with daemon_of(flood) as daemon, opening(url(daemon), TOKEN) as client:
        assert await events_of(client, 1) == [1]
        before = -1
        while sent != before:
            before = sent
            await trio.sleep(
                0.2
            )  # until the sender is stuck, which shows in nothing but that it sends no more
        assert sent < 1500  # the sender's own buffer grows to some 4 MB, the receiver's not
        assert await events_of(client, 1999) == list(range(2, 2001))


async def test_a_step_that_is_cancelled_loses_nothing() -> None:
    async def dripping(visitor: Visitor) -> None:
        await visitor.begin(0)
        for seq in range(1, 40):
            await visitor.events(seq, seq)
            await trio.sleep(0.003)  # so that cancelling meets every state of the connection
        await stay(visitor)

    async with daemon_of(dripping) as daemon, opening(url(daemon), TOKEN) as client:
        seen: list[int] = []
        while len(seen) < 39:
            with trio.move_on_after(0.002):
                item = await anext(client)
                if isinstance(item, Message) and item.seq is not None:
                    seen.append(item.seq)
        assert seen == list(range(1, 40))


async def test_silence_is_noticed_unless_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "SILENCE_SECONDS", 1.5)

    async def silent(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.events(1, 50)
        await trio.sleep_forever()

    async def slow_to_read(visitor: Visitor) -> None:
        await visitor.begin(50)
        await stay(visitor)

    async with daemon_of(silent, slow_to_read) as daemon, opening(url(daemon), TOKEN, notices=True) as client:
        assert await events_of(client, 3) == [1, 2, 3]
        await trio.sleep(2.5)  # the consumer is slow, which is no silence of the daemon
        assert await events_of(client, 47) == list(range(4, 51))
        lost = await anext(client)
        assert isinstance(lost, Disconnected)
        assert lost.code == 1006


@pytest.mark.extended
async def test_a_daemon_that_only_answers_pings_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "SILENCE_SECONDS", 3.0)
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.1)

    async def quiet(visitor: Visitor) -> None:
        await visitor.begin(0)
        with trio.move_on_after(4.0):
            while data := await visitor.stream.receive_some(4096):
                assert data[0] == 0x89  # a ping, masked
                payload = bytes(byte ^ data[2 + at % 4] for at, byte in enumerate(data[6:]))
                await visitor.stream.send_all(frame(0xA, payload))
        await visitor.events(1, 1)
        await stay(visitor)

    async with daemon_of(quiet) as daemon, opening(url(daemon), TOKEN) as client:
        assert await events_of(client, 1) == [1]
        assert len(daemon.visitors) == 1


async def test_a_message_that_is_too_large_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_MESSAGE_BYTES", 10_000)

    async def large(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.say("latency", "x" * 20_000)
        await trio.sleep_forever()

    with trio.fail_after(SECONDS):
        async with daemon_of(large) as daemon, opening(url(daemon), TOKEN) as client:
            with pytest.raises(NotUnderstood, match="large"):
                await take(client, 3)


async def test_leaving_closes_properly_even_if_the_daemon_pings_all_the_time() -> None:
    async def pinging(visitor: Visitor) -> None:
        await visitor.begin(0)
        async with trio.open_nursery() as nursery:

            async def ping() -> None:
                while True:
                    await visitor.stream.send_all(ping_frame() * 20)
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(ping)
            while data := await visitor.stream.receive_some(4096):
                if b"\x88" in {data[:1], data[-8:-7]}:  # a close frame with a code, masked
                    break
            left.set()
            nursery.cancel_scope.cancel()

    left = trio.Event()
    async with daemon_of(pinging) as daemon:
        async with opening(url(daemon), TOKEN) as client:
            await take(client, 2)
        await left.wait()


@pytest.mark.parametrize("fault", [b"\xc1\x00", b"\x83\x00", b"\x89\x7e\x00\x80", b"\x81\x02\xff\xfe"])
async def test_a_fault_in_the_daemons_framing_ends_it(fault: bytes) -> None:
    async def faulty(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.events(1, 2)
        await visitor.stream.send_all(fault)
        await stay(visitor)

    async with daemon_of(faulty) as daemon, opening(url(daemon), TOKEN) as client:
        assert await events_of(client, 2) == [1, 2]
        with pytest.raises(NotUnderstood):
            await anext(client)


async def test_a_reader_that_stumbles_is_a_connection_that_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stumble(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise LocalProtocolError("as wsproto says when it is asked to answer behind a close")

    monkeypatch.setattr(WebSocketConnection, "_handle_ping_event", stumble)

    async def pinging(visitor: Visitor) -> None:
        await visitor.begin(0)
        await visitor.events(1, 20)
        await visitor.stream.send_all(ping_frame())
        await stay(visitor)

    async def rest(visitor: Visitor) -> None:
        after = int(visitor.query["after"])
        await visitor.welcome(20, replayed=20 - after)
        await visitor.events(after + 1, 21)
        await stay(visitor)

    async with daemon_of(pinging, rest) as daemon, opening(url(daemon), TOKEN) as client:
        seen = await events_of(client, 1)
        await trio.sleep(
            0.1
        )  # the consumer is busy, and nothing reports how far the reader has gone meanwhile
        assert seen + await events_of(client, 20) == list(range(1, 22))


async def test_an_error_of_the_user_rises_as_itself() -> None:
    async with daemon_of(ten_events) as daemon:
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012
            async with opening(url(daemon), TOKEN) as client:
                await events_of(client, 1)
                raise KeyError("mine")


async def test_leaving_while_nobody_answers_is_quick() -> None:
    async def deaf(visitor: Visitor) -> None:
        await visitor.begin(0)
        await trio.sleep_forever()

    async with daemon_of(deaf) as daemon:
        started = trio.current_time()
        async with opening(url(daemon), TOKEN) as client:
            await take(client, 2)
        assert trio.current_time() - started < at_most(websocket.CLOSE_SECONDS + 1)
