"""How long to wait before trying again: longer after each failure, and drawn at random. Pure."""

from __future__ import annotations

import random


class Backoff:
    """The waits between attempts.

    The ceiling starts at `first` seconds and doubles with each failure up to `longest`. A wait is drawn evenly
    from the upper `jitter` share of it (0.5: from half the ceiling to all of it), so that those who failed at once
    do not try again at once.
    """

    __slots__ = ("_first", "_jitter", "_longest", "_rng", "failures")

    def __init__(self, rng: random.Random, *, first: float, longest: float, jitter: float = 0.5) -> None:
        self._rng = rng
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0
        """Failures since the start or since `reset`."""

    def seconds(self, at_least: float = 0.0) -> float:
        """Count one more failure; the wait after it, which is `at_least` and the random part."""
        # Ten doublings pass every `longest` in use; without a bound the power would overflow.
        ceiling = min(self._longest, self._first * 2.0 ** min(self.failures, 10))
        self.failures += 1
        return at_least + self._rng.uniform(ceiling * (1 - self._jitter), ceiling)

    def reset(self) -> None:
        """An attempt succeeded: the next wait is a short one."""
        self.failures = 0
