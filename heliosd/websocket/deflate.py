"""Bounds on what a client sends, compressed or not: an extension on wsproto's public `Extension` class.

The limit has to hold while a message is inflated and put together from its fragments, not only when it is whole.
So this extension takes the place of wsproto's PerMessageDeflate. It is always enabled, so that it bounds plain
messages too, and allows RSV1 only when permessage-deflate was agreed (RFC 7692).
"""

from __future__ import annotations

import re
import zlib

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

MAX_FRAGMENTS = 128
"""Frames that one message may consist of; a sender of endless empty ones is disconnected."""
DEFLATE_LEVEL = 3
"""Status messages shrink to a third; higher levels take longer and save almost nothing more."""
LEAST_WINDOW_BITS = 10
MIN_COMPRESSED = 512
"""Shorter messages stay plain: deflating them costs more than it saves."""
FRAMING_BYTES = 1024
"""What compression may add to a message beside an eighth of its length, the worst that a fixed Huffman code does:
headers of blocks, and an empty block at the end of each fragment."""

_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 section 7.2.1: cut from the end by the sender
_AFTER_FINAL_BLOCK = b"\x00" + _TAIL
"""What follows a block marked as the last, at the end of a message (RFC 7692 section 7.2.3.5)."""
_WINDOW = "server_max_window_bits"
_PARAMETERS = {
    "server_no_context_takeover": re.compile(""),
    "client_no_context_takeover": re.compile(""),
    "client_max_window_bits": re.compile("(=([89]|1[0-5]))?"),
    _WINDOW: re.compile("=15"),
}

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""The answer: without context, one compressed frame serves every client."""


def agree(offers: str) -> str | None:
    """The answer to a `Sec-WebSocket-Extensions` header; None when no offer in it is acceptable.

    An offer with an unknown, repeated or malformed parameter is declined (RFC 7692 section 7), and so is one that
    demands a `server_max_window_bits` below 15, because the shared frame may use 15. That of 15 is accepted by
    being part of the answer (section 7.1.2.1).
    """
    for offer in offers.split(","):
        parameters = _parameters(offer)
        if parameters is not None:
            return f"{AGREED}; {_WINDOW}=15" if _WINDOW in parameters else AGREED
    return None


def _parameters(offer: str) -> set[str] | None:
    """The names of an offer's parameters; None where it cannot be accepted."""
    name, *parameters = (part.strip() for part in offer.split(";"))
    seen: set[str] = set()
    for parameter in parameters:
        key, equals, value = parameter.partition("=")
        key, value = key.strip(), value.strip().strip('"')
        form = _PARAMETERS.get(key)
        if form is None or key in seen or not form.fullmatch(equals + value):
            return None
        seen.add(key)
    return seen if name == "permessage-deflate" else None


def deflate(payload: bytes) -> bytes:
    """`payload` as the body of one compressed message, independent of any other."""
    # A window as long as the message, and a hash table to match: otherwise zlib allocates and clears 256 KiB a
    # message, which takes longer than compressing it. Every receiver reads windows up to 2**15.
    window = min(max(len(payload).bit_length(), LEAST_WINDOW_BITS), zlib.MAX_WBITS)
    compressor = zlib.compressobj(DEFLATE_LEVEL, wbits=-window, memLevel=window - 7)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


class InboundBounds(Extension):
    """Refuses a message that is longer than `max_message_size` bytes (after inflating) or has too many fragments.
    Before inflating it may be longer by an eighth and `FRAMING_BYTES`.

    wsproto reports the refusal as a fault: 1009 for size, 1007 for data that does not inflate, 1002 for RSV1 that
    was not agreed.
    """

    name = "permessage-deflate"

    def __init__(
        self, max_message_size: int, *, deflate_agreed: bool, max_fragments: int = MAX_FRAGMENTS
    ) -> None:
        self._limit = max_message_size
        self._max_fragments = max_fragments
        self._agreed = deflate_agreed
        self._control = False
        self._size = 0
        self._compressed = 0
        self._fragments = 0
        self._inflater: zlib._Decompress | None = None
        self.refuses_all = False
        """Whatever comes next is a fault."""

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        # wsproto parses a header again when its masking key has not arrived yet: nothing may be counted here.
        self._control = opcode.iscontrol()
        if self.refuses_all:
            return CloseReason.GOING_AWAY
        if self._control:
            return RsvBits(False, False, False)
        if opcode is not Opcode.CONTINUATION:
            self._inflater = zlib.decompressobj(wbits=-15) if rsv.rsv1 and self._agreed else None
        elif rsv.rsv1:
            return CloseReason.PROTOCOL_ERROR
        if self._fragments >= self._max_fragments:
            return CloseReason.MESSAGE_TOO_BIG
        if self._inflater is None:
            too_big = self._size + payload_length > self._limit
        else:
            # Its content is bounded while inflating, but may be nothing, however much comes.
            most = self._limit + self._limit // 8 + FRAMING_BYTES
            too_big = self._compressed + payload_length > most
        if too_big:
            return CloseReason.MESSAGE_TOO_BIG
        return RsvBits(self._inflater is not None and opcode is not Opcode.CONTINUATION, False, False)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        if self.refuses_all:
            return CloseReason.GOING_AWAY
        if self._control:
            return data
        if self._inflater is None:
            self._size += len(data)
            return data
        self._compressed += len(data)
        return self._inflate(data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        if self._control:
            return None
        self._fragments += 1
        if not fin:
            return None
        end = self._inflate(_TAIL) if self._inflater is not None else None
        self._size = self._compressed = self._fragments = 0
        self._inflater = None
        return end

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
        # zlib keeps what follows the last block, and copies all of it whenever more comes.
        if len(self._inflater.unused_data) > len(_AFTER_FINAL_BLOCK):
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._size += len(inflated)
        return inflated
