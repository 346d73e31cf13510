"""Request heads: what RFC 9112 allows without doubt is read, all else is refused with the right status."""

from __future__ import annotations

import base64
from contextlib import suppress

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.config.addresses import parse_host_header
from heliosd.web.http.request_head import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    BadHead,
    HeadBuffer,
    RequestHead,
    parse,
    websocket_key,
)

KEY = base64.b64encode(bytes(16))


def head(*lines: bytes, request: bytes = b"GET / HTTP/1.1", host: bytes | None = b"localhost:8080") -> bytes:
    hosts = () if host is None else (b"Host: " + host,)
    return b"\r\n".join((request, *hosts, *lines, b"", b""))


def refused(raw: bytes) -> int:
    with pytest.raises(BadHead) as refusal:
        parse(raw)
    return refusal.value.status


def upgrade(
    target: bytes = b"/ws/cluster",
    *,
    method: bytes = b"GET",
    version: bytes = b"1.1",
    **changes: bytes | None,
) -> RequestHead:
    fields: dict[str, bytes | None] = {
        "Upgrade": b"websocket",
        "Connection": b"keep-alive, Upgrade",
        "Sec-WebSocket-Version": b"13",
        "Sec-WebSocket-Key": KEY,
    }
    fields |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = (name.encode() + b": " + value for name, value in fields.items() if value is not None)
    return parse(head(*lines, request=method + b" " + target + b" HTTP/" + version))


def upgrade_refused(asked: RequestHead) -> BadHead:
    with pytest.raises(BadHead) as refusal:
        websocket_key(asked)
    return refusal.value


def test_a_plain_request_is_read_into_its_parts() -> None:
    read = parse(head(b"X-A:1", b"x-a: \t two words \t", request=b"GET /a%2Fb?c=d?e HTTP/1.1"))
    assert (read.method, read.target, read.version) == ("GET", b"/a%2Fb?c=d?e", "1.1")
    assert (read.path, read.query) == ("/a%2Fb", "c=d?e")
    assert read.all(b"x-a") == (b"1", b"two words")
    assert read.header(b"host") == b"localhost:8080"
    assert read.header(b"absent") is None
    assert read.body_bytes == 0


def test_a_header_that_may_stand_once_is_refused_twice() -> None:
    read = parse(head(b"X-A: 1", b"X-A: 1"))
    with pytest.raises(BadHead):
        read.header(b"x-a")


def test_the_length_of_the_body_is_read() -> None:
    assert parse(head(b"Content-Length: 12", request=b"POST / HTTP/1.1")).body_bytes == 12
    assert parse(head(b"Content-Length: 0")).body_bytes == 0
    assert parse(head(f"Content-Length: {MAX_BODY_BYTES}".encode())).body_bytes == MAX_BODY_BYTES


