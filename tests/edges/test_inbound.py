"""Bytes from a client: RFC 6455 and 7692 as a hostile client would test them."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.websocket.connection import (
    CloseReceived,
    Inbound,
    PingReceived,
    PongReceived,
    Received,
    TextReceived,
    Violation,
)
from heliosd.websocket.deflate import AGREED, agree, deflate

LIMIT = 1000
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def masked(
    opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, length: int | None = None
) -> bytes:
    """A frame as a client sends it; `length` may lie."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += struct.pack("!BH", 0x80 | 126, size)
    else:
        head += struct.pack("!BQ", 0x80 | 127, size)
    key = b"\x11\x22\x33\x44"
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def receive(*pieces: bytes, deflate_agreed: bool = False) -> list[Received]:
    inbound = Inbound(LIMIT, deflate_agreed=deflate_agreed)
    return [received for piece in pieces for received in inbound.receive(piece)]


@given(st.text(max_size=200), st.integers(1, 50), st.integers(1, 40))
def test_a_message_is_the_same_however_it_is_cut(text: str, fragment: int, piece: int) -> None:
    data = text.encode()
    parts = [data[at : at + fragment] for at in range(0, len(data), fragment)] or [b""]
    wire = b"".join(
        masked(TEXT if at == 0 else CONTINUATION, part, fin=at == len(parts) - 1)
        for at, part in enumerate(parts)
    )
    expected: list[Received] = [TextReceived(text)]
    if len(parts) > 128:
        return
    assert receive(*(wire[at : at + piece] for at in range(0, len(wire), piece))) == expected


def test_pings_pongs_and_texts_come_in_order() -> None:
    wire = masked(PING, b"a") + masked(TEXT, b"x", fin=False) + masked(PONG, b"") + masked(CONTINUATION, b"y")
    assert receive(wire) == [PingReceived(b"a"), PongReceived(), TextReceived("xy")]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (masked(TEXT, b"\xff"), 1007),
        (masked(TEXT, b"\xc3", fin=False) + masked(CONTINUATION, b"("), 1007),
        (masked(TEXT, b"\xc3"), 1007),
        (masked(TEXT, b"x", rsv=0x40), 1002),
        (masked(TEXT, b"x", rsv=0x20), 1002),
        (masked(TEXT, b"x", rsv=0x10), 1002),
        (masked(0x3, b""), 1002),
        (masked(0xB, b""), 1002),
        (b"\x81\x01x", 1002),
        (masked(PING, b"x" * 126), 1002),
        (masked(PING, b"", fin=False), 1002),
        (masked(CONTINUATION, b"x"), 1002),
        (masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"), 1002),
        (masked(CLOSE, struct.pack("!H", 1005)), 1002),
        (masked(CLOSE, struct.pack("!H", 1006)), 1002),
        (masked(CLOSE, struct.pack("!H", 999)), 1002),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        (masked(BINARY, b"x"), 1003),
        (masked(TEXT, b"x" * (LIMIT + 1)), 1009),
        (masked(TEXT, b"x" * LIMIT, fin=False) + masked(CONTINUATION, b"x"), 1009),
        (masked(TEXT, b"", length=2**62), 1009),
        (masked(TEXT, b"", fin=False) + masked(CONTINUATION, b"", fin=False) * 200, 1009),
    ],
)
def test_a_fault_has_the_code_that_the_rfc_names(wire: bytes, code: int) -> None:
    for received in (receive(wire), receive(*(wire[at : at + 1] for at in range(len(wire))))):
        assert isinstance(received[-1], Violation)
        assert received[-1].code == code
        assert received[-1].reason


def test_a_message_of_exactly_the_limit_is_taken() -> None:
    assert receive(masked(TEXT, b"x" * LIMIT)) == [TextReceived("x" * LIMIT)]
    assert receive(masked(TEXT, b"x" * LIMIT) * 2) == [TextReceived("x" * LIMIT)] * 2


