"""The two ways to read an upgrade request: whatever the fast one takes, the strict one reads the same."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.uri import parse_uri
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request
from wsproto.extensions import PerMessageDeflate

from heliosd.web.http import websocket_upgrade
from heliosd.web.http.request_head import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    BadHead,
    HeadBuffer,
    parse,
)
from heliosd.web.http.websocket_upgrade import Upgrade, ordinary_upgrade, upgrade_of

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
CHROMIUM = (
    b"GET /ws/cluster?token=eyJhbGciOiJIUzI1NiJ9.e30.c2ln&types=state_change,status HTTP/1.1",
    b"Host: helios.example:8443",
    b"Connection: Upgrade",
    b"Pragma: no-cache",
    b"Cache-Control: no-cache",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0",
    b"Upgrade: websocket",
    b"Origin: https://helios.example:8443",
    b"Sec-WebSocket-Version: 13",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
    b"Cookie: a=b; c=d",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Sec-WebSocket-Protocol: heliosd.v1, bearer.eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
)
FIREFOX = (
    b"GET /ws/cluster HTTP/1.1",
    b"Host: [::1]:8080",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Accept: */*",
    b"Accept-Language: en-US,en;q=0.5",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Sec-WebSocket-Version: 13",
    b"Origin: http://[::1]:8080",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"Sec-WebSocket-Key: " + KEY,
    b"Connection: keep-alive, Upgrade",
    b"Sec-Fetch-Dest: empty",
    b"Sec-Fetch-Mode: websocket",
    b"Sec-Fetch-Site: same-origin",
    b"Pragma: no-cache",
    b"Cache-Control: no-cache",
    b"Upgrade: websocket",
)
NODE_WS = (
    b"GET /ws/cluster?since=7b1e.42 HTTP/1.1",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Host: 127.0.0.1:8080",
)
GORILLA = (
    b"GET /ws/cluster HTTP/1.1",
    b"Host: node-1.helios.internal:8080",
    b"User-Agent: Go-http-client/1.1",
    b"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
    b"Upgrade: websocket",
)
CURL = (
    b"GET /ws/cluster HTTP/1.1",
    b"Host: localhost:8080",
    b"User-Agent: curl/8.15.0",
    b"Accept: */*",
    b"Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
    b"Connection: Upgrade",
)
WEBSOCAT = (
    b"GET /ws/cluster?token=eyJhbGciOiJIUzI1NiJ9.e30.c2ln HTTP/1.1",
    b"Host: 127.0.0.1:8080",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
)
SENT = (CHROMIUM, FIREFOX, NODE_WS, GORILLA, CURL, WEBSOCAT)


def request(*lines: bytes) -> bytes:
    return b"\r\n".join((*lines, b"", b""))


def read_strictly(data: bytes) -> Upgrade | None:
    """What the front makes of the same bytes without the fast way; BadHead where it refuses them."""
    assert HeadBuffer().feed(data) == (data, b""), "these are not the bytes of one head"
    return upgrade_of(parse(data))


# -- requests that are sent --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", SENT, ids=["chromium", "firefox", "ws", "gorilla", "curl", "websocat"])
def test_the_request_of_a_common_client_is_read_fast(lines: tuple[bytes, ...]) -> None:
    upgrade = ordinary_upgrade(request(*lines))
    assert upgrade is not None
    assert upgrade == read_strictly(request(*lines))
    assert upgrade.key == KEY


@pytest.mark.parametrize(
    "uri", ["ws://localhost:8080/ws/cluster", "wss://[::1]/ws/cluster?token=a.b-c_d&x=%20"]
)
def test_the_request_of_websockets_is_read_fast(uri: str) -> None:
    client = ClientProtocol(
        parse_uri(uri),
        origin="https://a.example",  # type: ignore[arg-type]
        extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=True)],
        subprotocols=["heliosd.v1"],  # type: ignore[list-item]
    )
    client.send_request(client.connect())
    data = b"".join(client.data_to_send())
    upgrade = ordinary_upgrade(data)
    assert upgrade is not None
    assert upgrade == read_strictly(data)
    assert upgrade.subprotocols == ("heliosd.v1",)
    assert upgrade.query == uri.partition("?")[2]


def test_the_request_of_wsproto_is_read_fast() -> None:
    wanted = Request(
        "a.example", "/ws/cluster?x=1", extensions=[PerMessageDeflate()], subprotocols=["a", "b"]
    )
    data = WSConnection(ConnectionType.CLIENT).send(wanted)
    upgrade = ordinary_upgrade(data)
    assert upgrade is not None
    assert upgrade == read_strictly(data)
    assert upgrade.subprotocols == ("a", "b")


# -- requests that are not ---------------------------------------------------------------------------------------

NAMES = [line.partition(b":")[0] for lines in SENT for line in lines[1:]]
UNUSUAL = [
    b"Content-Length", b"Transfer-Encoding", b"HTTP2-Settings", b"Expect", b"TE", b"Trailer", b"X", b"X_Y", b"1x",
    b"", b"X Y", b"Upgrade ", b" Upgrade", b"Sec-WebSocket-Key1", b"Sec-WebSocket-Accept", b"\xc3\xa9", b"a:b",
]  # fmt: skip
VALUES = [
    b"", b" ", b"0", b"5", b"1048577", b"chunked", b"websocket", b"WebSocket", b"websocket, h2c", b"h2c",
    b"websocket/13", b"upgrade", b"Upgrade, keep-alive", b"Keep-Alive,Upgrade", b"keep-alive, Upgrade, close",
    b"close", b"upgrade, content-length", b"upgrade,", b"13", b"8", b"13, 8", b" 13", b"13 ", b"013", KEY,
    KEY + b",", KEY[:-2], KEY + b" " + KEY, b"dGhlIHNhbXBsZSBub25jZR=", b"a", b"a:80", b"a:", b"a:123456",
    b"a:x", b"[::1]", b"[::1]:80", b"[a.b]", b"[", b"[]", b"::1", b"a b", b"a/b", b"user@a", b"a,b", b"*", b"\xff",
    b"\xc3\xa9", b"a\tb", b"a\x00b", b"a\x7fb", b"a\rb", b"a\nb", b"a\r\n b", b"null", b",,", b" , a ,b",
    b"permessage-deflate,,x",
    b"Bearer  x", b"Bearer x, Bearer y", b"\"", b"100-continue",
]  # fmt: skip
REQUEST_LINES = [
    b"GET /ws/cluster HTTP/1.1", b"GET /ws/cluster? HTTP/1.1", b"GET /ws/cluster?? HTTP/1.1",
    b"GET /ws/cluster?a#b HTTP/1.1", b"GET /ws/cluster#a HTTP/1.1", b"GET /ws/cluster/ HTTP/1.1",
    b"GET /ws/Cluster HTTP/1.1", b"GET /ws/%63luster HTTP/1.1", b"GET //ws/cluster HTTP/1.1",
    b"GET http://a/ws/cluster HTTP/1.1", b"GET /ws/cluster;a HTTP/1.1", b"GET /ws/clusters?a HTTP/1.1",
    b"HEAD /ws/cluster HTTP/1.1", b"POST /ws/cluster HTTP/1.1", b"get /ws/cluster HTTP/1.1",
    b"GET /ws/cluster HTTP/1.0", b"GET /ws/cluster HTTP/2.0", b"GET /ws/cluster http/1.1",
    b"GET  /ws/cluster HTTP/1.1", b"GET /ws/cluster  HTTP/1.1", b"GET /ws/cluster HTTP/1.1 ",
    b"GET /ws/cluster", b" GET /ws/cluster HTTP/1.1",
    b"GET /ws/cluster?\xc3\xa9 HTTP/1.1", b"GET /ws/cluster?a b HTTP/1.1", b"GET / HTTP/1.1",
]  # fmt: skip
SPACINGS = [b":", b": ", b":  ", b":\t", b" : ", b"; ", b": \r\n ", b""]
ENDS = [b"\r\n\r\n", b"\r\n\r\nbody", b"\r\n", b"", b"\n\n", b"\r\n\r\n\r\n", b"\r\n\n", b"\r\r\n\r\n"]

Lines = list[bytes]
Change = Callable[[Lines], Lines]


def at(lines: Lines, where: int) -> int:
    """The number of one of the headers."""
    return 1 + where % (len(lines) - 1)


def moved(from_: int, to: int) -> Change:
    def change(lines: Lines) -> Lines:
        rest = list(lines)
        rest.insert(at(lines, to), rest.pop(at(lines, from_)))
        return rest

    return change


def rewritten(where: int, new: Callable[[bytes, bytes], bytes]) -> Change:
    def change(lines: Lines) -> Lines:
        number = at(lines, where)
        name, _, value = lines[number].partition(b": ")
        return [*lines[:number], new(name, value), *lines[number + 1 :]]

    return change


def doubled(where: int, value: bytes | None) -> Change:
    def change(lines: Lines) -> Lines:
        line = lines[at(lines, where)]
        return [*lines, line if value is None else line.partition(b": ")[0] + b": " + value]

    return change


def left_out(where: int) -> Change:
    return lambda lines: [line for number, line in enumerate(lines) if number != at(lines, where)]


def asking(line: bytes) -> Change:
    return lambda lines: [line, *lines[1:]]


PLACES = st.integers(0, 30)
CASES = st.sampled_from([bytes.lower, bytes.upper, bytes.swapcase, bytes.title])
VALUE = st.sampled_from(VALUES)
NAME = st.sampled_from(NAMES + UNUSUAL)
QUERY = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=20)
REWRITINGS = st.one_of(
    st.builds(lambda case: lambda name, value: case(name) + b": " + value, CASES),
    st.builds(lambda case: lambda name, value: name + b": " + case(value), CASES),
    st.builds(lambda by: lambda name, value: name + by + value, st.sampled_from(SPACINGS)),
    st.builds(
        lambda end: lambda name, value: name + b": " + value + end,
        st.sampled_from([b" ", b"\t", b",", b"\r"]),
    ),
    st.builds(lambda other: lambda name, value: other + b": " + value, NAME),
    st.builds(lambda other: lambda name, value: name + b": " + other, VALUE),
)
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(moved, PLACES, PLACES),
    st.builds(rewritten, PLACES, REWRITINGS),
    st.builds(doubled, PLACES, st.none() | VALUE),
    st.builds(left_out, PLACES),
    st.builds(lambda name, value: lambda lines: [*lines, name + b": " + value], NAME, VALUE),
    st.builds(asking, st.sampled_from(REQUEST_LINES)),
    st.builds(lambda text: asking(b"GET /ws/cluster?" + text.encode("latin-1") + b" HTTP/1.1"), QUERY),
)


def applied(lines: tuple[bytes, ...], todo: list[Change], end: bytes, byte: tuple[int, int] | None) -> bytes:
    changed = list(lines)
    for change in todo:
        changed = change(changed)
    data = b"\r\n".join(changed) + end
    if byte is None:
        return data
    where = byte[0] % (len(data) + 1)
    return data[:where] + (b"" if byte[1] > 0xFF else bytes([byte[1]])) + data[where + 1 :]


BYTES = st.none() | st.tuples(st.integers(0, 2000), st.integers(0, 0x140))
MUTATED = st.builds(
    applied,
    st.sampled_from(SENT),
    st.lists(CHANGES, max_size=4),
    st.sampled_from([b"\r\n\r\n"] * 12 + ENDS),
    BYTES,
)


@given(MUTATED)
def test_what_is_read_fast_the_strict_way_reads_the_same(data: bytes) -> None:
    fast = ordinary_upgrade(data)
    if fast is not None:
        assert fast == read_strictly(data)


KEYS = st.binary(min_size=16, max_size=16).map(base64.b64encode)
BESIDE = st.sampled_from(
    [b"", b"X-Sec-WebSocket-Key: %s", b"Accept: Sec-WebSocket-Key: %s", b"Sec-WebSocket-Key: %s"]
)


@given(st.sampled_from(SENT), BESIDE, st.lists(st.tuples(KEYS, KEYS), min_size=2, max_size=2))
def test_the_next_request_of_a_program_is_read_with_its_own_key(
    lines: tuple[bytes, ...], beside: bytes, keys: list[tuple[bytes, bytes]]
) -> None:
    for key, other in [(keys[0][0], keys[0][0]), *keys]:
        more = [beside % other] if beside else []
        data = request(lines[0], *more, *(line.replace(KEY, key) for line in lines[1:]))
        fast = ordinary_upgrade(data)
        assert fast == read_strictly(data) if not beside else fast is None or fast == read_strictly(data)


def test_remembered_requests_hold_no_secret_and_are_limited_in_number() -> None:
    with patch.dict(websocket_upgrade.known_forms, clear=True):
        kept = websocket_upgrade.known_forms
        for number in range(100):
            data = request(*CHROMIUM[:1], b"Host: a%d.example" % number, *FIREFOX[2:])
            assert ordinary_upgrade(data) is not None
        assert len(kept) == 64
        kept.clear()
        secrets = b"Authorization: Bearer s3cret", b"Cookie: s=s3cret", b"X-Key: s3cret"
        protocol = (*FIREFOX, b"Sec-WebSocket-Protocol: heliosd.v1, bearer.s3cret")
        for lines in [protocol, *((*FIREFOX, secret) for secret in secrets)]:
            assert ordinary_upgrade(request(*lines)) is not None
        assert b"s3cret" not in repr(kept).encode()
        assert len(kept) == 3  # not the one with a header of which nothing is known


OWN_LINES = st.lists(
    st.tuples(
        st.sampled_from(
            [b"Authorization", b"cookie", b"COOKIE", b"Sec-WebSocket-Protocol", b"sec-websocket-key"]
        ),
        st.sampled_from([b": ", b":", b":\t "]),
        st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x101), max_size=6),
        st.sampled_from([b"", b" "]),
    ),
    max_size=3,
)


@given(st.sampled_from(SENT), st.lists(OWN_LINES, min_size=2, max_size=4), st.integers(1, 20))
def test_what_is_each_clients_own_is_read_anew_from_requests_that_are_alike(
    lines: tuple[bytes, ...], requests: list[list[tuple[bytes, bytes, str, bytes]]], place: int
) -> None:
    for own in requests:
        more = [name + colon + value.encode("latin-1", "replace") + end for name, colon, value, end in own]
        data = request(*lines[:place], *more, *lines[place:])
        for _ in range(2):
            fast = ordinary_upgrade(data)
            if fast is not None:
                assert fast == read_strictly(data)


@given(st.sampled_from(SENT), st.randoms(use_true_random=False), st.sampled_from([bytes.lower, bytes.upper]))
def test_order_and_case_of_headers_do_not_matter(
    lines: tuple[bytes, ...], rng: random.Random, case: Callable[[bytes], bytes]
) -> None:
    headers = [case(name) + b": " + value for name, _, value in (line.partition(b": ") for line in lines[1:])]
    rng.shuffle(headers)
    assert ordinary_upgrade(request(lines[0], *headers)) == read_strictly(request(*lines))


OTHERS = st.from_regex(r"X-[A-Za-z0-9-]{1,9}: [!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


@given(
    st.from_regex(r"[!-\"$-~]{0,40}", fullmatch=True),
    st.lists(OTHERS, max_size=5, unique_by=lambda header: header.partition(":")[0].lower()),
)
def test_any_query_and_any_other_headers_are_ordinary(query: str, others: list[str]) -> None:
    data = request(
        b"GET /ws/cluster?" + query.encode() + b" HTTP/1.1",
        *WEBSOCAT[1:],
        *(other.encode() for other in others),
    )
    fast = ordinary_upgrade(data)
    assert fast is not None
    assert fast == read_strictly(data)
    assert fast.query == query


@pytest.mark.parametrize("value", [b"a", b"a b", b"x" * 1000])
@pytest.mark.parametrize("name", [b"Host", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version"])
def test_a_header_that_may_stand_once_is_refused_twice(name: bytes, value: bytes) -> None:
    assert ordinary_upgrade(request(*WEBSOCAT, name + b": " + value)) is None
    assert ordinary_upgrade(request(*WEBSOCAT, name.lower() + b": " + value)) is None


@pytest.mark.parametrize("name", UNUSUAL[:7])
def test_a_request_with_another_header_is_not_remembered(name: bytes) -> None:
    with patch.dict(websocket_upgrade.known_forms, clear=True):
        for spelled in (name, name.lower(), name.upper()):
            ordinary_upgrade(request(*WEBSOCAT, spelled + b": 0"))
        assert not websocket_upgrade.known_forms


# -- how long they may be ----------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """A request of exactly so many bytes."""
    lack = size - len(request(*WEBSOCAT, b"X: "))
    return request(*WEBSOCAT, b"X: " + b"y" * lack)


def test_both_ways_stop_at_the_same_lengths() -> None:
    for size in range(MAX_HEAD_BYTES - 2, MAX_HEAD_BYTES + 3):
        agree(padded(size), taken=size <= MAX_HEAD_BYTES)
    room = MAX_TARGET_BYTES - len("/ws/cluster?")
    for size in range(room - 2, room + 3):
        agree(request(b"GET /ws/cluster?" + b"q" * size + b" HTTP/1.1", *CURL[1:]), taken=size <= room)
    for count in range(MAX_HEADERS - 2, MAX_HEADERS + 3):
        others = [b"X-%d: y" % number for number in range(count - len(CURL) + 1)]
        agree(request(*CURL, *others), taken=count <= MAX_HEADERS)


def agree(data: bytes, *, taken: bool) -> None:
    fast = ordinary_upgrade(data)
    assert (fast is not None) is taken
    if taken:
        assert fast == read_strictly(data)
    else:
        with pytest.raises(BadHead):
            parse(data)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\r\n\r\n")
def test_no_bytes_behind_or_before_a_request_are_passed_over(junk: bytes) -> None:
    whole = request(*CHROMIUM)
    if junk:
        assert ordinary_upgrade(whole + junk) is None
        assert ordinary_upgrade(junk + whole) is None
    assert ordinary_upgrade(junk) is None


def test_a_part_of_a_request_is_not_read() -> None:
    whole = request(*CHROMIUM)
    assert [end for end in range(len(whole)) if ordinary_upgrade(whole[:end]) is not None] == []


@pytest.mark.parametrize(
    "line", [b"X: " + b" " * 15_000 + b"\x00", b"X: " + b"a " * 7_500 + b"\x00", b"a" * 15_000]
)
def test_a_line_made_to_be_read_again_and_again_is_read_once(line: bytes) -> None:
    for _ in range(100):  # were it quadratic, minutes
        assert ordinary_upgrade(request(*WEBSOCAT, line)) is None