def test_http_1_0_needs_no_host() -> None:
    assert parse(head(request=b"GET /healthz HTTP/1.0", host=None)).version == "1.0"


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding:",),
        (b"Content-Length: +4",),
        (b"Content-Length: -1",),
        (b"Content-Length: 4,4",),
        (b"Content-Length: 4, 4",),
        (b"Content-Length: 0x4",),
        (b"Content-Length: 4 4",),
        (b"Content-Length: 4_0",),
        (b"Content-Length: 1e2",),
        (b"Content-Length:",),
        ("Content-Length: ٤".encode(),),
        (b"Content-Length: " + b"1" * 5000,),
        (b"Content-Length: 4", b"Content-Length: 4"),
        (b"Content-Length: 4", b"Content-Length: 5"),
        (b"Content-Length : 4",),
        (b"Content-Length\t: 4",),
        (b" X-First: folded into nothing",),
        (b"X-A: 1", b" folded"),
        (b"X-A: 1", b"\tfolded"),
        (b": no name",),
        (b"no colon",),
        (b"X A: blank in the name",),
        ("X-Ä: 1".encode(),),
        (b"X-A: a\x00b",),
        (b"X-A: a\x01b",),
        (b"X-A: a\x7fb",),
        (b"X-A: a\nX-B: bare LF",),
        (b"X-A: a\rX-B: bare CR",),
        (b"X-A: ends in CR\r",),
        (b"Host: other",),
    ],
)
def test_a_head_that_two_programs_may_read_differently_is_400(lines: tuple[bytes, ...]) -> None:
    assert refused(head(*lines, request=b"POST / HTTP/1.1")) == 400


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://localhost/ HTTP/1.1",
        b"GET https://localhost:8081/ws/cluster HTTP/1.1",
        b"GET http://localhost:8080.evil/ HTTP/1.1",
        b"GET http://user@localhost:8080/ HTTP/1.1",
        b"GET http://localhost:8080@evil/ HTTP/1.1",
        b"GET http://localhost:8080#fragment HTTP/1.1",
        b"GET http://localhost:8080\\ HTTP/1.1",
        b"GET http:///a HTTP/1.1",
        b"GET http://?a HTTP/1.1",
        b"GET ftp://localhost:8080/ HTTP/1.1",
        b"GET http:localhost:8080/ HTTP/1.1",
        b"GET localhost:8080 HTTP/1.1",
        b"CONNECT localhost:443 HTTP/1.1",
        b"CONNECT /ws/cluster HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"PRI / HTTP/1.1",
        b"get / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET / a HTTP/1.1",
        b"GET /",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/11",
        b"GET / HTTP/1.10",
        b"GET /a#fragment HTTP/1.1",
        "GET /ä HTTP/1.1".encode(),
        b"GET /\x00 HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"",
    ],
)
def test_a_doubtful_request_line_is_400(request_line: bytes) -> None:
    assert refused(head(request=request_line)) == 400


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.1"])
def test_another_version_is_505(version: bytes) -> None:
    assert refused(head(request=b"GET / " + version)) == 505


@pytest.mark.parametrize(
    "host",
    [None, b"", b"a b", b"a/b", b"user@host", b":", b"host::", b"host:port", b"[::1", b"a,b", b"host:123456"],
)
def test_a_missing_or_malformed_host_is_400(host: bytes | None) -> None:
    assert refused(head(host=host)) == 400


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:8080", b"[::1]:8080", b"[::1]", b"a_b.example."])
def test_an_ordinary_host_is_taken(host: bytes) -> None:
    assert parse(head(host=host)).header(b"host") == host


def test_the_length_of_a_chunked_body_is_not_known() -> None:
    for coding in (b"chunked", b"Chunked"):
        assert parse(head(b"Transfer-Encoding: " + coding, request=b"POST / HTTP/1.1")).body_bytes is None
    assert refused(head(b"Transfer-Encoding: chunked", request=b"POST / HTTP/1.0")) == 400


@pytest.mark.parametrize(
    ("target", "host", "read"),
    [
        (b"http://localhost:8080/a?b", b"localhost:8080", b"/a?b"),
        (b"HTTPS://LOCALHOST:8080/a", b"localhost:8080", b"/a"),
        (b"http://localhost:8080", b"LocalHost:8080", b"/"),
        (b"http://localhost:8080?b=http://c/d", b"localhost:8080", b"/?b=http://c/d"),
        (b"http://[::1]:8080/", b"[::1]:8080", b"/"),
        (b"http://a:/b", b"a", b"/b"),
        (b"http://a/b", b"a:", b"/b"),
    ],
)
def test_an_absolute_form_is_read_if_its_authority_is_hosts(target: bytes, host: bytes, read: bytes) -> None:
    assert parse(head(request=b"GET " + target + b" HTTP/1.1", host=host)).target == read


def test_a_later_minor_version_is_read_as_1_1() -> None:
    assert parse(head(request=b"GET / HTTP/1.2")).version == "1.1"


def test_an_empty_port_of_host_is_none() -> None:
    assert parse(head(host=b"a:")).header(b"host") == b"a:"
    assert parse_host_header("a:") == ("a", None)


@pytest.mark.parametrize(
    ("lines", "version", "kept"),
    [
        ((), b"1.1", True),
        ((b"Connection: keep-alive",), b"1.1", True),
        ((b"Connection: Upgrade, Close",), b"1.1", False),
        ((b"Connection: keep-alive", b"Connection: close"), b"1.1", False),
        ((b"Connection: keep-alive",), b"1.0", False),
        ((), b"1.0", False),
    ],
)
def test_a_connection_is_kept_in_http_1_1_unless_the_client_closes_it(
    lines: tuple[bytes, ...], version: bytes, kept: bool
) -> None:
    assert parse(head(*lines, request=b"GET / HTTP/" + version)).keep_alive is kept


