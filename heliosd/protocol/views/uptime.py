"""The JSON shapes of uptime: `GET …/uptime`, `GET …/uptime/history` and `uptime_stats` of the status.

Seconds are whole, rounded down, as Helios' clients read them; `…_ms` is the same in milliseconds.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from heliosd.raft.roles import Role

EventType = Literal["start", "stop", "crash", "election", "demote", "state_change", "leader_change", "reset"]
"""`election`: this node became the leader; `demote`: it ceased to be the leader."""


class CurrentSession(Struct, frozen=True, kw_only=True):
    start_time: str
    uptime_seconds: int
    uptime_formatted: str
    current_state: Role
    state_since: str
    uptime_ms: int


class Historical(Struct, frozen=True, kw_only=True):
    total_sessions: int
    total_uptime_seconds: int
    total_downtime_seconds: int
    uptime_percentage_24h: float
    uptime_percentage_7d: float
    uptime_percentage_30d: float
    uptime_percentage_all: float
    restarts: int
    crashes: int
    mtbf_seconds: int
    """Total uptime by crashes; 0 without a crash."""
    total_uptime_ms: int
    total_downtime_ms: int


class StateTime(Struct, frozen=True, kw_only=True):
    """Over all sessions. The ratio is the leader's time by the time in the three roles."""

    leader_seconds: int
    follower_seconds: int
    candidate_seconds: int
    leadership_ratio: float
    leader_ms: int
    follower_ms: int
    candidate_ms: int


class Leadership(Struct, frozen=True, kw_only=True):
    elections_participated: int
    """Elections with this node as a candidate, over all sessions."""
    terms_as_leader: int
    current_term: int
    """The term of the last change of state or leader."""


class UptimeReport(Struct, frozen=True, kw_only=True):
    """`GET …/uptime`."""

    node_id: str
    current_session: CurrentSession
    historical: Historical
    state_time: StateTime
    leadership: Leadership
    first_seen: str
    last_event: str


class UptimeEvent(Struct, frozen=True, kw_only=True):
    """An entry of the history's `recent_events`, and the stored row."""

    type: EventType
    timestamp: str
    state: Role
    previous_state: Role | UnsetType = UNSET
    term: int
    leader_id: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    uptime_at_event: int
    """Seconds since the start of the session."""


class SessionView(Struct, frozen=True, kw_only=True):
    """An entry of the history's `recent_sessions`."""

    session_id: str
    start_time: str
    end_time: str | None
    """None for the current session. A crashed session ends with the last time that was stored."""
    duration_seconds: int
    end_reason: str | None
    states_visited: tuple[Role, ...]
    """Each once, in the order of first entry."""
    terms_seen: tuple[int, ...]
    """Ascending, the newest 100."""
    is_current: bool
    duration_ms: int


class UptimeHistory(Struct, frozen=True, kw_only=True):
    """`GET …/uptime/history`, newest first. The totals count trimmed entries too."""

    node_id: str
    recent_events: tuple[UptimeEvent, ...]
    recent_sessions: tuple[SessionView, ...]
    total_events: int
    total_sessions: int


class UptimeStats(Struct, frozen=True, kw_only=True):
    """`uptime_stats` of `GET …/status`."""

    current_uptime_ms: int
    current_uptime_str: str
    total_uptime_ms: int
    total_uptime_str: str
    total_sessions: int
    uptime_percentage_24h: float
    uptime_percentage_7d: float
    uptime_percentage_all: float
    total_restarts: int
    total_crashes: int
    leadership_ratio: float
    total_elections: int
    first_tracked_time: str
    current_uptime_seconds: int
    current_uptime_formatted: str
    mtbf_seconds: int
    leader_time_seconds: int