def test_nothing_is_allocated_by_a_declared_length() -> None:
    tracemalloc.start()
    receive(masked(TEXT, b"", length=2**40))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_message_in_the_smallest_pieces_takes_no_more_memory_than_its_bytes() -> None:
    inbound, size = Inbound(60_000), 60_000
    wire = masked(TEXT, b"x" * size)
    pieces = [wire[at : at + 2] for at in range(0, len(wire), 2)]
    tracemalloc.start()
    received = [each for piece in pieces[:-1] for each in inbound.receive(piece)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert received == []
    assert held < 4 * size
    assert list(inbound.receive(pieces[-1])) == [TextReceived("x" * size)]


def test_a_close_is_answered_with_its_own_code_and_one_without_a_code_with_1000() -> None:
    assert receive(masked(CLOSE, struct.pack("!H", 4000) + b"bye")) == [CloseReceived(4000, "bye")]
    assert receive(masked(CLOSE, b"")) == [CloseReceived(1000, "")]
    assert receive(masked(CLOSE, struct.pack("!H", 1002))) == [CloseReceived(1002, "")]


def test_nothing_is_read_after_a_close_or_a_fault() -> None:
    inbound = Inbound(LIMIT)
    list(inbound.receive(masked(CLOSE, b"") + masked(TEXT, b"late")))
    assert list(inbound.receive(masked(TEXT, b"later"))) == []


def test_an_agreed_compressed_message_is_inflated() -> None:
    text = "heliosd " * 50
    body = deflate(text.encode())
    halves = masked(TEXT, body[:9], fin=False, rsv=0x40) + masked(CONTINUATION, body[9:])
    assert receive(masked(TEXT, body, rsv=0x40), halves, deflate_agreed=True) == [TextReceived(text)] * 2


def test_plain_messages_stay_allowed_beside_compressed_ones() -> None:
    wire = masked(TEXT, b"plain") + masked(TEXT, deflate(b"small"), rsv=0x40) + masked(PING, b"")
    assert receive(wire, deflate_agreed=True) == [
        TextReceived("plain"),
        TextReceived("small"),
        PingReceived(b""),
    ]


@pytest.mark.parametrize("size", [1024 * 1024, 64 * 1024 * 1024])
def test_a_bomb_is_refused_before_it_is_inflated(size: int) -> None:
    squeeze = zlib.compressobj(9, wbits=-15)
    bomb = squeeze.compress(bytes(size)) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    tracemalloc.start()
    (received,) = receive(masked(TEXT, bomb, rsv=0x40), deflate_agreed=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(received, Violation)
    assert received.code == 1009
    assert peak < 1_000_000


def test_incompressible_data_of_exactly_the_limit_is_taken() -> None:
    text = os.urandom(LIMIT // 2).hex()
    assert receive(masked(TEXT, deflate(text.encode()), rsv=0x40), deflate_agreed=True) == [
        TextReceived(text)
    ]


def test_a_compressed_message_is_bounded_also_where_it_inflates_to_nothing() -> None:
    nothing = b"\x00\x00\x00\xff\xff" * 200  # empty blocks
    fragments = masked(TEXT, nothing, fin=False, rsv=0x40) + masked(CONTINUATION, nothing, fin=False) * 2
    for wire in (fragments, masked(TEXT, b"", rsv=0x40, length=2**40)):
        (received,) = receive(wire, deflate_agreed=True)
        assert isinstance(received, Violation)
        assert received.code == 1009


def test_a_message_whose_last_block_is_marked_as_the_last_is_taken_and_anything_behind_it_refused() -> None:
    final = bytes.fromhex("f348cdc9c90700")  # RFC 7692 section 7.2.3.4
    assert receive(masked(TEXT, final, rsv=0x40) * 2, deflate_agreed=True) == [TextReceived("Hello")] * 2
    inbound = Inbound(1_000_000, deflate_agreed=True)
    wire = masked(TEXT, final + bytes(100), rsv=0x40, length=1_000_000)
    (received,) = inbound.receive(wire)
    assert isinstance(received, Violation)
    assert received.code == 1007


def test_what_does_not_inflate_is_1007() -> None:
    (received,) = receive(masked(TEXT, b"\xff\xff\xff", rsv=0x40), deflate_agreed=True)
    assert isinstance(received, Violation)
    assert received.code == 1007


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", AGREED),
        ("permessage-deflate; client_max_window_bits", AGREED),
        ('permessage-deflate; client_max_window_bits="12"', AGREED),
        ("permessage-deflate; server_max_window_bits=15", f"{AGREED}; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", AGREED),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", AGREED),
        ("permessage-deflate; server_max_window_bits=10", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=abc", None),
        ("permessage-deflate; client_max_window_bits=0", None),
        ("permessage-deflate; client_max_window_bits=99", None),
        ("permessage-deflate; client_max_window_bits=8; client_max_window_bits=8", None),
        ("permessage-deflate; unknown", None),
        ("permessage-bzip2", None),
        ("", None),
    ],
)
def test_the_first_acceptable_offer_is_agreed(offer: str, answer: str | None) -> None:
    assert agree(offer) == answer


@given(st.lists(st.binary(max_size=30), max_size=10), st.booleans())
def test_no_bytes_do_more_than_end_the_connection(pieces: list[bytes], agreed: bool) -> None:
    receive(*pieces, deflate_agreed=agreed)
