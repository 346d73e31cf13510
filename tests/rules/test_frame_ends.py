"""Where a client's bytes end, found without a parser: compared with wsproto."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st

from heliosd.websocket.connection import Inbound, PongReceived, Received, TextReceived, Violation
from heliosd.websocket.deflate import deflate
from heliosd.websocket.frames import ends_whole, is_lone_pong
from tests.support.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, masked

LIMIT = 70_000
PROBE = masked(TEXT, b"probe")

DEFLATED = 0x40
SIZES = st.one_of(st.integers(0, 20), st.sampled_from([124, 125, 126, 127, 128, 65_535, 65_536, 65_537]))
TEXTS = st.one_of(st.text(max_size=20), SIZES.map(lambda size: "x" * size))


def fragments(text: str, deflated: bool, cuts: list[int]) -> list[bytes]:
    """One message as frames, cut where `cuts` say."""
    payload = deflate(text.encode()) if deflated else text.encode()
    ends = [*sorted(cut % (len(payload) + 1) for cut in cuts), len(payload)]
    parts = [payload[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [
        masked(
            CONTINUATION if number else TEXT,
            part,
            fin=number == len(parts) - 1,
            rsv1=deflated and not number,
        )
        for number, part in enumerate(parts)
    ]


@st.composite
def messages(draw: st.DrawFn, deflates: bool = False) -> bytes:
    """One message or control frame, in one frame or in several, with pings and pongs between them."""
    if draw(st.booleans()):
        return masked(draw(st.sampled_from([PING, PONG])), draw(st.sampled_from([b"", b"a", b"x" * 125])))
    frames = fragments(
        draw(TEXTS),
        deflates and draw(st.booleans()),
        draw(st.lists(st.integers(0, 100), max_size=3)),
    )
    for _ in range(draw(st.integers(0, 2))):
        frames.insert(draw(st.integers(0, len(frames))), masked(draw(st.sampled_from([PING, PONG])), b""))
    return b"".join(frames)


ODD = st.sampled_from(
    [
        masked(BINARY, b"a"),
        masked(CONTINUATION, b"a"),
        masked(CONTINUATION, b"a", fin=False),
        masked(CLOSE, b""),
        masked(CLOSE, b"x"),
        masked(CLOSE, struct.pack("!H", 1000) + b"bye"),
        masked(PING, b"", fin=False),
        masked(PING, b"x" * 126),
        masked(PONG, b"", rsv1=True),
        masked(TEXT, b"\xff"),
        masked(TEXT, b"a", rsv1=True),
        masked(TEXT, b"x" * (LIMIT + 1)),
        masked(0x3, b""),
        b"\x81\x00",  # not masked
        b"\x81\x05hello",
        b"\x81\x06hello!",
        b"\x8a\x00\x8a\x80aaaa",
        b"\x81\xfe\x00\x05aaaahello",  # a length in more bytes than it takes
        b"\x81\xff" + struct.pack("!Q", 5) + b"aaaahello",
        b"\x81\xff" + struct.pack("!Q", 2**63) + b"aaaa",
        b"\x8a\xfe\x00\x00aaaa",
    ]
)
FRAMES = st.lists(st.one_of(messages(), messages(), ODD), max_size=5).map(b"".join)


def truncated(data: bytes, where: int | None) -> bytes:
    return data if where is None else data[: where % (len(data) + 1)]


CUT = st.builds(truncated, FRAMES, st.none() | st.integers(0, 200_000))


def read(inbound: Inbound, data: bytes) -> list[Received]:
    return list(inbound.receive(data))


def check(data: bytes) -> None:
    """After bytes that end whole, the next message is read by itself, or nothing is read any more."""
    for deflates in (False, True):
        inbound = Inbound(LIMIT, deflate_agreed=deflates)
        before = read(inbound, data)
        if ends_whole(data):
            assert inbound.ended or read(inbound, PROBE) == [TextReceived("probe")]
        elif not inbound.ended:
            # It may be wrong this way round, where it takes a parser to say; but then a message was in fragments.
            between = read(inbound, PROBE) == [TextReceived("probe")]
            assert not between or any(isinstance(received, TextReceived) for received in before)


@given(CUT)
@example(masked(TEXT, b"a", fin=False))
@example(masked(TEXT, b"a", fin=False) + masked(PONG, b""))
@example(masked(TEXT, b"a", fin=False) + masked(CONTINUATION, b"b"))
@example(masked(TEXT, b"a") + masked(TEXT, b"b", fin=False) + PROBE)
@example(masked(TEXT, b"abc")[:-1])
@example(masked(TEXT, b"x" * 126)[:7])
def test_bytes_that_end_whole_leave_nothing_in_the_parser(data: bytes) -> None:
    check(data)


@given(st.binary(max_size=60))
def test_so_do_any_bytes_that_end_whole(data: bytes) -> None:
    check(data)


@given(st.lists(st.tuples(st.sampled_from([TEXT, PING, PONG]), SIZES), max_size=5), st.integers(0, 200_000))
def test_messages_in_one_frame_each_end_whole_and_nowhere_else(
    sent: list[tuple[int, int]], where: int
) -> None:
    frames = [masked(opcode, b"x" * (min(size, 125) if opcode != TEXT else size)) for opcode, size in sent]
    data = b"".join(frames)
    assert ends_whole(data)
    ends = {len(b"".join(frames[:count])) for count in range(len(frames) + 1)}
    part = where % (len(data) + 1)
    assert ends_whole(data[:part]) is (part in ends)


@given(st.lists(messages(), max_size=3), TEXTS, st.lists(messages(), max_size=3))
def test_after_a_first_fragment_no_bytes_end_whole(
    before: list[bytes], text: str, behind: list[bytes]
) -> None:
    start = masked(TEXT, text.encode(), fin=False)
    assert not ends_whole(b"".join(before) + start)
    assert not ends_whole(b"".join(before) + start + b"".join(behind))
    assert not ends_whole(b"".join(before) + start + b"".join(behind) + masked(CONTINUATION, b""))


# -- one parser for many -----------------------------------------------------------------------------------------


class Shelf:
    """Parsers that go from client to client, as in the server: bytes that end whole free a parser."""

    def __init__(self, deflates: bool) -> None:
        self._deflates = deflates
        self._free: list[Inbound] = []
        self._held: dict[int, Inbound] = {}
        self._over: set[int] = set()
        self.reused = 0

    def receive(self, client: int, data: bytes) -> list[Received]:
        if client in self._over:
            return []
        inbound = self._held.pop(client, None)
        whole = inbound is None and ends_whole(data)
        if inbound is None:
            self.reused += bool(self._free)
            inbound = self._free.pop() if self._free else Inbound(LIMIT, deflate_agreed=self._deflates)
        received = read(inbound, data)
        if inbound.ended:
            self._over.add(client)
        elif whole:
            self._free.append(inbound)
        else:
            self._held[client] = inbound
        return received


@st.composite
def arrivals(draw: st.DrawFn, deflates: bool) -> list[tuple[int, bytes]]:
    """Pieces of several clients' bytes, in the order in which they come."""
    pieces: list[list[bytes]] = []
    for _ in range(draw(st.integers(1, 3))):
        sent = draw(
            st.lists(st.one_of(messages(deflates), messages(deflates), messages(deflates), ODD), max_size=6)
        )
        if draw(st.booleans()):
            pieces.append(sent)
        else:
            data = b"".join(sent)
            cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
            pieces.append([data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)])
    order = draw(st.permutations([client for client, mine in enumerate(pieces) for _ in mine]))
    return [(client, pieces[client].pop(0)) for client in order]


