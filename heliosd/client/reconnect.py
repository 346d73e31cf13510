"""When a client reconnects after a connection or a request has failed, and when it must not. Pure."""

from __future__ import annotations

import random
from typing import assert_never

from heliosd.backoff import Backoff
from heliosd.errors import AccessRefused, NotUnderstood
from heliosd.protocol.close_codes import CLOSE_CODES, Reconnect

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
LONGEST_RETRY_AFTER = 3600.0
"""The most that a server's Retry-After can ask for."""

_NO_CODE = {1005: "closed by the daemon", 1006: "the connection broke"}
"""The codes that no close frame carries (RFC 6455 section 7.4.1)."""


_TEMPORARY = frozenset({408, 425, 429})
"""Statuses below 500 after which another attempt is right."""


class TokenRefused(Exception):
    """The daemon answered this token with 401: go on with another one."""

    def __init__(self, reason: str, token: str) -> None:
        super().__init__(reason)
        self.token = token


class ConnectionLost(Exception):
    """There is no connection, and another attempt is right, at the earliest after `at_least` seconds."""

    def __init__(
        self,
        reason: str,
        *,
        code: int | None = None,
        at_least: float = 0.0,
        new_token: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        """The close code; None: the connection was not opened."""
        self.at_least = at_least
        self.new_token = new_token
        """The token that was used must not be used again."""
        self.status = status
        """The HTTP status of the refusal; None: there was no answer."""


def reconnect_backoff(rng: random.Random, longest: float = LONGEST_SECONDS) -> Backoff:
    """The waits between a client's attempts to connect."""
    return Backoff(rng, first=FIRST_SECONDS, longest=longest, jitter=0.75)


def after_close(code: int, reason: str | None) -> ConnectionLost:
    """What a close code means. Raises `AccessRefused` or `NotUnderstood` if reconnecting is of no use."""
    known = CLOSE_CODES.get(code)
    if known is None:
        return ConnectionLost(reason or _NO_CODE.get(code, f"closed with code {code}"), code=code)
    text = f"{known.meaning}: {reason}" if reason else known.meaning
    match known.reconnect:
        case Reconnect.NO:
            raise AccessRefused(text)
        case Reconnect.NOT_BEFORE_A_FIX:
            raise NotUnderstood(f"closed with code {code}: {text}")
        case Reconnect.YES | Reconnect.AFTER_A_PAUSE | Reconnect.WITH_NEW_TOKEN:
            return ConnectionLost(
                reason or known.meaning,
                code=code,
                at_least=known.pause_seconds,
                new_token=known.reconnect is Reconnect.WITH_NEW_TOKEN,
            )
        case _:
            assert_never(known.reconnect)


def is_temporary(status: int) -> bool:
    """Whether another attempt is right after an answer with this HTTP status."""
    return status in _TEMPORARY or status >= 500


def after_refusal(status: int, error: str, retry_after: str | None) -> ConnectionLost:
    """What an HTTP status other than success means. Raises as `after_close`."""
    if status in {401, 403}:
        raise AccessRefused(error)
    if is_temporary(status):
        return ConnectionLost(error, at_least=_seconds(retry_after), status=status)
    raise NotUnderstood(f"{error} (HTTP status {status})")


def _seconds(retry_after: str | None) -> float:
    # A date is allowed as well, but heliosd sends seconds, and clocks differ.
    text = (retry_after or "").strip()
    if not text.isascii() or not text.isdecimal():
        return 0.0
    return min(float(text), LONGEST_RETRY_AFTER)
