"""Compressed messages: whatever window they were made with, any receiver reads each of them by itself."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.websocket.deflate import deflate

TAIL = b"\x00\x00\xff\xff"


def read(body: bytes) -> bytes:
    """As RFC 7692 section 7.2.2 has it, with the largest window and no context."""
    return zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(body + TAIL)


@given(st.binary(max_size=4096))
def test_a_compressed_message_is_read_back_whatever_is_in_it(payload: bytes) -> None:
    assert read(deflate(payload)) == payload


@pytest.mark.parametrize("size", [1, 511, 512, 1023, 1024, 4095, 4096, 32_767, 32_768, 65_536, 1_000_000])
def test_a_compressed_message_is_read_back_whatever_its_length(size: int) -> None:
    text = random.Random(size).choices(b'{"peer_id":"node-1","latency_ms":0.125},', k=size)
    assert read(deflate(bytes(text))) == bytes(text)


def test_what_repeats_itself_far_apart_is_still_found() -> None:
    far = random.Random(0).randbytes(2_000)
    assert len(deflate(far + far)) < 1.1 * len(far)
