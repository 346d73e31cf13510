"""Whether a member's process is the same as before, though its clock may have been set meanwhile. Pure."""

from __future__ import annotations

from typing import NamedTuple

ROUNDED_SECONDS = 3.0
"""An uptime is not known better: `process_start_time_seconds` is computed from the time of boot in whole seconds,
which moves with each correction of the clock, and the field `Date` has whole seconds."""


class ProcessSeen(NamedTuple):
    """A member's process, as one answer of its `/metrics` shows it."""

    started: float
    """`process_start_time_seconds`, by the member's clock."""
    date: float | None
    """When it answered, by the same clock; None: the answer does not say."""
    at: float
    """When it answered; monotonic."""

    def differs_from(self, before: ProcessSeen, ended: float) -> bool:
        """Whether this is another process than `before`, whose connection ended at `ended` (monotonic; earlier than
        `before`: not known).

        The same process has the same start, or has run for as long as has passed, by its own clock. A process that
        had run for too short to tell the two apart, and whose start is another one, is taken for another process.
        """
        if abs(self.started - before.started) < 0.005:
            return False
        if self.date is None or before.date is None:
            return abs(self.started - before.started) > ROUNDED_SECONDS
        uptime = before.date - before.started
        if ended >= before.at and uptime + ended - before.at <= ROUNDED_SECONDS * 2:
            return True
        return self.date - self.started < uptime + self.at - before.at - ROUNDED_SECONDS
