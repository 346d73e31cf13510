"""The order of events: who gets which number.

The epoch says which numbering a seq belongs to; within an epoch, seq counts from 1 without a hole.
"""

from __future__ import annotations

import re
from collections import deque

from .events import Event, Stamped

EPOCH_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an epoch may look like on the wire; opaque to clients."""


class History:
    """The newest `max_events` events of one epoch, in order."""

    def __init__(self, epoch: str, max_events: int) -> None:
        if not EPOCH_PATTERN.fullmatch(epoch):
            raise ValueError(f"not an epoch: {epoch!r}")
        self.epoch = epoch
        self.seq = 0
        """The newest number given; 0 before the first event."""
        self._events: deque[Stamped] = deque(maxlen=max_events)

    def append(self, event: Event, at: float) -> Stamped:
        """Give `event` the next number. `at` is Unix seconds."""
        self.seq += 1
        stamped = Stamped(self.seq, at, event)
        self._events.append(stamped)
        return stamped

    def newest(self, count: int) -> tuple[Stamped, ...]:
        """The last `count` events that are kept, oldest first."""
        return tuple(self._events)[-count:] if count else ()