def test_one_empty_line_may_precede_a_request_and_no_second_one() -> None:
    for pieces in ([b"\r\n" + head()], [b"\r", b"\n", head()], [b"\r\n", head()]):
        buffer = HeadBuffer()
        assert [buffer.feed(piece) for piece in pieces][-1] == (head(), b"")
    whole = HeadBuffer().feed(b"\r\n\r\n" + head())
    assert whole is not None
    assert refused(whole[0]) == 400


def test_a_body_over_the_limit_is_413() -> None:
    assert refused(head(f"Content-Length: {MAX_BODY_BYTES + 1}".encode(), request=b"POST / HTTP/1.1")) == 413


def test_the_limits_are_exact() -> None:
    def of_size(size: int) -> bytes:
        short = head(b"X: ")
        return head(b"X: " + b"a" * (size - len(short)))

    def with_target(size: int) -> bytes:
        return head(request=b"GET /" + b"a" * (size - 1) + b" HTTP/1.1")

    assert parse(of_size(MAX_HEAD_BYTES)).method == "GET"
    assert refused(of_size(MAX_HEAD_BYTES + 1)) == 431
    assert len(parse(with_target(MAX_TARGET_BYTES)).target) == MAX_TARGET_BYTES
    assert refused(with_target(MAX_TARGET_BYTES + 1)) == 414
    assert refused(with_target(64 * 1024)) == 414
    assert len(parse(head(*[b"X: y"] * 99)).headers) == 100
    assert refused(head(*[b"X: y"] * 100)) == 431
    assert refused(head(*[b"X: y"] * 1500)) == 431


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_bad_head(raw: bytes) -> None:
    for sent in (raw, raw + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + raw + b"\r\n\r\n"):
        with suppress(BadHead):
            websocket_key(parse(sent))


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.!#$%&'*+^`|~", min_size=1, max_size=20)
VALUE = st.text("".join(map(chr, (*range(0x20, 0x7F), *range(0x80, 0x100)))), max_size=40)
SPECIAL = {"host", "content-length", "transfer-encoding", "upgrade", "http2-settings"}


@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"\t", b"a", b"\x00", b"\x0b", b"\x1f", b"\x7f", b"\x80"])
    )
)
def test_what_is_refused_in_an_unfinished_head_is_refused_in_a_whole_one(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    refusal: BadHead | None = None
    try:
        HeadBuffer().feed(start + value + b"x")
    except BadHead as bad:
        refusal = bad
    if refusal is not None:
        assert refused(start + value + b"x\r\n\r\n") == refusal.status
    elif b"\r\n" not in value:
        assert parse(start + value + b"x\r\n\r\n").header(b"x") is not None


@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "M-SEARCH"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=60),
    st.lists(st.tuples(TOKEN.filter(lambda name: name.lower() not in SPECIAL), VALUE), max_size=20),
)
def test_a_head_built_from_valid_parts_reads_back_as_them(
    method: str, rest: str, fields: list[tuple[str, str]]
) -> None:
    lines = (f"{name}: {value}".encode("latin-1") for name, value in fields)
    raw = head(*lines, request=f"{method} /{rest} HTTP/1.1".encode())
    read = parse(raw)
    assert (read.method, read.target) == (method, b"/" + rest.encode())
    assert read.headers[1:] == tuple(
        (name.lower().encode(), value.strip(" ").encode("latin-1")) for name, value in fields
    )
    # Another strict reader finds the same.
    h11_connection = h11.Connection(h11.SERVER)
    h11_connection.receive_data(raw)
    theirs = h11_connection.next_event()
    assert isinstance(theirs, h11.Request)
    assert (theirs.method, theirs.target) == (method.encode(), read.target)
    assert tuple(theirs.headers) == read.headers


