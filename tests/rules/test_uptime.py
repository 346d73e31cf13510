from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.clock import Instant
from heliosd.cluster import uptime, uptime_record
from heliosd.cluster.uptime import UptimeTracker
from heliosd.raft.roles import Role
from heliosd.store.changes import Change, RecordAdded, RecordsCleared, Saved, ValueSet

WALL = 1_700_000_000.0
DAY = 86_400.0


class Machine:
    """A node with a disk and two clocks; the monotonic one restarts with each boot."""

    def __init__(self) -> None:
        self.wall = WALL
        self.mono = 17.3
        self.records: dict[str, dict[int, bytes]] = {}
        self.values: dict[str, bytes] = {}
        self.tracker: UptimeTracker

    @property
    def now(self) -> Instant:
        return Instant(self.wall, self.mono)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds

    def save(self, changes: list[Change]) -> None:
        for change in changes:
            match change:
                case RecordAdded(kind, key, body, keep):
                    rows = self.records.setdefault(kind, {})
                    rows[key] = body
                    for old in sorted(rows)[:-keep] if len(rows) > keep else ():
                        del rows[old]
                case RecordsCleared(kind):
                    self.records.pop(kind, None)
                case ValueSet(name, body):
                    assert body is not None
                    self.values[name] = body
                case _:
                    raise AssertionError(change)

    def boot(self, state: Role = "Follower") -> None:
        """The daemon starts; it knows its past from its disk only."""
        rows = {kind: tuple(rows[key] for key in sorted(rows)) for kind, rows in self.records.items()}
        self.tracker = UptimeTracker("node-1", Saved(records=rows, values=dict(self.values)))
        self.save(self.tracker.start(state, self.now))

    def run_for(self, seconds: float) -> None:
        """Time passes with `alive` every 10 s."""
        while seconds >= 10:
            self.passes(10)
            self.save(self.tracker.alive(self.now))
            seconds -= 10
        self.passes(seconds)

    def becomes(self, old: Role, new: Role, term: int, leader: str = "") -> None:
        self.save(self.tracker.state_changed(old, new, term, leader, self.now))

    def stops(self) -> None:
        self.save(self.tracker.stop("graceful_shutdown", self.now))

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = msgspec.to_builtins(self.tracker.report(self.now))
        return report

    def events(self) -> list[str]:
        return [event.type for event in self.tracker.history(self.now, events=1000).recent_events]


def test_the_first_start_ever_is_neither_a_restart_nor_a_crash() -> None:
    node = Machine()
    node.boot()
    node.run_for(8130)
    past = node.report()["historical"]
    assert (past["total_sessions"], past["restarts"], past["crashes"]) == (1, 0, 0)
    assert past["uptime_percentage_24h"] == past["uptime_percentage_all"] == 100.0
    assert (past["total_uptime_seconds"], past["mtbf_seconds"]) == (8130, 0)
    assert node.tracker.text(node.now) == "2h15m30s"


def test_the_report_has_the_keys_that_clients_read() -> None:
    node = Machine()
    node.boot()
    report = node.report()
    assert {key: list(value) if isinstance(value, dict) else value for key, value in report.items()} == {
        "node_id": "node-1",
        "current_session": [
            *("start_time", "uptime_seconds", "uptime_formatted", "current_state", "state_since"),
            "uptime_ms",
        ],
        "historical": [
            *("total_sessions", "total_uptime_seconds", "total_downtime_seconds"),
            *(
                "uptime_percentage_24h",
                "uptime_percentage_7d",
                "uptime_percentage_30d",
                "uptime_percentage_all",
            ),
            *("restarts", "crashes", "mtbf_seconds", "total_uptime_ms", "total_downtime_ms"),
        ],
        "state_time": [
            *("leader_seconds", "follower_seconds", "candidate_seconds", "leadership_ratio"),
            *("leader_ms", "follower_ms", "candidate_ms"),
        ],
        "leadership": ["elections_participated", "terms_as_leader", "current_term"],
        "first_seen": "2023-11-14T22:13:20.000000Z",
        "last_event": "2023-11-14T22:13:20.000000Z",
    }


