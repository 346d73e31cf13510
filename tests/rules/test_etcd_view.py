"""A cluster of etcd as one heliosd sees it: members, health, states, the pace of polling, and the status."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from heliosd.alerts.conditions import Observation
from heliosd.cli.members_view import cluster_of
from heliosd.clock import Instant
from heliosd.cluster.etcd.client.responses import EtcdMember, MemberStatus, ResponseHeader
from heliosd.cluster.etcd.election import RESTORED_SECONDS, LeaderElected, LeaderLost
from heliosd.cluster.etcd.event_log import LogHead
from heliosd.cluster.etcd.member_lag import LAGGING_SECONDS, MemberLag
from heliosd.cluster.etcd.pause_clock import PauseClock
from heliosd.cluster.etcd.status import build_status, why_not_ready
from heliosd.cluster.etcd.view import ClusterView
from heliosd.cluster.etcd.view_changes import OtherCluster, OwnStateChanged, ViewChange
from heliosd.cluster.latency import HealthChanged, LatencyTracker
from heliosd.protocol.views.status import ObserverView

A, B, C = "40a19193c2e8daeb", "5b43fdbbeab2ef97", "889e276ab796edad"
CLUSTER = "cdf818194e3a8c32"


def member(id_: str, name: str, *, learner: bool = False, port: int = 2379) -> EtcdMember:
    return EtcdMember(
        id_, name, (f"http://{name or 'new'}:2380",), (f"http://{name}:{port}",) if name else (), learner
    )


THREE = (member(C, "etcd-3"), member(A, "etcd-1"), member(B, "etcd-2"))


class Seen:
    """A view whose time and members are moved by hand."""

    def __init__(self, node_id: str = "etcd-1", members: Sequence[EtcdMember] = THREE) -> None:
        self.latency = LatencyTracker()
        self.view = ClusterView(node_id, self.latency)
        self.mono = 1000.0
        self.cluster = CLUSTER
        self.revision = 7
        self.view.listed("", members, self.mono, self.now)

    @property
    def now(self) -> Instant:
        return Instant(1_700_000_000.0 + self.mono, self.mono)

    def status(self, of: str, leader: str, term: int, *, learner: bool = False) -> MemberStatus:
        header = ResponseHeader(self.cluster, of, self.revision, term)
        return MemberStatus(header, "3.4.23", 4096, leader, 120, term, 118, learner, ())

    def poll(
        self, leader: str, term: int = 5, who: Sequence[str] = (A, B, C), *, seconds: float = 0.25
    ) -> list[ViewChange]:
        """These members say so, the others refuse to be asked."""
        self.mono += seconds
        changes: list[ViewChange] = []
        for each in self.view.to_poll():
            if each.id in who:
                self.view.answered(each.id, self.status(each.id, leader, term), 0.002, self.now)
            else:
                self.view.failed(each.id, "connection refused", self.now)
            changes += self.view.look(self.now)
        return changes

    def poller(
        self, leader: str, seconds: float, term: int = 5, who: Sequence[str] = (A, B, C)
    ) -> list[ViewChange]:
        """As `poll`, every 250 ms for so long."""
        return [change for _ in range(int(seconds * 4)) for change in self.poll(leader, term, who)]

    def listing(self, members: Sequence[EtcdMember], by: str = B) -> None:
        """A list that is asked for now."""
        self.mono += 0.01
        self.view.listed(by, members, self.mono - 0.005, self.now)


def led_by_b(node_id: str = "etcd-1") -> Seen:
    seen = Seen(node_id)
    seen.poll(B)
    seen.listing(THREE)
    return seen


def test_a_list_is_accepted_though_many_answers_came_while_it_was_read() -> None:
    seen = led_by_b()
    asked, new = seen.mono, member("c0ffee", "etcd-4")
    for _ in range(6):
        seen.poll(B, seconds=0.05)
    seen.view.listed(B, (*THREE, new), asked, seen.now)
    assert new in seen.view.members


def test_a_leader_is_reported_and_its_loss() -> None:
    seen = Seen()
    assert LeaderElected(B, 5, "") in seen.poll(B)
    assert seen.poll(B) == []
    assert LeaderLost(B, 5) in seen.poll("")
    assert why_not_ready(seen.view) == "no leader"


ALONE = (member(B, "etcd-2"),)
JOINED = EtcdMember("c0ffee", "", ("http://new:2380",), (), is_learner=False)


@pytest.mark.parametrize(
    ("before", "answering"), [(ALONE, (B,)), (THREE, (A, B))], ids=["one", "three, one of them dead"]
)
@pytest.mark.parametrize("then", ["answers", "stays away", "leader steps down"])
def test_a_voter_that_joins_is_given_time_to_answer(
    before: tuple[EtcdMember, ...], answering: tuple[str, ...], then: str
) -> None:
    """etcd keeps its leader meanwhile: no quorum of the new members is known to have lost it."""
    seen = Seen("etcd-2", before)
    seen.poll(B, who=answering)
    seen.listing(before)
    seen.poller(B, 3, who=answering)
    seen.listing((*before, JOINED))
    changes = seen.poller(B, 2, who=answering)
    assert seen.view.quorum_answers(seen.now)
    match then:
        case "answers":
            seen.listing((*before, replace(JOINED, name="etcd-4", client_urls=("http://etcd-4:2379",))))
            changes += seen.poller(B, 5, who=(*answering, JOINED.id))
        case "stays away":
            assert LeaderLost(B, 5) in seen.poller(B, 1, who=answering)
        case "leader steps down":
            assert LeaderLost(B, 5) in seen.poll("", who=answering)
    assert not [each for each in changes if isinstance(each, LeaderLost | LeaderElected)]


def test_the_loss_of_a_quorum_is_reported_within_three_seconds_and_shown() -> None:
    seen = led_by_b()
    began = seen.mono
    while LeaderLost(B, 5) not in seen.poll(B, who=()):
        assert seen.mono - began < 3
    shown = build_status(seen.view, (), seen.now)
    assert (shown.leader.id, shown.leader.address, shown.stale) == ("", "", True)
    assert shown.node.state == "Unknown"
    assert [peer.state for peer in shown.peer_states] == ["Unknown", "Unknown"]


def test_the_status_shows_this_nodes_member_and_the_others_as_peers() -> None:
    seen = led_by_b()
    shown = build_status(seen.view, (ObserverView("etcd-1", "0.1.0", "2026-01-01T00:00:00Z"),), seen.now)
    json = msgspec.to_builtins(shown)
    reported = {"version": "3.4.23", "db_size_bytes": 4096, "alarms": ()}
    own = {"id": A, "state": "Follower", "term": 5, "name": "etcd-1", "voter": True, "healthy": True}
    assert json["node"] == own | reported
    assert json["peers"][1].items() >= reported.items()
    leader = {"id": B, "address": "etcd-2:2379", "is_leader": False, "name": "etcd-2"}
    assert json["leader"] == {**leader, "address_kind": "client"}
    assert json["indices"] == {"last_log": 120, "last_log_term": 5, "commit_index": 120, "applied_index": 118}
    assert [(each["id"], each["name"], each["address"]) for each in json["peers"]] == [
        (B, "etcd-2", "etcd-2:2379"),
        (C, "etcd-3", "etcd-3:2379"),
    ]
    assert "match_index" not in json["peers"][0]
    first = {"id": B, "address": "etcd-2:2379", "state": "Leader", "name": "etcd-2"}
    assert json["peer_states"][0] == {**first, "address_kind": "client"}
    assert json["peers"][0]["latency"]["last_latency_ms"] == 2.0
    assert (json["observed_by"], json["observed_at"], json["stale"]) == ("etcd-1", seen.now.wall, False)
    assert [each["id"] for each in json["observers"]] == ["etcd-1"]
    assert json["cluster_health"]["total_peers"] == 2


@pytest.mark.parametrize(("leader", "states"), [(C, ["Follower", "Leader"]), ("", ["Unknown", "Follower"])])
def test_a_status_shows_the_leader_of_a_log_that_is_ahead(leader: str, states: list[str]) -> None:
    seen = led_by_b()
    logged = LogHead(birth="x", cluster="c", term=6, leader=leader)
    shown = build_status(seen.view, (), seen.now, logged)
    assert (shown.leader.id, shown.leader.name or "") == (leader, "etcd-3" if leader else "")
    assert [each.state for each in shown.peers] == [each.state for each in shown.peer_states] == states
    assert (shown.node.state, shown.node.term, shown.stale) == ("Follower", 6, not leader)


def test_a_status_shows_this_node_as_leader_where_the_log_says_so() -> None:
    seen = led_by_b()
    shown = build_status(seen.view, (), seen.now, LogHead(birth="x", cluster="c", term=6, leader=A))
    assert (shown.leader.id, shown.leader.is_leader, shown.node.state) == (A, True, "Leader")
    assert [each.state for each in shown.peers] == ["Follower", "Follower"]


def test_a_leader_that_only_the_log_knows_is_shown_as_stale() -> None:
    seen = Seen("etcd-1")
    shown = build_status(seen.view, (), seen.now, LogHead(birth="x", cluster="c", term=6, leader=B))
    assert (shown.leader.id, shown.stale) == (B, True)


def test_a_member_reports_its_alarms_and_quota_and_nothing_while_it_does_not_answer() -> None:
    seen = led_by_b()
    status = replace(seen.status(B, B, 5), errors=(f"memberID:{int(B, 16)} alarm:NOSPACE ",))
    seen.view.answered(B, replace(status, db_size_quota=8192), 0.002, seen.now)
    seen.view.traces.of(C).db_quota = 2048
    by_b, by_c = build_status(seen.view, (), seen.now).peers
    assert (by_b.alarms, by_b.db_quota_bytes) == (("NOSPACE",), 8192)
    assert (by_c.alarms, by_c.db_quota_bytes) == ((), 2048)
    seen.view.failed(B, "refused", seen.now)
    silent = build_status(seen.view, (), seen.now).peers[0]
    assert (silent.version, silent.alarms, silent.db_quota_bytes) == (UNSET, UNSET, UNSET)


def test_an_address_is_said_to_be_for_peers_until_the_one_for_clients_is_known() -> None:
    seen = led_by_b()
    seen.listing((*THREE, member("1", "")))
    shown = build_status(seen.view, (), seen.now)
    assert [each.address_kind for each in shown.peers] == ["peer", "client", "client"]
    assert [each.address_kind for each in shown.peer_states] == ["peer", "client", "client"]
    assert seen.latency.peer_report("1", seen.now).address_kind == "peer"
    assert [each.address_kind for each in seen.view.known_members] == ["peer", "client", "client", "client"]


@pytest.mark.parametrize(("node_id", "own"), [("etcd-2", B), (B, B), ("node-9", None)])
def test_this_node_is_the_member_that_bears_its_id(node_id: str, own: str | None) -> None:
    seen = led_by_b(node_id)
    found = seen.view.own
    assert (found.id if found else None) == own
    shown = build_status(seen.view, (), seen.now)
    assert shown.node.state == ("Leader" if own else "Observer")
    assert shown.node.id == (own or "node-9")
    assert (shown.node.voter, shown.node.healthy) == ((True, True) if own else (UNSET, UNSET))
    assert shown.leader.is_leader == bool(own)
    assert shown.indices.commit_index == 120
    assert len(shown.peers) == (2 if own else 3)


def test_states_are_those_of_the_last_answers() -> None:
    seen = led_by_b()
    assert [seen.view.role(each, seen.now) for each in (A, B, C)] == ["Follower", "Leader", "Follower"]
    seen.view.answered(A, seen.status(A, "", 5), 0.002, seen.now)
    seen.view.answered(C, seen.status(C, C, 5), 0.002, seen.now)
    assert seen.view.role(A, seen.now) == "Candidate"
    assert seen.view.role(C, seen.now) == "Unknown"
    seen.view.answered(C, seen.status(C, B, 5, learner=True), 0.002, seen.now)
    assert seen.view.role(C, seen.now) == "Learner"
    seen.mono += 2.6
    assert seen.view.role(C, seen.now) == "Unknown"


def test_before_anything_is_known_nothing_is_made_up() -> None:
    view = ClusterView("etcd-1", LatencyTracker())
    now = Instant(1.0, 1.0)
    assert view.look(now) == ()
    shown = build_status(view, (), now)
    assert (shown.node.id, shown.node.state, shown.node.term) == ("etcd-1", "Unknown", 0)
    assert (shown.leader.id, shown.peers, shown.stale) == ("", (), True)
    assert (view.to_poll(), view.settled(now)) == ((), False)


def test_the_uptime_hears_of_this_nodes_own_state_term_and_leader() -> None:
    seen = Seen("etcd-2")
    changes = [change for change in seen.poll(B) if isinstance(change, OwnStateChanged)]
    assert changes[-1] == OwnStateChanged(changes[-1].old, "Leader", 5, B)
    assert [change for change in seen.poll("", 5) if isinstance(change, OwnStateChanged)][-1].leader == ""
    moves = [change for change in seen.poll(A, 6) if isinstance(change, OwnStateChanged)]
    assert (moves[-1].new, moves[-1].term, moves[-1].leader) == ("Follower", 6, A)


# Health


def test_three_failed_polls_make_a_peer_unhealthy_and_one_answer_heals_it() -> None:
    seen = led_by_b()
    changes = [change for change in seen.poller(B, 5.0, who=(A, B)) if isinstance(change, HealthChanged)]
    assert changes == [HealthChanged(C, healthy=False)]
    assert seen.view.failures() == {C: "connection refused"}
    assert [change for change in seen.poll(B) if isinstance(change, HealthChanged)] == [
        HealthChanged(C, healthy=True)
    ]
    assert seen.view.failures() == {}


def test_this_nodes_own_member_has_a_health_too_though_it_is_no_peer() -> None:
    seen = led_by_b("etcd-1")
    assert HealthChanged(A, healthy=False) in seen.poller(B, 1.0, who=(B, C))
    assert build_status(seen.view, (), seen.now).cluster_health.unhealthy_peers == 0
    assert A not in {each.peer_id for each in seen.latency.peer_health(seen.now)}


def test_an_own_member_that_is_silent_is_a_voter_that_is_missed_by_every_reader_of_the_status() -> None:
    seen = led_by_b("etcd-1")
    seen.poller(B, 5.0, who=(B, C))
    shown = build_status(seen.view, (), seen.now)
    assert (shown.node.state, shown.node.voter, shown.node.healthy) == ("Unknown", True, False)
    found = Observation.of(shown)
    assert (sorted(found.voters), list(found.unhealthy)) == (sorted((A, B, C)), [A])
    cluster = cluster_of(msgspec.to_builtins(shown), msgspec.to_builtins(shown.peer_states))
    assert cluster.problems() == ["quorum at risk: 2 of 3 voters are healthy, 2 are needed"]
    seen.poll(B)
    assert build_status(seen.view, (), seen.now).node.healthy is True


def test_an_own_member_without_a_vote_has_none_while_it_is_silent_either() -> None:
    seen = led_by_b("etcd-1")
    seen.listing([replace(each, is_learner=each.id == A) for each in THREE])
    seen.poller(B, 5.0, who=(B, C))
    assert Observation.of(build_status(seen.view, (), seen.now)).voters == {B, C}


def test_an_answer_counts_for_the_member_that_gave_it() -> None:
    seen = led_by_b()
    seen.mono += 0.25
    seen.view.answered(C, seen.status(A, B, 5), 0.002, seen.now)
    assert seen.view.failures() == {C: f"another member answers at its address ({A})"}


def test_a_member_of_another_cluster_is_no_member() -> None:
    seen = led_by_b()
    seen.cluster = "1"
    seen.view.answered(C, seen.status(C, C, 99), 0.002, seen.now)
    assert seen.view.failures() == {C: "belongs to another cluster (1)"}
    assert seen.view.look(seen.now) == ()


def test_another_cluster_takes_the_place_of_the_one_that_it_replaced() -> None:
    seen = led_by_b()
    seen.poller(B, 3.0, who=())
    seen.cluster = "1"
    seen.view.replaced_by("1", seen.now)
    changes = seen.view.look(seen.now)
    assert OtherCluster("1") in changes
    assert (seen.view.cluster_id, seen.view.members, seen.view.term) == ("1", (), 0)
    seen.listing(THREE, by=A)
    assert LeaderElected(A, 2, "") in seen.poll(A, 2)


@pytest.mark.parametrize("how", ["another cluster", "a backup"])
def test_a_term_is_news_also_where_terms_have_begun_again(how: str) -> None:
    seen = led_by_b()
    assert seen.view.term_seen(51, seen.now)
    if how == "another cluster":
        seen.view.replaced_by(seen.cluster, seen.now)
        seen.listing(THREE)
        seen.poll(A, 2)
    else:
        seen.poller(A, RESTORED_SECONDS + 1.0, 2)
    assert (seen.view.leader, seen.view.term) == (A, 2)
    assert seen.view.term_seen(3, seen.now)


def test_a_leader_is_reported_as_lost_before_its_cluster_is_forgotten() -> None:
    seen = led_by_b()
    seen.mono += 10.0
    seen.view.replaced_by("1", seen.now)
    assert [change for change in seen.view.look(seen.now) if not isinstance(change, OwnStateChanged)] == [
        LeaderLost(B, 5),
        OtherCluster("1"),
    ]


# Members


def test_any_list_will_do_to_know_whom_to_ask() -> None:
    seen = Seen(members=())
    assert seen.view.to_poll() == ()
    seen.listing(THREE, by=C)
    assert [each.id for each in seen.view.to_poll()] == [A, B, C]
    assert seen.view.members_as_of == 0


def test_only_the_leader_is_believed_who_the_members_are() -> None:
    seen = led_by_b()
    assert seen.view.members_as_of == 7
    seen.revision = 9
    seen.poll(B)
    seen.listing(THREE[:2], by=C)
    assert len(seen.view.members) == 3
    seen.listing(THREE[:2], by=B)
    assert [each.id for each in seen.view.members] == [A, C]
    assert seen.view.members_as_of == 9
    assert [each.id for each in seen.view.known_members] == [A, C]


def test_a_list_asked_before_its_teller_led_is_not_believed() -> None:
    seen = Seen()
    asked = seen.mono
    seen.poll(B)
    seen.view.listed(B, THREE[:2], asked, seen.now)
    assert len(seen.view.members) == 3
    assert seen.view.members_as_of == 0


def test_a_status_that_comes_while_a_list_is_under_way_does_not_make_it_newer() -> None:
    seen = led_by_b()
    asked = seen.mono
    seen.revision = 30
    seen.poll(B)
    seen.view.listed(B, THREE[:2], asked, seen.now)
    assert (len(seen.view.members), seen.view.members_as_of) == (2, 7)
    seen.poll(B)
    seen.poll(B)
    seen.view.listed(B, THREE, asked, seen.now)
    assert len(seen.view.members) == 2


def test_members_never_go_back_to_an_older_list() -> None:
    seen = led_by_b()
    four = (*THREE, member("1", "etcd-4"))
    seen.revision = 20
    seen.poll(B)
    seen.listing(four)
    seen.revision = 10
    seen.poll(C, 6)
    seen.listing(THREE, by=C)
    assert len(seen.view.members) == 4


def test_a_member_that_has_no_client_url_is_shown_but_not_asked() -> None:
    seen = led_by_b()
    seen.listing((*THREE, member("1", "", learner=True)))
    assert [each.id for each in seen.view.to_poll()] == [A, B, C]
    new = build_status(seen.view, (), seen.now).peers[0]
    assert (new.id, new.name, new.address) == ("1", "", "new:2380")
    seen.poller(B, 5.0)
    assert seen.view.settled(seen.now)


def test_a_learner_is_no_part_of_the_quorum() -> None:
    seen = Seen(
        members=(member(A, "etcd-1"), member(B, "etcd-2", learner=True), member(C, "etcd-3", learner=True))
    )
    assert seen.view.voters == (A,)
    assert LeaderElected(A, 5, "") in seen.poll(A, who=(A,))


def test_a_member_that_went_is_forgotten() -> None:
    seen = led_by_b()
    seen.poll(B, who=(A, B))
    seen.poll(B, who=(A, B))
    seen.listing((THREE[1], THREE[2]))
    assert [peer.id for peer in build_status(seen.view, (), seen.now).peers] == [B]
    assert seen.view.failures() == {}
    assert [each.peer_id for each in seen.latency.peer_health(seen.now)] == [B]
    assert seen.view.last_status(C) is None


def test_a_removed_member_that_answers_once_more_stays_forgotten() -> None:
    seen = led_by_b()
    seen.listing((THREE[1], THREE[2]))
    seen.view.answered("", seen.status(C, B, 5), 0.002, seen.now)
    assert seen.view.last_status(C) is None
    assert seen.view.last_answer(C) is None


def test_a_member_that_gets_this_nodes_name_is_no_peer_any_more() -> None:
    seen = led_by_b("node-9")
    assert len(build_status(seen.view, (), seen.now).peers) == 3
    seen.poll(B)
    seen.listing((THREE[0], THREE[1], replace(THREE[2], name="node-9")))
    shown = build_status(seen.view, (), seen.now)
    assert (shown.node.id, shown.node.state, len(shown.peers)) == (B, "Leader", 2)


def test_no_member_is_behind_one_that_is_down_since_before_the_cluster_was_restored() -> None:
    seen, lag = led_by_b(), MemberLag()

    def behind(applied: dict[str, int]) -> set[str]:
        """These answer so for longer than a member may be behind; the others refuse."""
        for _ in range(8):
            seen.mono += LAGGING_SECONDS / 4
            for each in (A, B, C):
                if each in applied:
                    index = applied[each]
                    status = replace(seen.status(each, B, 5), raft_index=index, raft_applied_index=index)
                    seen.view.answered(each, status, 0.002, seen.now)
                else:
                    seen.view.failed(each, "refused", seen.now)
            lag.measure(seen.view, seen.mono)
        return {each for each in (A, B, C) if lag.is_behind(each, seen.mono)}

    assert behind({A: 9_000, B: 9_000, C: 9_000}) == set()
    assert behind({A: 100, B: 100}) == set()
    assert behind({A: 100, B: 9_000, C: 9_000}) == {A}


# The pace


def test_the_members_are_asked_often_until_all_is_settled() -> None:
    seen = led_by_b()
    assert seen.view.poll_after(0.25, seen.now) == 0.25
    seen.poller(B, 4.0)
    assert seen.view.poll_after(0.25, seen.now) == 1.0


@pytest.mark.parametrize("what", ["a failure", "a new term", "no leader", "another opinion", "a new member"])
def test_what_is_new_is_looked_at_closely(what: str) -> None:
    seen = led_by_b()
    seen.poller(B, 4.0)
    match what:
        case "a failure":
            seen.poll(B, who=(A, B))
        case "a new term":
            seen.poll(B, 6)
        case "no leader":
            seen.poll("", 5)
        case "another opinion":
            seen.view.answered(A, seen.status(A, C, 5), 0.002, seen.now)
        case _:
            seen.listing((*THREE, member("1", "etcd-4")))
    assert not seen.view.settled(seen.now)


def test_a_member_that_is_down_for_long_is_no_news_any_more() -> None:
    seen = led_by_b()
    seen.poller(B, 30.0, who=(A, B))
    assert not seen.view.settled(seen.now)
    seen.poller(B, 40.0, who=(A, B))
    assert seen.view.settled(seen.now)


def test_a_member_that_has_never_answered_is_no_news_any_more_after_the_same_time() -> None:
    seen = Seen()
    seen.poller(B, 30.0, who=(A, B))
    assert not seen.view.settled(seen.now)
    seen.poller(B, 40.0, who=(A, B))
    assert seen.view.settled(seen.now)


def test_a_suspect_leader_is_said_to_be_one() -> None:
    seen = led_by_b()
    seen.poll(B, who=(A, C))
    assert seen.view.suspect
    assert why_not_ready(seen.view) == f"the leader {B} does not answer"
    shown = build_status(seen.view, (), seen.now)
    assert (shown.leader.id, shown.stale) == (B, True)
    assert not seen.view.settled(seen.now)


def test_an_alarm_is_reported_as_long_as_a_member_that_answers_lists_it() -> None:
    seen = led_by_b()
    raised = tuple(
        f"memberID:{int(each, 16)} alarm:{kind} " for each, kind in [(B, "NOSPACE"), (A, "NOSPACE")]
    )
    raised += ("memberID:1 alarm:CORRUPT ", "etcdserver: no leader")
    for each in (A, B, C):
        status = replace(seen.status(each, B, 5), errors=raised)
        seen.view.answered(each, status, 0.002, seen.now)
    reason = f"etcd has raised an alarm: CORRUPT on 1; NOSPACE on {A}, {B}"
    assert why_not_ready(seen.view) == reason
    seen.poll(B, who=(A, B))
    assert why_not_ready(seen.view) is None


# Laws

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("answer"), st.sampled_from([A, B, C]), st.sampled_from(["", A, B, C]), st.integers(1, 4)
        ),
        st.tuples(st.just("fail"), st.sampled_from([A, B, C]), st.just(""), st.just(0)),
        st.tuples(st.just("list"), st.sampled_from([A, B, C]), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("other"), st.sampled_from([A, B, C]), st.sampled_from(["", A]), st.integers(1, 2)),
        st.tuples(st.just("wait"), st.just(""), st.just(""), st.integers(1, 40)),
    ),
    max_size=50,
)


@given(steps, st.sampled_from(["etcd-1", B, "node-9"]))
def test_whatever_comes_the_status_is_whole(what: list[tuple[str, str, str, int]], node_id: str) -> None:
    seen = Seen(node_id, members=())
    reported = ""
    for kind, who, leader, number in what:
        seen.mono += 0.1
        match kind:
            case "answer":
                seen.view.answered(who, seen.status(who, leader, number), 0.01, seen.now)
            case "fail":
                seen.view.failed(who, "refused", seen.now)
            case "list":
                seen.listing(THREE[:number], by=who)
            case "other":
                seen.cluster = str(number)
                seen.view.answered(who, seen.status(who, leader, number), 0.01, seen.now)
            case _:
                seen.mono += number / 10
        for change in seen.view.look(seen.now):
            match change:
                case LeaderElected():
                    assert change.before == reported
                    reported = change.leader
                case LeaderLost():
                    assert change.leader == reported
                    reported = ""
                case _:
                    pass
        view = seen.view
        shown = build_status(view, (), seen.now)
        assert view.leader == reported
        assert shown.leader.id in ("", reported)
        ids = [peer.id for peer in shown.peers]
        assert ids == [peer.id for peer in shown.peer_states]
        own = {view.own.id} if view.own else set()
        assert sorted({*ids} | own) == [each.id for each in view.members]
        assert shown.cluster_health.total_peers == len(ids)
        assert shown.stale or view.leader


# Members that are added while there is no leader


def test_a_new_member_whose_url_no_leader_has_listed_is_found_and_can_lead() -> None:
    alone = member(A, "etcd-1")
    seen = Seen(members=(alone,))
    seen.poll(A)
    seen.listing((alone, member(B, "")), by=A)
    seen.poll("")
    assert seen.view.leader == ""
    # The new member has started, and its URL is in the list of a member that follows.
    seen.listing((alone, member(B, "etcd-2")), by="")
    assert LeaderElected(B, 6, "") in [*seen.poll(B, 6), *seen.poll(B, 6)]


def test_a_member_of_which_no_list_was_read_is_believed_once_its_own_list_was() -> None:
    alone = member(A, "etcd-1")
    seen = Seen(members=(alone,))
    seen.poll(A)
    seen.listing((alone,), by=A)
    seen.poll("")
    both = (alone, member(B, "etcd-2"))
    seen.listing(both, by="")
    seen.poll(B, 6)
    assert seen.view.leader == "", "by the list that was read last, its vote does not count"
    lister = seen.view.lister()
    assert lister is not None
    assert lister.id == B
    seen.listing(both, by=B)
    assert LeaderElected(B, 6, "") in seen.poll(B, 6)
    assert seen.view.members_as_of == 0, "only a leader's list is logged"


def test_the_list_of_a_member_that_only_follows_changes_no_votes() -> None:
    seen = led_by_b()
    seen.poll("")
    seen.listing((member(A, "etcd-1"),), by=A)
    assert [each.id for each in seen.view.members] == [A, B, C]


# A pause of heliosd itself


@pytest.mark.parametrize("seconds", [3.0, 40.0])
def test_a_pause_of_heliosd_makes_no_answer_old_and_no_member_unhealthy(seconds: float) -> None:
    seen = led_by_b()
    now = PauseClock(lambda: seen.now, seen.view.skip)
    seen.mono += seconds
    assert seen.view.look(now()) == ()
    assert seen.view.judged(now()) == {A: True, B: True, C: True}
    assert not build_status(seen.view, (), now()).stale


def test_what_ended_during_a_pause_is_reported_once_the_members_were_asked_again() -> None:
    seen = led_by_b()
    now = PauseClock(lambda: seen.now, seen.view.skip)
    seen.mono += 20.0
    assert seen.view.look(now()) == ()
    began = seen.mono
    while LeaderLost(B, 5) not in seen.poll("", who=(A, C)):
        assert seen.mono - began < 3


@pytest.mark.parametrize(("step", "pauses"), [(0.25, 0), (0.9, 0), (1.5, 8)])
def test_only_a_long_time_without_a_reading_is_a_pause(step: float, pauses: int) -> None:
    mono = 0.0
    found: list[float] = []
    now = PauseClock(lambda: Instant(0.0, mono), found.append)
    for _ in range(8):
        mono += step
        assert now().mono == mono
    assert len(found) == pauses


def test_a_node_whose_name_two_members_bear_is_an_observer() -> None:
    seen = led_by_b()
    seen.listing((member(A, "etcd-1"), member(B, "etcd-2"), member(C, "etcd-1", learner=True)))
    assert seen.view.own is None
    assert seen.view.namesakes == (A, C)
    assert build_status(seen.view, (), seen.now).node.state == "Observer"
