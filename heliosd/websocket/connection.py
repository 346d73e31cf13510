"""The receiving half of one WebSocket: bytes in, messages and faults out, on wsproto.

Sending is not here: frames are made once for all clients (`frames.py`) and written by the hub.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterator

from msgspec import Struct
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from .deflate import MAX_FRAGMENTS, InboundBounds

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_ENDS_ANY_FRAME = b"\xff" * (14 + 125)
"""The longest header and the longest control frame: behind any bytes it completes what `InboundBounds` refuses, and
by itself it is no frame."""


class TextReceived(Struct, frozen=True):
    text: str


class BinaryReceived(Struct, frozen=True):
    """Only of an `Inbound` that takes binary messages."""

    data: bytes


class PingReceived(Struct, frozen=True):
    payload: bytes


class PongReceived(Struct, frozen=True):
    pass


class CloseReceived(Struct, frozen=True):
    """The client sent a close frame. `code` is the one to answer with (RFC 6455 section 5.5.1 echoes it)."""

    code: int
    reason: str


class Violation(Struct, frozen=True):
    """The client broke the protocol or exceeded a limit: close with `code` and read no further."""

    code: int
    reason: str


Received = TextReceived | BinaryReceived | PingReceived | PongReceived | CloseReceived | Violation

_VIOLATIONS: dict[int, str] = {
    CloseReason.PROTOCOL_ERROR: "protocol error",
    CloseReason.INVALID_FRAME_PAYLOAD_DATA: "not valid UTF-8 or not valid deflate",
    CloseReason.MESSAGE_TOO_BIG: "message too big",
}


def accept_response(key: bytes, *, subprotocol: str | None, extensions: str | None) -> bytes:
    """The 101 response to a valid upgrade request (RFC 6455 section 4.2.2)."""
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines.append(b"Sec-WebSocket-Accept: " + accept)
    if subprotocol is not None:
        lines.append(b"Sec-WebSocket-Protocol: " + subprotocol.encode("ascii"))
    if extensions is not None:
        lines.append(b"Sec-WebSocket-Extensions: " + extensions.encode("ascii"))
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Inbound:
    """Turns received bytes into whole messages.

    After a `CloseReceived` or a `Violation` it yields nothing more. Between two whole messages it holds no bytes
    and may continue with another client's. Without `binary` a binary message is a violation (1003).
    """

    __slots__ = ("_binary", "_bounds", "_partial", "_wire", "ended")

    def __init__(
        self,
        max_message_size: int,
        *,
        deflate_agreed: bool = False,
        binary: bool = False,
        max_fragments: int = MAX_FRAGMENTS,
    ) -> None:
        self._bounds = InboundBounds(
            max_message_size, deflate_agreed=deflate_agreed, max_fragments=max_fragments
        )
        self._wire = Connection(ConnectionType.SERVER, [self._bounds])
        self._binary = binary
        self._partial = bytearray()
        """What came of an unfinished message: wsproto gives a frame in as many pieces as it was received."""
        self.ended = False
        """Further bytes are discarded."""

    def receive(self, data: bytes) -> Iterator[Received]:
        """Everything that `data` completes, in order."""
        if self.ended:
            return
        self._wire.receive_data(data)
        for event in self._wire.events():
            received = self._received(event)
            if received is None:
                continue
            self.ended = isinstance(received, CloseReceived | Violation)
            yield received
            if self.ended:
                return

    def end(self) -> None:
        """Discard further bytes. To be called where a connection ends with a parser of its own: wsproto's parser is
        in a reference cycle with its generator until that has ended, which a fault or a close frame does."""
        self.ended = self._bounds.refuses_all = True
        self._wire.receive_data(_ENDS_ANY_FRAME)
        deque(self._wire.events(), maxlen=0)

    def _joined(self, piece: bytes | bytearray, *, finished: bool) -> bytes | None:
        """The message that ends with this piece; None: it does not end yet."""
        self._partial += piece
        if not finished:
            return None
        whole, self._partial = bytes(self._partial), bytearray()
        return whole

    def _received(self, event: object) -> Received | None:
        match event:
            case TextMessage():
                if event.message_finished and not self._partial:
                    return TextReceived(event.data)
                whole = self._joined(event.data.encode(), finished=event.message_finished)
                return None if whole is None else TextReceived(whole.decode())
            case BytesMessage() if self._binary:
                whole = self._joined(event.data, finished=event.message_finished)
                return None if whole is None else BinaryReceived(whole)
            case Ping():
                return PingReceived(bytes(event.payload))
            case Pong():
                return PongReceived()
            case CloseConnection() if self._wire.state is ConnectionState.OPEN:
                # wsproto reports a fault that it found as a close event, although no close frame came.
                return Violation(
                    int(event.code), _VIOLATIONS.get(event.code, event.reason or "protocol error")
                )
            case CloseConnection():
                # 1005 stands for "no code given" and must never be sent: answered with a plain 1000.
                code = 1000 if event.code == CloseReason.NO_STATUS_RCVD else int(event.code)
                return CloseReceived(code, event.reason or "")
            case BytesMessage() | Message():
                return Violation(1003, "text frames only")
            case _:
                raise AssertionError(f"wsproto has no such event on a server: {event!r}")
