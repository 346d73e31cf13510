"""Bounds on what a client sends, compressed or not: an extension on wsproto's public `Extension` class.

wsproto's own PerMessageDeflate inflates without a bound, and wsproto caps neither a message's length nor its
fragments. This one is always enabled, so that it bounds plain messages too, and allows RSV1 only when
permessage-deflate was agreed (RFC 7692).
"""

from __future__ import annotations

import re
import zlib

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

MAX_FRAGMENTS = 128
"""Frames that one message may come in; an endless row of empty ones costs its sender the connection."""

DEFLATE_LEVEL = 3
"""Status messages shrink to a third; higher levels take longer and save next to nothing on them."""

LEAST_WINDOW_BITS = 10
MIN_COMPRESSED = 512
"""Shorter messages stay plain: deflating them costs more than it saves."""

_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 section 7.2.1: cut from the end by the sender
_WINDOW_BITS = re.compile(r"[89]|1[0-5]")

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""The only form that is ever agreed: without context, one compressed frame serves every client."""


def agree(offers: str) -> str | None:
    """The answer to a `Sec-WebSocket-Extensions` header: the first acceptable offer's, or None.

    An offer with an unknown, doubled or malformed parameter is declined (RFC 7692 section 7), and so is one
    that demands a `server_max_window_bits` below 15, because the shared frame is made with 15.
    """
    return next((AGREED for offer in offers.split(",") if _acceptable(offer)), None)


def _acceptable(offer: str) -> bool:
    name, *parameters = (part.strip() for part in offer.split(";"))
    if name != "permessage-deflate":
        return False
    seen = set()
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        key, value = key.strip(), value.strip().strip('"')
        if key in seen:
            return False
        seen.add(key)
        match key:
            case "server_no_context_takeover" | "client_no_context_takeover":
                if equals:
                    return False
            case "client_max_window_bits":
                if equals and not _WINDOW_BITS.fullmatch(value):
                    return False
            case "server_max_window_bits":
                if value != "15":
                    return False
            case _:
                return False
    return True


def deflate(payload: bytes) -> bytes:
    """`payload` as the body of one compressed message, independent of any other."""
    # A window just as long as the message, and a hash table to match: zlib would else allocate and clear 256 KiB
    # for a message of one, which takes longer than compressing it. Any window up to 2**15 is read by everyone.
    window = min(max(len(payload).bit_length(), LEAST_WINDOW_BITS), zlib.MAX_WBITS)
    squeeze = zlib.compressobj(DEFLATE_LEVEL, wbits=-window, memLevel=window - 7)
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


class InboundBounds(Extension):
    """Refuses a message that is longer than `max_message_size` bytes (inflated or not) or in too many pieces.

    The refusal is a close reason, so that wsproto names it in a real close frame: 1009 for size, 1007 for
    data that does not inflate, 1002 for RSV1 without agreement.
    """

    name = "permessage-deflate"

    def __init__(self, max_message_size: int, *, deflate_agreed: bool) -> None:
        self._limit = max_message_size
        self._agreed = deflate_agreed
        self._control = False
        self._size = 0
        self._fragments = 0
        self._inflater: zlib._Decompress | None = None

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        # wsproto parses a header again when its masking key has not arrived yet: nothing may add up here.
        self._control = opcode.iscontrol()
        if self._control:
            return RsvBits(False, False, False)
        if opcode is not Opcode.CONTINUATION:
            self._inflater = zlib.decompressobj(wbits=-15) if rsv.rsv1 and self._agreed else None
        elif rsv.rsv1:
            return CloseReason.PROTOCOL_ERROR
        if self._fragments >= MAX_FRAGMENTS:
            return CloseReason.MESSAGE_TOO_BIG
        # A compressed frame may be a little longer than what is in it; it is bounded while inflating.
        if self._inflater is None and self._size + payload_length > self._limit:
            return CloseReason.MESSAGE_TOO_BIG
        return RsvBits(self._inflater is not None and opcode is not Opcode.CONTINUATION, False, False)

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,
        data: bytes,
    ) -> bytes | CloseReason:
        if self._control:
            return data
        if self._inflater is None:
            self._size += len(data)
            return data
        return self._inflate(data)

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,
        fin: bool,
    ) -> bytes | CloseReason | None:
        if self._control:
            return None
        self._fragments += 1
        if not fin:
            return None
        rest = self._inflate(_TAIL) if self._inflater is not None else None
        self._size = self._fragments = 0
        self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        assert self._inflater is not None
        room = self._limit - self._size
        try:
            # One byte more than there is room for: enough to see that it is too much.
            inflated = self._inflater.decompress(data, room + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        if len(inflated) > room or self._inflater.unconsumed_tail:
            return CloseReason.MESSAGE_TOO_BIG
        self._size += len(inflated)
        return inflated
