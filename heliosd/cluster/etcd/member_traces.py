"""What this node has noticed of each member besides its answers. Pure.

`loss_cause.py` concludes from it why a leader was lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Reach = Literal["refused", "accepted", "silent"]
"""What a TCP connection to its client port met: nobody listens; the kernel took it; no answer, or no way there."""

LATE_SECONDS = 0.5
"""An answer that took so long is late."""
LATEST_SECONDS = 1.1
"""No answer is waited for longer than this, so what took longer was a pause of this process."""
REMEMBERED_SECONDS = 10.0


@dataclass(slots=True)
class MemberTrace:
    """Times are monotonic."""

    asked: float | None = None
    """Since when a request to it is without an answer."""
    ended: float | None = None
    """When its process was last seen to have ended."""
    overdue: float | None = None
    """Since when a request to it has been without an answer for longer than usual; None: it answers."""
    reach: Reach | None = None
    """What the last connection met, since it last answered."""
    was_unhealthy: bool = False
    """Since its process was last found to be another one."""
    db_quota: int = 0
    """Bytes, from its `/metrics`; 0: not known."""
    late: deque[tuple[float, float]] = field(default_factory=deque)
    """Its late answers: when, and after how many seconds."""

    @property
    def in_doubt(self) -> bool:
        """Whether it lives, and answers in time, has to be shown by its next answer."""
        return self.overdue is not None or self.ended is not None

    def answered(self, seconds: float, silent: float, now: float, *, leads: bool) -> None:
        """It answered after `seconds`, and has not answered for `silent` seconds before. `leads`: it still does."""
        self.overdue = self.reach = None
        if leads:
            self.ended = None
        took = max(silent, seconds if seconds <= LATEST_SECONDS else 0.0)
        if took >= LATE_SECONDS:
            self.late.append((now, took))

    def late_answers(self, now: float, within: float = REMEMBERED_SECONDS) -> list[float]:
        """The seconds of its late answers of so long."""
        while self.late and now - self.late[0][0] > REMEMBERED_SECONDS:
            self.late.popleft()
        return [took for at, took in self.late if now - at <= within]


class MemberTraces:
    """The traces by member id."""

    def __init__(self) -> None:
        self._traces: dict[str, MemberTrace] = {}

    def of(self, member: str) -> MemberTrace:
        """The trace of this member; an empty one if nothing was noticed yet."""
        return self._traces.setdefault(member, MemberTrace())

    def forget(self, member: str) -> None:
        self._traces.pop(member, None)

    def skip(self, seconds: float) -> None:
        """This process did not run for so long: whose answer is due cannot be said."""
        for trace in self._traces.values():
            trace.asked = None if trace.asked is None else trace.asked + seconds
            trace.overdue = None
            trace.late.clear()
