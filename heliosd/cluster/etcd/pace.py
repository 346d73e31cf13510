"""How often the members of etcd are polled. Pure."""

from __future__ import annotations

from collections.abc import Iterable

LOOK_SECONDS = 0.25
"""The view is evaluated so often at least, also when no member answers; less often while nothing is under way
(`Poller.look_along`)."""
LEAST_PAUSE_SECONDS = 0.001
"""So that time goes on: added to a clock's time, a pause of a rounding error is none."""
FAST_POLL_SECONDS = 0.05
"""Between two polls of a member that answers, while the leader is in doubt: a new one is sent within 100 ms."""
REMEMBERED_ANSWERS = 8
"""Fast polls of more time than a list of members takes on a busy machine."""
FAST_POLLS_LAST_SECONDS = 5.0
AFTER_CHANGE_SECONDS = 0.4
"""Fast polls go on for so long after a new leader is known: its members show then why the one before was lost."""
SETTLING_SECONDS = 3.0
"""After a change the members are polled more often for so long."""
ACCEPTED_SECONDS = 60.0
"""A member that has failed for so long no longer counts as a change."""
SETTLED_FACTOR = 4
LONGEST_POLL_SECONDS = 1.0
"""Between two polls of a member, whatever is configured. An answer counts for 2.5 s (`election.FRESH_SECONDS`): so
neither a quiet time nor one poll that gets no answer within its second makes the one before too old."""


class Pace:
    """Three paces: fast, the configured interval, and four times that once all is settled."""

    def __init__(self) -> None:
        self._changed = self._fast_until = float("-inf")

    def changed(self, now: float) -> None:
        """Something is another way than before."""
        self._changed = now

    def in_doubt(self, now: float) -> None:
        """There may be another leader, or soon be one."""
        self._fast_until = max(self._fast_until, now + FAST_POLLS_LAST_SECONDS)
        self._changed = now

    def decided(self, now: float) -> None:
        """A leader is known for certain."""
        self._fast_until = now + AFTER_CHANGE_SECONDS
        self._changed = now

    def skip(self, seconds: float) -> None:
        """This process did not run for so long."""
        self._changed += seconds
        self._fast_until += seconds

    def is_quiet(self, now: float) -> bool:
        """Nothing has changed for a while."""
        return now - self._changed >= SETTLING_SECONDS

    def is_fast(self, now: float) -> bool:
        return now < self._fast_until

    def poll_after(self, poll_interval: float, now: float, *, answers: bool, settled: bool) -> float:
        """Seconds from one poll of a member to the next. `answers`: its last poll was answered; `settled`: all
        members answer and agree."""
        if answers and self.is_fast(now):
            return min(FAST_POLL_SECONDS, poll_interval)
        return min(poll_interval * SETTLED_FACTOR if settled else poll_interval, LONGEST_POLL_SECONDS)


def pause(due_in: Iterable[float]) -> float:
    """Seconds until the first of these is due, or until the view is evaluated again."""
    return max(min([LOOK_SECONDS, *due_in]), LEAST_PAUSE_SECONDS)


def until_turn(wall: float, period: float, place: int, of: int) -> float:
    """Seconds until it is the turn of this one (`place`, from 0) of several heliosd that each ask once in a period.

    They take turns by the wall clock (`wall`: Unix seconds), so that as little time as possible passes without a
    question of any of them. Where their clocks differ, each still asks once in a period. Between a quarter and five
    quarters of a period: right after a question there is no other one.
    """
    seconds = (period * place / of - wall) % period
    return seconds if seconds >= period / 4 else seconds + period
