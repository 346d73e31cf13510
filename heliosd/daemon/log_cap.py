"""A limit for lines that repeat: beyond it they are counted, and one line says how many were left out.

Lines are the same if their logger, level and event are; their fields may differ. What must not be lost is exempt.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

BURST = 100
LINES_A_SECOND = 10.0
MAX_KINDS = 1_000
"""Of lines, whose number is kept. Beyond it all are forgotten: the texts of a library may be without end."""
EXEMPT = frozenset(
    {
        "audit",
        "alert due",
        "log lines left out",
        # These have a limit of their own, with a sum of their own (web/stream/connection_log.py).
        "client joined",
        "client left",
        "client refused",
        "more clients joined, left or were refused",
    }
)

log = logging.getLogger("heliosd")


@dataclass(slots=True)
class _Allowance:
    lines: float
    at: float


class LogCap(logging.Filter):
    """Lets `BURST` lines of a kind through at once, then `LINES_A_SECOND`. `now` is a monotonic clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._kinds: dict[tuple[str, int, str], _Allowance] = {}
        self._left_out: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        text = event_of(record)
        if text in EXEMPT:
            return True
        now = self._now()
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        kind = self._kinds.setdefault((record.name, record.levelno, text), _Allowance(BURST, now))
        kind.lines = min(BURST, kind.lines + (now - kind.at) * LINES_A_SECOND)
        kind.at = now
        if kind.lines >= 1:
            kind.lines -= 1
            return True
        self._left_out[text] += 1
        return False

    def sum_up(self) -> None:
        """Log how many lines of each kind were left out since the last time; nothing if none were."""
        if self._left_out:
            left_out, self._left_out = self._left_out, Counter()
            log.warning("log lines left out", extra={"lines": dict(left_out)})


def event_of(record: logging.LogRecord) -> str:
    """The line without its fields: structlog's event, or the text before its values are filled in."""
    return str(record.msg.get("event") if isinstance(record.msg, dict) else record.msg)