def test_a_stop_and_a_start_are_a_restart_with_the_downtime_between_them() -> None:
    node = Machine()
    node.boot()
    node.run_for(300)
    node.stops()
    node.passes(100)
    node.boot()
    node.run_for(100)
    past = node.report()["historical"]
    assert (past["total_sessions"], past["restarts"], past["crashes"]) == (2, 1, 0)
    assert (past["total_uptime_seconds"], past["total_downtime_seconds"]) == (400, 100)
    assert past["uptime_percentage_24h"] == past["uptime_percentage_all"] == 80.0
    assert node.events() == ["start", "stop", "start"]


def test_a_start_that_finds_no_end_is_a_crash_dated_by_the_last_time_it_was_known_to_be_up() -> None:
    node = Machine()
    node.boot()
    node.run_for(305)
    node.passes(95)
    node.boot()
    past = node.report()["historical"]
    assert (past["restarts"], past["crashes"]) == (1, 1)
    assert (past["total_uptime_seconds"], past["total_downtime_seconds"]) == (300, 100)
    history = node.tracker.history(node.now)
    crashed = history.recent_sessions[1]
    assert (crashed.end_reason, crashed.duration_seconds, crashed.is_current) == ("crash", 300, False)
    assert crashed.end_time == "2023-11-14T22:18:20.000000Z"
    assert node.events() == ["start", "crash", "start"]
    node.boot()
    assert node.report()["historical"]["crashes"] == 2


def test_after_a_stop_the_figures_stand_still_and_count_once() -> None:
    node = Machine()
    node.boot()
    node.run_for(60)
    node.stops()
    stopped = node.report()
    node.passes(1000)
    assert node.report() == stopped
    assert stopped["historical"]["total_uptime_seconds"] == 60
    assert node.tracker.history(node.now).recent_sessions[0].end_reason == "graceful_shutdown"


def test_time_counts_for_the_role_that_it_was_spent_in() -> None:
    node = Machine()
    node.boot()
    node.run_for(10)
    node.becomes("Follower", "Candidate", 2)
    node.run_for(5)
    node.becomes("Candidate", "Leader", 2, "node-1")
    node.run_for(60)
    node.becomes("Leader", "Down", 2)
    node.run_for(1000)
    node.becomes("Down", "Follower", 2)
    node.becomes("Follower", "Learner", 3)
    node.run_for(25)
    assert node.report()["state_time"] == {
        "leader_seconds": 60,
        "follower_seconds": 35,
        "candidate_seconds": 5,
        "leadership_ratio": 0.6,
        "leader_ms": 60_000,
        "follower_ms": 35_000,
        "candidate_ms": 5_000,
    }
    node.passes(10)
    node.boot()
    assert node.report()["state_time"]["leader_seconds"] == 60


def test_elections_and_terms_led_are_counted_once_each() -> None:
    node = Machine()
    node.boot()
    node.becomes("Follower", "Candidate", 2)
    node.becomes("Candidate", "Candidate", 3)
    node.becomes("Candidate", "Leader", 3, "node-1")
    node.becomes("Leader", "Unknown", 3)
    node.becomes("Unknown", "Leader", 3, "node-1")
    node.becomes("Leader", "Follower", 4, "node-2")
    node.becomes("Follower", "Leader", 5, "node-1")
    assert node.report()["leadership"] == {
        "elections_participated": 3,
        "terms_as_leader": 2,
        "current_term": 5,
    }
    session = node.tracker.history(node.now).recent_sessions[0]
    assert session.states_visited == ("Follower", "Candidate", "Leader", "Unknown")
    assert session.terms_seen == (2, 3, 4, 5)


def test_events_show_the_states_the_leader_and_the_uptime() -> None:
    node = Machine()
    node.boot()
    node.run_for(10)
    node.becomes("Follower", "Leader", 2, "node-1")
    node.becomes("Leader", "Leader", 3, "")
    newest, turned, _ = msgspec.to_builtins(node.tracker.history(node.now).recent_events)
    assert turned == {
        "type": "election",
        "timestamp": "2023-11-14T22:13:30.000000Z",
        "state": "Leader",
        "previous_state": "Follower",
        "term": 2,
        "leader_id": "node-1",
        "uptime_at_event": 10,
    }
    assert (newest["type"], "previous_state" in newest, "leader_id" in newest) == (
        "leader_change",
        False,
        False,
    )