def check_shared(coming: list[tuple[int, bytes]], deflates: bool) -> int:
    shelf = Shelf(deflates)
    own: dict[int, Inbound] = {}
    for client, data in coming:
        if client not in own:
            own[client] = Inbound(LIMIT, deflate_agreed=deflates)
        assert shelf.receive(client, data) == read(own[client], data)
    return shelf.reused


@given(arrivals(deflates=False))
def test_a_parser_that_ended_whole_serves_another_client_as_a_new_one_would(
    coming: list[tuple[int, bytes]],
) -> None:
    check_shared(coming, False)


@given(arrivals(deflates=True))
def test_so_does_one_that_inflates(coming: list[tuple[int, bytes]]) -> None:
    check_shared(coming, True)


def test_the_limits_of_a_message_begin_anew_for_the_next_client() -> None:
    longest = masked(TEXT, b"x" * LIMIT)
    squeezed = masked(TEXT, deflate(b"x" * LIMIT), rsv1=True)
    too_long = masked(TEXT, deflate(b"x" * (LIMIT + 1)), rsv1=True)
    empty = b"".join(fragments("", False, [0] * 127))
    coming = [
        (client, data) for client, data in enumerate([longest, squeezed, longest, squeezed, PROBE, too_long])
    ]
    assert check_shared(coming, True) == 5
    inbound = Inbound(LIMIT, deflate_agreed=True)
    for _ in range(3):  # as many fragments as a message may have, each time
        assert read(inbound, empty) == [TextReceived("")]
    (refused,) = read(inbound, too_long)
    assert isinstance(refused, Violation)


# -- lone pongs --------------------------------------------------------------------------------------------------


@given(st.binary(min_size=4, max_size=4))
def test_a_pong_without_a_payload_is_a_lone_pong_whatever_its_mask(mask: bytes) -> None:
    assert is_lone_pong(b"\x8a\x80" + mask)
    assert ends_whole(b"\x8a\x80" + mask)


@given(st.one_of(st.binary(max_size=8), st.binary(max_size=4).map(lambda rest: b"\x8a\x80" + rest), CUT))
@example(masked(PONG, b"") * 2)
@example(masked(PONG, b"x"))
@example(masked(PING, b""))
@example(masked(TEXT, b""))
@example(masked(PONG, b"", fin=False))
@example(masked(PONG, b"", rsv1=True))
@example(b"\x8a\x00abcd")
@example(b"\x8a\x04abcd")
def test_a_lone_pong_is_what_the_parser_says_is_one_pong_and_no_more(data: bytes) -> None:
    if is_lone_pong(data):
        inbound = Inbound(LIMIT)
        assert read(inbound, data) == [PongReceived()]
        assert read(inbound, PROBE) == [TextReceived("probe")]
    else:
        assert read(Inbound(LIMIT), data) != [PongReceived()] or len(data) != 6
