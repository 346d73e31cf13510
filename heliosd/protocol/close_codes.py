"""Why a connection ends, as the close code says it (docs/protocol.md has them all)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CloseReason:
    """A close code and the words that go with it."""

    code: int
    reason: str


GOING_AWAY = CloseReason(1001, "the daemon is stopping")
SILENT = CloseReason(1001, "nothing was received in time")
BINARY = CloseReason(1003, "text frames only")
BUG = CloseReason(1011, "internal error")
DISCONNECTED = CloseReason(4000, "disconnected by an administrator")
REVOKED = CloseReason(4401, "token revoked")
EXPIRED = CloseReason(4401, "token expired")
NOT_ALLOWED = CloseReason(4403, "no longer allowed")
TOO_SLOW = CloseReason(4408, "too slow")
TOO_MANY_MESSAGES = CloseReason(4429, "too many messages")