def test_leading_begins_with_an_election_and_ends_with_a_demotion() -> None:
    node = Machine()
    node.boot()
    node.becomes("Follower", "Candidate", 2)
    node.becomes("Candidate", "Leader", 2, "node-1")
    node.becomes("Leader", "Leader", 3, "node-1")
    node.becomes("Leader", "Unknown", 3)
    assert node.events() == ["demote", "leader_change", "election", "state_change", "start"]


def test_seconds_are_whole_and_rounded_down_and_milliseconds_stand_beside_them() -> None:
    node = Machine()
    node.boot()
    node.run_for(1.9)
    node.becomes("Follower", "Leader", 2, "node-1")
    node.run_for(0.3)
    report, history = node.report(), node.tracker.history(node.now)
    assert (report["current_session"]["uptime_seconds"], report["current_session"]["uptime_ms"]) == (2, 2200)
    assert (report["state_time"]["follower_seconds"], report["state_time"]["follower_ms"]) == (1, 1900)
    assert history.recent_events[0].uptime_at_event == 1
    assert (history.recent_sessions[0].duration_seconds, history.recent_sessions[0].duration_ms) == (2, 2200)
    stats = node.tracker.stats(node.now)
    assert (stats.current_uptime_seconds, stats.current_uptime_formatted) == (2, "2s")
    assert (stats.leader_time_seconds, stats.mtbf_seconds) == (0, 0)


def test_events_that_an_older_version_stored_with_fractions_are_read() -> None:
    row = b'{"type":"start","timestamp":"2023-11-14T22:13:20Z","state":"Follower","term":1,"uptime_at_event":1.75}'
    saved = Saved(records={"uptime_event": (row,)})
    tracker = UptimeTracker("node-1", saved)
    tracker.start("Follower", Instant(1_700_000_000.0, 0.0))
    assert tracker.history(Instant(1_700_000_000.0, 0.0)).recent_events[-1].uptime_at_event == 1


def test_session_ids_are_unique_even_across_a_reset() -> None:
    node = Machine()
    seen = set()
    for _ in range(3):
        node.boot()
        seen.add(node.tracker.history(node.now).recent_sessions[0].session_id)
        node.stops()
    node.boot()
    node.save(node.tracker.reset(node.now))
    node.stops()
    node.boot()
    history = node.tracker.history(node.now)
    assert len(seen | {session.session_id for session in history.recent_sessions}) == 5


def test_a_reset_keeps_the_current_session_and_forgets_the_rest() -> None:
    node = Machine()
    node.boot()
    node.run_for(100)
    node.passes(100)
    node.boot()
    node.becomes("Follower", "Leader", 7, "node-1")
    node.run_for(50)
    node.save(node.tracker.reset(node.now))
    for _ in range(2):
        report = node.report()
        assert report["current_session"]["uptime_seconds"] == 50
        assert report["historical"] == {
            "total_sessions": 1,
            "total_uptime_seconds": 50,
            "total_downtime_seconds": 0,
            "uptime_percentage_24h": 100,
            "uptime_percentage_7d": 100,
            "uptime_percentage_30d": 100,
            "uptime_percentage_all": 100,
            "restarts": 0,
            "crashes": 0,
            "mtbf_seconds": 0,
            "total_uptime_ms": 50_000,
            "total_downtime_ms": 0,
        }
        assert report["state_time"]["leader_seconds"] == 0
        assert report["leadership"] == {"elections_participated": 0, "terms_as_leader": 0, "current_term": 7}
        assert report["first_seen"] == report["current_session"]["start_time"]
        assert node.events() == ["reset"]
    node.passes(1)
    node.boot()
    assert node.report()["historical"]["crashes"] == 1
    assert node.events() == ["start", "crash", "reset"]


