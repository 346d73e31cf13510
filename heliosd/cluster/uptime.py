"""How long this node has been up, in which states, and how often it came and went."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from ..clock import Instant
from ..durable import Change, Saved
from ..raft.roles import Role


class CurrentSession(Struct, frozen=True, kw_only=True):
    start_time: str
    uptime_seconds: float
    uptime_formatted: str
    current_state: Role
    state_since: str


class Historical(Struct, frozen=True, kw_only=True):
    total_sessions: int
    total_uptime_seconds: float
    total_downtime_seconds: float
    uptime_percentage_24h: float
    uptime_percentage_7d: float
    uptime_percentage_30d: float
    uptime_percentage_all: float
    restarts: int
    crashes: int
    mtbf_seconds: float


class StateTime(Struct, frozen=True, kw_only=True):
    leader_seconds: float
    follower_seconds: float
    candidate_seconds: float
    leadership_ratio: float


class Leadership(Struct, frozen=True, kw_only=True):
    elections_participated: int
    terms_as_leader: int
    current_term: int


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
    type: str
    timestamp: str
    state: Role
    previous_state: Role | UnsetType = UNSET
    term: int
    leader_id: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    uptime_at_event: float


class SessionView(Struct, frozen=True, kw_only=True):
    session_id: str
    start_time: str
    end_time: str | None
    duration_seconds: float
    end_reason: str | None
    states_visited: tuple[Role, ...]
    terms_seen: tuple[int, ...]
    is_current: bool


class UptimeHistory(Struct, frozen=True, kw_only=True):
    """`GET …/uptime/history`, newest first."""

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


class UptimeTracker:
    """Call `start` before anything else."""

    def __init__(self, node_id: str, saved: Saved) -> None:
        raise NotImplementedError

    def start(self, state: Role, now: Instant) -> list[Change]:
        raise NotImplementedError

    def state_changed(self, old: Role, new: Role, term: int, leader: str, now: Instant) -> list[Change]:
        raise NotImplementedError

    def alive(self, now: Instant) -> list[Change]:
        raise NotImplementedError

    def stop(self, reason: str, now: Instant) -> list[Change]:
        raise NotImplementedError

    def reset(self, now: Instant) -> list[Change]:
        raise NotImplementedError

    def report(self, now: Instant) -> UptimeReport:
        raise NotImplementedError

    def history(self, now: Instant, events: int = 100, sessions: int = 10) -> UptimeHistory:
        raise NotImplementedError

    def stats(self, now: Instant) -> UptimeStats:
        raise NotImplementedError

    def text(self, now: Instant) -> str:
        raise NotImplementedError
