"""Frames from the server, read back by a parser that we did not write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from heliosd.websocket.frames import close_frame, ping_frame, pong_frame, text_frame


def read(frame: bytes) -> list[object]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(frame)
    return list(client.events())


@given(st.text(max_size=70_000) | st.sampled_from(["a" * n for n in (125, 126, 127, 65_535, 65_536)]))
def test_a_text_frame_is_read_back_as_its_text(text: str) -> None:
    parts = read(text_frame(text.encode()))
    assert "".join(part.data for part in parts if isinstance(part, TextMessage)) == text
    assert isinstance(parts[-1], TextMessage)
    assert parts[-1].message_finished


def test_pings_and_pongs_carry_their_payload() -> None:
    assert read(ping_frame(b"a") + pong_frame(b"b")) == [Ping(payload=b"a"), Pong(payload=b"b")]


@given(st.sampled_from([1000, 1001, 1009, 4000, 4401, 4408]), st.text(max_size=300))
def test_a_close_reason_is_cut_at_a_character_and_never_too_long(code: int, reason: str) -> None:
    frame = close_frame(code, reason)
    assert len(frame) <= 2 + 125
    (event,) = read(frame)
    assert isinstance(event, CloseConnection)
    assert event.code == code
    assert reason.startswith(event.reason or "")
