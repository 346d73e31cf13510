"""The clock of one simulated member: it may run fast or slow, and leap. It never goes back."""

from __future__ import annotations

SLEW = 0.5
"""Speed at which a clock that is ahead of its setting runs until it is right, as time daemons do it."""


class MemberClock:
    """Shows a member's own ticks for the ticks of the simulation. As long as it is not set, both are the same."""

    __slots__ = ("_at", "_shown", "_shown_then", "_slewed_until", "offset", "rate")

    def __init__(self) -> None:
        self.rate = 1.0
        self.offset = 0
        self._at = 0
        self._shown = 0
        self._slewed_until = self._shown_then = 0
        """From when on it runs at `rate`, and what it shows then."""

    @property
    def set_wrong(self) -> bool:
        """Whether it was set to run wrong, or to be ahead."""
        return self.rate != 1.0 or self.offset != 0

    def read(self, now: int) -> int:
        """What it shows at `now`, which never goes back between two calls."""
        if now < self._slewed_until:
            return self._shown + int((now - self._at) * self.rate * SLEW)
        return self._shown_then + int((now - self._slewed_until) * self.rate)

    def when(self, shown: int) -> int:
        """The first tick of the simulation at which it shows `shown` or more."""
        if shown <= self._shown:
            return self._at
        if shown <= self._shown_then:
            due = self._at + int((shown - self._shown) / (self.rate * SLEW))
        else:
            due = self._slewed_until + int((shown - self._shown_then) / self.rate)
        while self.read(due) < shown:  # rounding
            due += 1
        return due

    def set(self, now: int, *, rate: float, offset: int) -> None:
        """From `now` on it runs at `rate`. A greater `offset` than before makes it leap ahead; with a smaller one
        it runs at half speed until it is right."""
        self._shown = self.read(now)
        self._at = now
        self.rate = rate
        ahead = self.offset - offset
        self.offset = offset
        if ahead < 0:
            self._shown -= ahead
            self._slewed_until = now
        else:
            left = max(0, self._slewed_until - now) * SLEW
            self._slewed_until = now + int((left + ahead / rate) / SLEW)
        self._shown_then = self._shown + int((self._slewed_until - now) * rate * SLEW)
