"""Why a connection ends, as the close code says it (docs/protocol.md has them all)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A close code and the words that go with it."""

    code: int
    reason: str


GOING_AWAY = Goodbye(1001, "the daemon is stopping")
SILENT = Goodbye(1001, "nothing was received in time")
BINARY = Goodbye(1003, "text frames only")
BUG = Goodbye(1011, "internal error")
DISCONNECTED = Goodbye(4000, "disconnected by an administrator")
REVOKED = Goodbye(4401, "token revoked")
EXPIRED = Goodbye(4401, "token expired")
NOT_ALLOWED = Goodbye(4403, "no longer allowed")
TOO_SLOW = Goodbye(4408, "too slow")
TOO_MANY_MESSAGES = Goodbye(4429, "too many messages")