@given(st.data())
def test_it_does_not_matter_in_which_pieces_a_head_comes(data: st.DataObject) -> None:
    raw = head(b"X-A: b", b"X-C: d") + b"and what follows"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1))))
    whole: tuple[bytes, bytes] | None = None
    buffer, sent = HeadBuffer(), 0
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        whole = buffer.feed(raw[start:end])
        sent = end
        if whole is not None:
            break
    assert whole is not None
    assert whole[0] + whole[1] == raw[:sent]
    assert whole[0] == head(b"X-A: b", b"X-C: d")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n", 400),
        (b"GET / HTTP/1.1\rHost", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES, 431),
    ],
)
def test_a_hopeless_head_is_refused_before_it_is_whole(sent: bytes, status: int) -> None:
    buffer = HeadBuffer()

    def drip() -> None:
        for at in range(len(sent)):
            buffer.feed(sent[at : at + 1])

    with pytest.raises(BadHead) as dripped:
        drip()
    assert dripped.value.status == status
    with pytest.raises(BadHead) as at_once:
        HeadBuffer().feed(sent)
    assert at_once.value.status == status


def test_an_ordinary_request_asks_for_no_upgrade() -> None:
    assert websocket_key(parse(head(request=b"POST /api/cluster/peers HTTP/1.1"))) is None
    assert websocket_key(parse(head(b"Connection: upgrade"))) is None


def test_a_valid_upgrade_yields_its_key() -> None:
    assert websocket_key(upgrade()) == KEY
    assert websocket_key(upgrade(b"/ws/cluster?token=a.b.c")) == KEY
    assert websocket_key(upgrade(Upgrade=b"WebSocket", Connection=b"UPGRADE")) == KEY


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"//ws/cluster",
        b"/ws%2fcluster",
        b"/ws/cluster/",
        b"/WS/cluster",
        b"/ws/cluster/../cluster",
        b"/ws/cluster;a",
        b"/api/cluster/status",
    ],
)
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c, WebSocket"])
def test_a_websocket_upgrade_anywhere_else_is_404(target: bytes, protocol: bytes) -> None:
    assert upgrade_refused(upgrade(target, Upgrade=protocol)).status == 404


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websockets", b""])
def test_an_upgrade_to_anything_else_is_no_upgrade(protocol: bytes) -> None:
    settings = b"AAMAAABkAAQAAP__"
    for target in (b"/", b"/api/cluster/status", b"//ws/cluster"):
        assert websocket_key(upgrade(target, Upgrade=protocol, HTTP2_Settings=settings)) is None


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"short",
        KEY[:-1],
        KEY + b"=",
        base64.b64encode(bytes(15)),
        base64.b64encode(bytes(17)),
        KEY[:-3] + b"-==",
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_400(key: bytes | None) -> None:
    assert upgrade_refused(upgrade(Sec_WebSocket_Key=key)).status == 400


@pytest.mark.parametrize("version", [None, b"8", b"14", b"013", b"13, 8", b""])
def test_another_websocket_version_is_426_and_names_ours(version: bytes | None) -> None:
    refusal = upgrade_refused(upgrade(Sec_WebSocket_Version=version))
    assert (refusal.status, refusal.headers) == (426, (("Sec-WebSocket-Version", "13"),))


def test_the_websocket_path_without_a_websocket_upgrade_is_426() -> None:
    for asked in (
        parse(head(request=b"GET /ws/cluster HTTP/1.1")),
        parse(head(request=b"HEAD /ws/cluster?a=b HTTP/1.1")),
        upgrade(Upgrade=b"TLS/1.0"),
        upgrade(method=b"HEAD"),
    ):
        refusal = upgrade_refused(asked)
        assert (refusal.status, refusal.headers) == (426, (("Upgrade", "websocket"),))


def test_the_websocket_path_takes_only_get() -> None:
    refusal = upgrade_refused(upgrade(method=b"POST"))
    assert (refusal.status, refusal.headers) == (405, (("Allow", "GET"),))
    assert upgrade_refused(parse(head(request=b"PUT /ws/cluster HTTP/1.1"))).status == 405


def test_an_upgrade_with_a_body_without_connection_or_in_http_1_0_is_400() -> None:
    assert upgrade_refused(upgrade(Content_Length=b"1")).status == 400
    assert upgrade_refused(upgrade(Transfer_Encoding=b"chunked")).status == 400
    assert upgrade_refused(upgrade(Connection=b"keep-alive")).status == 400
    assert upgrade_refused(upgrade(Connection=None)).status == 400
    assert upgrade_refused(upgrade(version=b"1.0")).status == 400