def test_totals_survive_the_trimming_of_events_and_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (uptime, uptime_record):  # a tenth of what is kept, which a test fills sooner
        monkeypatch.setattr(module, "EVENTS_KEPT", 1_000)
        monkeypatch.setattr(module, "SESSIONS_KEPT", 100)
    node = Machine()
    for _ in range(105):
        node.boot()
        node.passes(1)
        node.stops()
    node.boot()
    for term in range(1, 1_010):
        node.becomes("Follower", "Follower", term, "node-2")
    assert (len(node.records["uptime_event"]), len(node.records["uptime_session"])) == (1_000, 100)
    history = node.tracker.history(node.now, events=1000, sessions=100)
    assert (len(history.recent_events), len(history.recent_sessions)) == (1000, 100)
    assert (history.total_events, history.total_sessions) == (2 * 105 + 1 + 1_009, 106)
    assert len(history.recent_sessions[0].terms_seen) == 100
    past = node.report()["historical"]
    assert (past["total_sessions"], past["restarts"], past["total_uptime_seconds"]) == (106, 105, 105)


def test_percentages_look_back_over_their_own_period_only() -> None:
    node = Machine()
    node.boot()
    node.passes(10 * DAY)
    node.stops()
    node.passes(DAY / 2)
    node.boot()
    node.passes(DAY / 4)
    past = node.report()["historical"]
    assert past["uptime_percentage_24h"] == 50.0
    assert past["uptime_percentage_7d"] == pytest.approx(100 * 6.5 / 7, abs=1e-4)
    assert past["uptime_percentage_30d"] == past["uptime_percentage_all"]
    assert past["uptime_percentage_all"] == pytest.approx(100 * 10.25 / 10.75, abs=1e-4)


@pytest.mark.parametrize("years", [-10, 10])
def test_a_jump_of_the_wall_clock_within_a_session_changes_no_figure(years: int) -> None:
    node = Machine()
    node.boot()
    node.passes(100)
    node.wall += years * 365 * DAY
    node.passes(100)
    past = node.report()["historical"]
    assert (past["total_uptime_seconds"], past["total_downtime_seconds"]) == (200, 0)
    assert past["uptime_percentage_24h"] == past["uptime_percentage_all"] == 100
    assert node.tracker.stats(node.now).current_uptime_ms == 200_000


def numbers(value: object) -> list[float]:
    match value:
        case bool():
            return []
        case int() | float():
            return [value]
        case dict():
            return [number for each in value.values() for number in numbers(each)]
        case list() | tuple():
            return [number for each in value for number in numbers(each)]
    return []


ROLES: list[Role] = ["Leader", "Follower", "Candidate", "Learner", "Down", "Unknown"]
STEPS = st.one_of(
    st.tuples(st.just("passes"), st.floats(0, 40 * DAY)),
    st.tuples(st.just("jumps"), st.floats(-10 * 365 * DAY, 10 * 365 * DAY)),
    st.tuples(st.just("becomes"), st.sampled_from(ROLES)),
    st.tuples(st.sampled_from(["alive", "stops", "crashes", "resets"]), st.just(0)),
)


@given(st.lists(STEPS, max_size=40))
def test_no_history_of_clocks_makes_a_figure_negative_or_a_percentage_above_100(
    steps: list[tuple[str, Any]],
) -> None:
    node = Machine()
    node.boot()
    role: Role = "Follower"
    term = 0
    for step, how in steps:
        match step:
            case "passes":
                node.passes(how)
            case "jumps":
                node.wall = max(0.0, node.wall + how)
            case "becomes":
                term += 1
                node.becomes(role, how, term)
                role = how
            case "alive":
                node.save(node.tracker.alive(node.now))
            case "resets":
                node.save(node.tracker.reset(node.now))
            case "stops" | "crashes":
                if step == "stops":
                    node.stops()
                node.mono = 3.0
                node.boot()
                role = "Follower"
        report = node.report()
        shown = [
            report,
            msgspec.to_builtins(node.tracker.stats(node.now)),
            msgspec.to_builtins(node.tracker.history(node.now)),
        ]
        assert all(number >= 0 for number in numbers(shown))
        past, states = report["historical"], report["state_time"]
        assert all(value <= 100 for key, value in past.items() if "percentage" in key)
        assert states["leadership_ratio"] <= 1
        in_roles = states["leader_seconds"] + states["follower_seconds"] + states["candidate_seconds"]
        assert in_roles <= past["total_uptime_seconds"] * (1 + 1e-9) + 0.01
        assert past["total_uptime_seconds"] >= report["current_session"]["uptime_seconds"]
