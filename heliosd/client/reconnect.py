"""When a client comes back after a connection or a request has failed, and when it must not. Pure."""

from __future__ import annotations

import random

from heliosd.backoff import Backoff
from heliosd.errors import AccessRefused, NotUnderstood

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
LONGEST_RETRY_AFTER = 3600.0
"""A server that says "later" is believed for so long."""
DISMISSED_SECONDS = 5.0
"""An administrator who ends a connection wants it to be gone, at least for a moment."""
FLOODED_SECONDS = 10.0
"""After a close for too many messages."""

_FAULTS = {
    1002: "a fault in the protocol",
    1003: "a message of a wrong kind",
    1007: "text that is not UTF-8",
    1009: "a message that is too large",
}
_WORDS = {
    1001: "the daemon goes away",
    1005: "closed by the daemon",
    1006: "the connection broke",
    1011: "the daemon failed",
    4000: "ended by an administrator",
    4401: "the token has ended",
    4408: "too slow",
    4429: "too many messages",
}
_AT_LEAST = {4000: DISMISSED_SECONDS, 4429: FLOODED_SECONDS}


class ConnectionLost(Exception):
    """There is no connection, and it is right to try again after `at_least` seconds and some more."""

    def __init__(
        self, reason: str, *, code: int | None = None, at_least: float = 0.0, new_token: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        """The close code; None: it never came so far."""
        self.at_least = at_least
        self.new_token = new_token
        """The token that was used is not to be used again."""


def reconnect_backoff(rng: random.Random) -> Backoff:
    """The waits between a client's attempts to connect."""
    return Backoff(rng, first=FIRST_SECONDS, longest=LONGEST_SECONDS, jitter=0.75)


def after_close(code: int, reason: str | None) -> ConnectionLost:
    """What a close code means. Raises `AccessRefused` or `NotUnderstood` if coming back is of no use."""
    said = f": {reason}" if reason else ""
    if code == 4403:
        raise AccessRefused(f"no longer allowed to watch{said}")
    if code in _FAULTS:
        raise NotUnderstood(f"closed for {_FAULTS[code]}{said}")
    words = reason or _WORDS.get(code, f"closed with code {code}")
    return ConnectionLost(words, code=code, at_least=_AT_LEAST.get(code, 0.0), new_token=code == 4401)


def after_refusal(status: int, error: str, retry_after: str | None) -> ConnectionLost:
    """What an HTTP status other than success means. Raises as `after_close`."""
    if status in {401, 403}:
        raise AccessRefused(error)
    if status in {408, 425, 429} or status >= 500:
        return ConnectionLost(error, at_least=_seconds(retry_after))
    raise NotUnderstood(f"{error} (HTTP status {status})")


def _seconds(retry_after: str | None) -> float:
    # A date is allowed as well, but heliosd sends seconds, and clocks differ.
    text = (retry_after or "").strip()
    if not text.isascii() or not text.isdecimal():
        return 0.0
    return min(float(text), LONGEST_RETRY_AFTER)
