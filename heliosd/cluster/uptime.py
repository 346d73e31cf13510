"""How long this node has been up, in which states, and how often it restarted.

All figures start at `first_seen`: the first start with this data directory, or the last reset. Every later start is
a restart; if the session before has no end, it was a crash.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from itertools import islice

import msgspec
from msgspec import UNSET, UnsetType

from heliosd.clock import Instant, duration_text, rfc3339, whole_seconds
from heliosd.protocol.views.uptime import (
    CurrentSession,
    EventType,
    Historical,
    Leadership,
    StateTime,
    UptimeEvent,
    UptimeHistory,
    UptimeReport,
    UptimeStats,
)
from heliosd.raft.roles import Role
from heliosd.store.changes import Change, RecordAdded, RecordsCleared, Saved

from .uptime_record import (
    EVENT_KIND,
    EVENTS_KEPT,
    SESSION_KIND,
    SESSIONS_KEPT,
    Totals,
    UptimeSession,
    load_events,
    load_sessions,
    load_totals,
    percentage,
    uptime_percentage,
)

DAY_SECONDS = 86_400.0


class UptimeTracker:
    """The uptime of one node. Call `start` once before anything else.

    A method that returns changes has changed memory already; the caller stores the changes. Readers may be called
    at any time, also after `stop`.
    """

    def __init__(self, node_id: str, saved: Saved) -> None:
        self._node_id = node_id
        self._totals = load_totals(saved)
        self._past = deque(load_sessions(saved), maxlen=SESSIONS_KEPT)
        self._events = deque(load_events(saved), maxlen=EVENTS_KEPT)
        self._session: UptimeSession | None = None
        self._started_mono = 0.0
        self._counted_mono = 0.0
        """Up to here, time is in the totals of its role."""
        self._state_since = 0.0
        self._last_event_at = 0.0

    def start(self, state: Role, now: Instant) -> list[Change]:
        """Begin a session. If the last one has no end, it crashed at its last `alive`."""
        changes: list[Change] = []
        totals = self._totals
        if totals is None:
            totals = self._totals = Totals(first_seen=now.wall)
        else:
            totals.restarts += 1
        down_before, reason = 0.0, "first start"
        if self._past:
            last, reason = self._past[-1], "restart"
            if last.end is None:
                reason = "restart after a crash"
                changes += self._record_crash(last, totals)
            assert last.end is not None
            down_before = max(0.0, now.wall - last.end)
        totals.downtime += down_before
        totals.sessions += 1
        totals.last_session_key += 1
        self._session = UptimeSession(
            key=totals.last_session_key,
            id=f"{self._node_id}-{int(now.wall * 1000)}-{totals.last_session_key}",
            start=now.wall,
            down_before=down_before,
            last_alive=now.wall,
            state=state,
            states=[],
            terms=[],
        )
        self._session.visit(state, totals.term)
        self._past.append(self._session)
        self._started_mono = self._counted_mono = now.mono
        self._state_since = now.wall
        changes += self._record("start", now.wall, reason=reason)
        return [*changes, *self._rows()]

    def _record_crash(self, crashed: UptimeSession, totals: Totals) -> list[Change]:
        crashed.end, crashed.end_reason = crashed.last_alive, "crash"
        totals.crashes += 1
        totals.ended_uptime += crashed.duration
        self._session = crashed
        return [*self._record("crash", crashed.end, reason="crash: unclean shutdown"), crashed.saved()]

    def state_changed(self, old: Role, new: Role, term: int, leader: str, now: Instant) -> list[Change]:
        """This node's state became `new`; or, if `old` == `new`, the known leader or the term changed."""
        totals, session = self._advance(now)
        stood = new == "Candidate" and (old != "Candidate" or term > totals.term)
        # A node that is alone, or to which leadership is transferred, may lead without having been seen as
        # candidate.
        if stood or (new == "Leader" and old in {"Follower", "Learner"}):
            totals.elections += 1
        if new == "Leader" and term != totals.last_term_led:
            totals.terms_as_leader += 1
            totals.last_term_led = term
        totals.term = term
        session.visit(new, term)
        changed = old != new
        if changed:
            self._state_since = now.wall
        event = self._record(
            _kind_of(old, new),
            now.wall,
            previous=old if changed else UNSET,
            leader=leader or UNSET,
        )
        return [*event, *self._rows()]

    def alive(self, now: Instant) -> list[Change]:
        """The node is up. Called every 10 s, it dates a crash to within 10 s."""
        self._advance(now)
        return self._rows()

    def stop(self, reason: str, now: Instant) -> list[Change]:
        """End the session."""
        totals, session = self._advance(now)
        event = self._record("stop", now.wall, reason=reason)
        session.end, session.end_reason = now.wall, reason
        totals.ended_uptime += session.duration
        return [*event, *self._rows()]

    def reset(self, now: Instant) -> list[Change]:
        """Forget all but the current session, which keeps its start, its length and its id.

        `first_seen` becomes that start; times in states and elections restart at 0.
        """
        totals, session = self._advance(now)
        self._totals = Totals(
            first_seen=session.start,
            last_session_key=totals.last_session_key,
            sessions=1,
            last_term_led=totals.last_term_led,
            term=totals.term,
        )
        session.down_before = 0.0
        session.states, session.terms = [], []
        session.visit(session.state, totals.term)
        self._past.clear()
        self._past.append(session)
        self._events.clear()
        cleared: list[Change] = [RecordsCleared(EVENT_KIND), RecordsCleared(SESSION_KIND)]
        return [*cleared, *self._record("reset", now.wall), *self._rows()]

    def reset_changes(self, now: Instant) -> list[Change]:
        """What `reset` would return, for who stores it first."""
        tried = copy(self)
        tried._totals, tried._session = copy(self._totals), copy(self._session)
        tried._past, tried._events = copy(self._past), copy(self._events)
        return tried.reset(now)

    def report(self, now: Instant) -> UptimeReport:
        totals, session = self._advance(now)
        total_uptime = self._total_uptime()
        day, week, month = (self._percentage(days * DAY_SECONDS) for days in (1, 7, 30))
        return UptimeReport(
            node_id=self._node_id,
            current_session=CurrentSession(
                start_time=rfc3339(session.start),
                uptime_seconds=whole_seconds(session.duration),
                uptime_formatted=duration_text(session.duration),
                current_state=session.state,
                state_since=rfc3339(self._state_since),
                uptime_ms=round(session.duration * 1000),
            ),
            historical=Historical(
                total_sessions=totals.sessions,
                total_uptime_seconds=whole_seconds(total_uptime),
                total_downtime_seconds=whole_seconds(totals.downtime),
                uptime_percentage_24h=day,
                uptime_percentage_7d=week,
                uptime_percentage_30d=month,
                uptime_percentage_all=percentage(total_uptime, totals.downtime),
                restarts=totals.restarts,
                crashes=totals.crashes,
                mtbf_seconds=self._mtbf(),
                total_uptime_ms=round(total_uptime * 1000),
                total_downtime_ms=round(totals.downtime * 1000),
            ),
            state_time=StateTime(
                leader_seconds=whole_seconds(totals.leader_seconds),
                follower_seconds=whole_seconds(totals.follower_seconds),
                candidate_seconds=whole_seconds(totals.candidate_seconds),
                leadership_ratio=totals.leadership_ratio(),
                leader_ms=round(totals.leader_seconds * 1000),
                follower_ms=round(totals.follower_seconds * 1000),
                candidate_ms=round(totals.candidate_seconds * 1000),
            ),
            leadership=Leadership(
                elections_participated=totals.elections,
                terms_as_leader=totals.terms_as_leader,
                current_term=totals.term,
            ),
            first_seen=rfc3339(totals.first_seen),
            last_event=rfc3339(self._last_event_at),
        )

    def history(self, now: Instant, events: int = 100, sessions: int = 10) -> UptimeHistory:
        """The newest `events` and `sessions`, newest first."""
        totals, _ = self._advance(now)
        return UptimeHistory(
            node_id=self._node_id,
            recent_events=tuple(islice(reversed(self._events), events)),
            recent_sessions=tuple(session.view() for session in islice(reversed(self._past), sessions)),
            total_events=totals.events,
            total_sessions=totals.sessions,
        )

    def stats(self, now: Instant) -> UptimeStats:
        totals, session = self._advance(now)
        total_uptime = self._total_uptime()
        return UptimeStats(
            current_uptime_ms=round(session.duration * 1000),
            current_uptime_str=duration_text(session.duration),
            total_uptime_ms=round(total_uptime * 1000),
            total_uptime_str=duration_text(total_uptime),
            total_sessions=totals.sessions,
            uptime_percentage_24h=self._percentage(DAY_SECONDS),
            uptime_percentage_7d=self._percentage(7 * DAY_SECONDS),
            uptime_percentage_all=percentage(total_uptime, totals.downtime),
            total_restarts=totals.restarts,
            total_crashes=totals.crashes,
            leadership_ratio=totals.leadership_ratio(),
            total_elections=totals.elections,
            first_tracked_time=rfc3339(totals.first_seen),
            current_uptime_seconds=whole_seconds(session.duration),
            current_uptime_formatted=duration_text(session.duration),
            mtbf_seconds=self._mtbf(),
            leader_time_seconds=whole_seconds(totals.leader_seconds),
        )

    def text(self, now: Instant) -> str:
        """The current session's length, e.g. `2h15m30s`."""
        return duration_text(self._advance(now)[1].duration)

    def _advance(self, now: Instant) -> tuple[Totals, UptimeSession]:
        """Count the time up to now, unless the session has ended."""
        totals, session = self._totals, self._session
        assert totals is not None, "start comes first"
        assert session is not None, "start comes first"
        if session.end is None and now.mono >= self._counted_mono:
            totals.spent(session.state, now.mono - self._counted_mono)
            self._counted_mono = now.mono
            session.duration = now.mono - self._started_mono
            session.last_alive = now.wall
        return totals, session

    def _total_uptime(self) -> float:
        assert self._totals is not None
        assert self._session is not None
        lasting = self._session.duration if self._session.end is None else 0.0
        return self._totals.ended_uptime + lasting

    def _mtbf(self) -> int:
        assert self._totals is not None
        crashes = self._totals.crashes
        return whole_seconds(self._total_uptime() / crashes) if crashes else 0

    def _percentage(self, window: float) -> float:
        return uptime_percentage(reversed(self._past), window)

    def _rows(self) -> list[Change]:
        assert self._totals is not None
        assert self._session is not None
        return [self._session.saved(), self._totals.saved()]

    def _record(
        self,
        kind: EventType,
        at: float,
        *,
        previous: Role | UnsetType = UNSET,
        leader: str | UnsetType = UNSET,
        reason: str | UnsetType = UNSET,
    ) -> list[Change]:
        """Record an event of `self._session`; its number is in the totals, which are to be saved after it."""
        assert self._totals is not None
        assert self._session is not None
        event = UptimeEvent(
            type=kind,
            timestamp=rfc3339(at),
            state=self._session.state,
            previous_state=previous,
            term=self._totals.term,
            leader_id=leader,
            reason=reason,
            uptime_at_event=whole_seconds(self._session.duration),
        )
        self._totals.events += 1
        self._events.append(event)
        self._last_event_at = at
        return [RecordAdded(EVENT_KIND, self._totals.events, msgspec.json.encode(event), EVENTS_KEPT)]


def _kind_of(old: Role, new: Role) -> EventType:
    if old == new:
        return "leader_change"
    if new == "Leader":
        return "election"
    return "demote" if old == "Leader" else "state_change"
