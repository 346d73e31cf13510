"""A clock that notices that this process did not run: SIGSTOP, a suspended machine, a blocked event loop. Pure."""

from __future__ import annotations

from collections.abc import Callable

from heliosd.clock import Instant

EXPECTED_SECONDS = 0.25
"""The clock is read so often at least while the process runs."""
PAUSED_SECONDS = 1.0
"""A longer time between two readings was a pause."""


class PauseClock:
    """`now`, with a call of `paused` for each pause before the first reading after it.

    Then no answer of a member is taken for old before the member could be asked again, and no pause of heliosd is
    reported as a fault of the cluster.
    """

    def __init__(self, now: Callable[[], Instant], paused: Callable[[float], None]) -> None:
        self._now = now
        self._paused = paused
        self._read = now().mono

    def __call__(self) -> Instant:
        now = self._now()
        gap, self._read = now.mono - self._read, now.mono
        if gap > PAUSED_SECONDS:
            self._paused(gap - EXPECTED_SECONDS)
        return now
