"""This node's uptime as stored across restarts: sessions, events and totals.

A session is one run of the daemon. Its length is measured on the monotonic clock. The time between two sessions is
taken from the wall clock; a negative one counts as 0. All figures are made of these two lengths, so no jump of a
clock makes one negative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from heliosd.clock import rfc3339, whole_seconds
from heliosd.protocol.views.uptime import SessionView, UptimeEvent
from heliosd.raft.roles import Role
from heliosd.store.changes import Change, RecordAdded, Saved, ValueSet

EVENT_KIND = "uptime_event"
EVENTS_KEPT = 10_000
SESSION_KIND = "uptime_session"
SESSIONS_KEPT = 1_000
TOTALS = "uptime_totals"
TERMS_KEPT = 100
"""Newest terms kept of a session, so that its record is bounded."""


class UptimeSession(Struct, kw_only=True):
    """One run of the daemon, as stored."""

    key: int
    id: str
    start: float
    """Unix seconds."""
    down_before: float
    """Seconds between the session before and this one, never negative."""
    duration: float = 0.0
    """Seconds, on the monotonic clock, up to the last `alive`."""
    last_alive: float
    """Unix seconds."""
    end: float | None = None
    end_reason: str | None = None
    state: Role
    states: list[Role]
    terms: list[int]

    def visit(self, state: Role, term: int) -> None:
        self.state = state
        if state not in self.states:
            self.states.append(state)
        if term > 0 and (not self.terms or term > self.terms[-1]):
            self.terms.append(term)
            del self.terms[:-TERMS_KEPT]

    def saved(self) -> Change:
        return RecordAdded(SESSION_KIND, self.key, msgspec.json.encode(self), SESSIONS_KEPT)

    def view(self) -> SessionView:
        return SessionView(
            session_id=self.id,
            start_time=rfc3339(self.start),
            end_time=None if self.end is None else rfc3339(self.end),
            duration_seconds=whole_seconds(self.duration),
            end_reason=self.end_reason,
            states_visited=tuple(self.states),
            terms_seen=tuple(self.terms),
            is_current=self.end is None,
            duration_ms=round(self.duration * 1000),
        )


class Totals(Struct, kw_only=True):
    """Since `first_seen`, also of what the histories have trimmed."""

    first_seen: float
    """Unix seconds."""
    last_session_key: int = 0
    """Never reset, so that no session id occurs twice."""
    sessions: int = 0
    restarts: int = 0
    crashes: int = 0
    ended_uptime: float = 0.0
    """Seconds of all ended sessions."""
    downtime: float = 0.0
    leader_seconds: float = 0.0
    follower_seconds: float = 0.0
    candidate_seconds: float = 0.0
    elections: int = 0
    terms_as_leader: int = 0
    last_term_led: int = 0
    events: int = 0
    term: int = 0

    def spent(self, state: Role, seconds: float) -> None:
        """A learner counts as a follower; `Down`, `Observer` and `Unknown` count for no role."""
        match state:
            case "Leader":
                self.leader_seconds += seconds
            case "Follower" | "Learner":
                self.follower_seconds += seconds
            case "Candidate":
                self.candidate_seconds += seconds
            case _:
                pass

    def leadership_ratio(self) -> float:
        """Share of the time in a role that this node led, 0..1."""
        in_a_role = self.leader_seconds + self.follower_seconds + self.candidate_seconds
        return round(self.leader_seconds / in_a_role, 6) if in_a_role else 0.0

    def saved(self) -> Change:
        return ValueSet(TOTALS, msgspec.json.encode(self))


def load_totals(saved: Saved) -> Totals | None:
    body = saved.values.get(TOTALS)
    return None if body is None else msgspec.json.decode(body, type=Totals)


def load_sessions(saved: Saved) -> list[UptimeSession]:
    return [msgspec.json.decode(body, type=UptimeSession) for body in saved.records.get(SESSION_KIND, ())]


def load_events(saved: Saved) -> list[UptimeEvent]:
    return [_event(msgspec.json.decode(body)) for body in saved.records.get(EVENT_KIND, ())]


def _event(row: dict[str, Any]) -> UptimeEvent:
    # Rows of version 0.1 have fractions of seconds.
    return msgspec.convert({**row, "uptime_at_event": int(row["uptime_at_event"])}, UptimeEvent)


def uptime_percentage(newest_first: Iterable[UptimeSession], window: float) -> float:
    """How much of the last `window` seconds these sessions cover, 0..100.

    Of a history shorter than the window, its own length counts.
    """
    left, up, down = window, 0.0, 0.0
    for session in newest_first:
        lasted = min(session.duration, left)
        gap = min(session.down_before, left - lasted)
        up, down, left = up + lasted, down + gap, left - lasted - gap
        if left <= 0:
            break
    return percentage(up, down)


def percentage(up: float, down: float) -> float:
    """100 if both are 0."""
    return round(100 * up / (up + down), 4) if up + down > 0 else 100.0
