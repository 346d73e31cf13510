"""WebSocket close codes: what each means and whether a client should reconnect. Daemon and client use this table.

docs/protocol.md shows the same table.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Reconnect(Enum):
    """What a client should do after a close; the value is how docs/protocol.md says it."""

    YES = "yes, with a delay that grows and varies"
    AFTER_A_PAUSE = "yes, after a pause"
    WITH_NEW_TOKEN = "with a new token"  # noqa: S105
    NOT_BEFORE_A_FIX = "not before the client is mended"
    NO = "no"


class CloseCode(Struct, frozen=True):
    """One row of the table."""

    meaning: str
    reconnect: Reconnect
    pause_seconds: float = 0.0
    """The least wait of heliosd's own client before it reconnects."""


CLOSE_CODES = {
    1001: CloseCode("the daemon stops, or nothing was received for `read_timeout`", Reconnect.YES),
    1002: CloseCode("a fault in the framing", Reconnect.NOT_BEFORE_A_FIX),
    1003: CloseCode("a binary frame", Reconnect.NOT_BEFORE_A_FIX),
    1007: CloseCode("text that is not UTF-8, or broken compression", Reconnect.NOT_BEFORE_A_FIX),
    1009: CloseCode("a message larger than `max_message_size`", Reconnect.NOT_BEFORE_A_FIX),
    1011: CloseCode("a bug in the daemon", Reconnect.YES),
    4000: CloseCode("disconnected by an administrator", Reconnect.AFTER_A_PAUSE, pause_seconds=5.0),
    4401: CloseCode("the token ended or was revoked", Reconnect.WITH_NEW_TOKEN),
    4403: CloseCode("no longer allowed: the user, the role or the right is gone", Reconnect.NO),
    4408: CloseCode("too slow: resume, or subscribe to less", Reconnect.YES),
    4429: CloseCode("too many messages from the client", Reconnect.AFTER_A_PAUSE, pause_seconds=10.0),
}


class CloseReason(Struct, frozen=True):
    """A close code of the table and the text that is sent with it."""

    code: int
    reason: str


GOING_AWAY = CloseReason(1001, "the daemon is stopping")
SILENT = CloseReason(1001, "nothing was received in time")
BUG = CloseReason(1011, "internal error")
DISCONNECTED = CloseReason(4000, "disconnected by an administrator")
REVOKED = CloseReason(4401, "token revoked")
EXPIRED = CloseReason(4401, "token expired")
NOT_ALLOWED = CloseReason(4403, "no longer allowed")
TOO_SLOW = CloseReason(4408, "too slow")
TOO_MANY_MESSAGES = CloseReason(4429, "too many messages")
