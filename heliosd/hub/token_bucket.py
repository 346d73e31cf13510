"""How many messages one client may send."""

from __future__ import annotations

MAX_REFUSED_IN_A_ROW = 200
"""A client that goes on against so many refusals is closed with 4429."""

CONTROL_FRAMES_PER_SECOND, CONTROL_FRAMES_BURST = 100.0, 400
"""Pings and pongs of one client; it is closed with 4429 as soon as it sends more."""


class TokenBucket:
    """A token bucket. Rate and burst are given with each question, so that a reload reaches open connections."""

    __slots__ = ("_at", "_spent", "refused")

    def __init__(self) -> None:
        self._spent = 0.0
        self._at = 0.0
        self.refused = 0
        """Refusals in a row."""

    def allows(self, now: float, per_second: float, burst: int) -> bool:
        """Count one message at `now` (monotonic seconds): whether it is within the rate."""
        self._spent = max(0.0, self._spent - (now - self._at) * per_second)
        self._at = now
        if self._spent + 1 > burst:
            self.refused += 1
            return False
        self._spent += 1
        self.refused = 0
        return True
