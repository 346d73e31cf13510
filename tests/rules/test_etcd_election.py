"""Who leads a cluster of etcd: stories of single elections, and laws over any."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from heliosd.cluster.etcd.election import (
    FRESH_SECONDS,
    HELD_SECONDS,
    RESTORED_SECONDS,
    SUSPECT_SECONDS,
    Election,
    LeaderElected,
    LeaderLost,
    MemberAnswer,
)

VOTERS = ("a", "b", "c")
Change = LeaderElected | LeaderLost | None


class Cluster:
    """What the members answer, written by hand. Each step takes `seconds` and lets the election look."""

    def __init__(self, voters: tuple[str, ...] = VOTERS) -> None:
        self.voters = voters
        self.election = Election()
        self.answers: dict[str, MemberAnswer] = {}
        self.now = 100.0

    def say(self, leader: str, term: int, *who: str, seconds: float = 0.25) -> Change:
        """These members answer that."""
        self.now += seconds
        for each in who or self.voters:
            self.answers[each] = MemberAnswer(leader, term, self.now, self.now)
        return self.look()

    def silent(self, *who: str, seconds: float = 0.25) -> Change:
        """Polls of these members fail, those of others succeed as before."""
        self.now += seconds
        for each, answer in self.answers.items():
            if each not in who:
                self.answers[each] = replace(answer, asked=self.now, at=self.now, unanswered=None)
            elif answer.unanswered is None:
                self.answers[each] = replace(answer, unanswered=self.now)
        return self.look()

    def look(self) -> Change:
        return self.election.decide(self.answers, self.voters, self.now)


def led_by_a(term: int = 5) -> Cluster:
    cluster = Cluster()
    assert cluster.say("a", term) == LeaderElected("a", term, "")
    return cluster


def test_a_leader_needs_a_quorum_that_names_it() -> None:
    cluster = Cluster()
    assert cluster.say("a", 5, "a") is None
    assert cluster.say("a", 5, "b") == LeaderElected("a", 5, "")
    assert cluster.say("a", 5, "c") is None


def test_a_member_that_others_name_but_that_does_not_say_so_itself_does_not_lead() -> None:
    cluster = Cluster()
    assert cluster.say("a", 5, "b", "c") is None
    assert cluster.say("", 5, "a") is None
    assert cluster.say("b", 5, "a") is None
    assert cluster.election.leader == ""


def test_a_leader_that_steps_down_is_lost_at_once() -> None:
    cluster = led_by_a()
    assert cluster.say("", 5, "a") == LeaderLost("a", 5)
    assert cluster.say("", 5) is None


def test_a_dead_leader_is_suspect_until_the_others_forget_it() -> None:
    cluster = led_by_a()
    assert cluster.silent("a") is None
    assert cluster.election.suspect
    for _ in range(40):  # a long election timeout
        assert cluster.silent("a") is None
    assert cluster.say("", 5, "b") == LeaderLost("a", 5)
    assert not cluster.election.suspect
    assert cluster.say("c", 6, "c") is None
    assert cluster.say("c", 6, "b") == LeaderElected("c", 6, "")


def test_a_change_of_leaders_between_two_polls_is_one_change() -> None:
    cluster = led_by_a()
    assert cluster.say("b", 6) == LeaderElected("b", 6, "a")


def test_a_leader_that_only_this_heliosd_cannot_reach_stays_leader() -> None:
    cluster = led_by_a()
    for _ in range(1000):
        assert cluster.silent("a") is None
    assert (cluster.election.leader, cluster.election.suspect) == ("a", True)
    assert cluster.say("a", 5) is None
    assert not cluster.election.suspect


def test_a_lost_quorum_is_reported_within_three_seconds() -> None:
    cluster = led_by_a()
    began = cluster.now
    while cluster.silent("a", "b", "c") is None:
        assert cluster.now - began < 3
    assert cluster.election.leader == ""


def test_a_leader_whose_followers_die_is_lost_within_three_seconds() -> None:
    cluster = led_by_a()
    began = cluster.now
    while cluster.silent("b", "c") is None:
        assert cluster.now - began < 3
    assert cluster.election.leader == ""
    assert cluster.now - began >= FRESH_SECONDS


def test_one_poll_that_fails_changes_nothing_even_where_each_vote_counts() -> None:
    cluster = Cluster(("a", "b"))
    assert cluster.say("a", 5) == LeaderElected("a", 5, "")
    assert cluster.silent("a") is None
    assert cluster.election.suspect
    assert cluster.say("a", 5) is None
    assert cluster.silent("b") is None
    assert not cluster.election.suspect


def test_a_single_member_that_dies_is_lost() -> None:
    cluster = Cluster(("a",))
    assert cluster.say("a", 2) == LeaderElected("a", 2, "")
    assert cluster.silent("a") is None
    assert cluster.silent("a", seconds=SUSPECT_SECONDS) == LeaderLost("a", 2)


def test_a_cut_off_leader_that_has_not_noticed_yet_does_not_lead_beside_its_successor() -> None:
    cluster = led_by_a(5)
    assert cluster.say("b", 6, "b", "c") == LeaderElected("b", 6, "a")
    for _ in range(100):
        assert cluster.say("a", 5, "a") is None
        assert cluster.say("b", 6, "b", "c") is None
    assert cluster.election.leader == "b"


def test_a_cut_off_candidate_whose_term_runs_away_does_not_depose_the_leader() -> None:
    cluster = led_by_a(5)
    for term in range(6, 60):
        assert cluster.say("", term, "c") is None
        assert cluster.say("a", 5, "a", "b") is None
    assert cluster.election.leader == "a"


def test_a_new_leader_that_still_shows_the_old_term_waits_for_its_own() -> None:
    cluster = led_by_a(5)
    assert cluster.say("", 5, "b", "c") == LeaderLost("a", 5)
    assert cluster.say("b", 5, "b", "c") is None
    assert cluster.say("b", 6, "b") == LeaderElected("b", 6, "")


def test_the_same_leader_in_a_new_term_is_not_mistaken_for_its_old_self() -> None:
    cluster = led_by_a(5)
    assert cluster.say("", 5) == LeaderLost("a", 5)
    assert cluster.say("a", 5) is None
    assert cluster.say("a", 6) == LeaderElected("a", 6, "")


def test_a_leader_that_was_only_out_of_reach_comes_back_in_its_term() -> None:
    cluster = led_by_a(5)
    while cluster.silent("a", "b", "c") is None:
        pass
    assert cluster.silent() is None
    assert cluster.silent(seconds=HELD_SECONDS) == LeaderElected("a", 5, "")


def test_a_follower_that_applies_late_still_counts() -> None:
    cluster = led_by_a(5)
    assert cluster.say("", 5, "b", "c") == LeaderLost("a", 5)
    assert cluster.say("b", 5, "c") is None
    assert cluster.say("b", 6, "b") == LeaderElected("b", 6, "")


def test_a_leader_that_applies_later_than_its_followers_is_believed_in_the_term_that_they_show() -> None:
    cluster = led_by_a(5)
    assert cluster.say("", 5, "a", "c") == LeaderLost("a", 5)
    cluster.say("b", 5, "b", seconds=0.0)
    began = cluster.now
    while (change := cluster.say("b", 6, "a", "c")) is None:
        cluster.say("b", 5, "b", seconds=0.0)
        assert cluster.now - began <= HELD_SECONDS + 0.25
    assert change == LeaderElected("b", 6, "")
    for _ in range(100):
        assert cluster.say("b", 6, "a", "c") is None
        assert cluster.say("b", 5, "b", seconds=0.0) is None
    assert cluster.say("b", 6, "b") is None


def test_such_a_leader_is_believed_at_once_when_it_shows_its_term() -> None:
    cluster = led_by_a(5)
    cluster.say("", 5, "a", "c")
    assert cluster.say("b", 5, "b") is None
    assert cluster.say("b", 6, "a", "c") is None
    assert cluster.say("b", 6, "b", seconds=0.05) == LeaderElected("b", 6, "")


def test_the_term_of_a_leader_between_that_followers_are_applying_is_not_taken_for_the_new_one() -> None:
    cluster = led_by_a(5)
    cluster.say("", 5, "a", "c")
    assert cluster.say("b", 5, "b") is None
    assert cluster.say("b", 6, "a", "c") is None
    # No answer comes for a while, which confirms nothing.
    cluster.now += 1.5 * HELD_SECONDS
    assert cluster.look() is None
    began = cluster.now
    while (change := cluster.say("b", 7, "a", "c", seconds=0.05)) is None:
        cluster.say("b", 5, "b", seconds=0.0)
        assert cluster.now - began < 2 * HELD_SECONDS
    assert change == LeaderElected("b", 7, "")


def test_followers_alone_never_show_that_terms_have_gone_back() -> None:
    cluster = led_by_a(6)
    cluster.say("", 6, "a", "c")
    for _ in range(int(4 * RESTORED_SECONDS)):
        assert cluster.say("b", 5, "b") is None
        assert cluster.say("b", 6, "a", "c") is None
    assert cluster.election.leader == ""


def test_an_old_leader_that_comes_back_and_still_names_itself_is_not_believed() -> None:
    cluster = led_by_a(5)
    cluster.silent("a", seconds=1.0)
    assert cluster.say("", 5, "b", "c") == LeaderLost("a", 5)
    assert cluster.say("a", 5, "a") is None
    assert cluster.say("b", 6, "c") is None
    assert cluster.say("b", 6, "b") == LeaderElected("b", 6, "")
    for _ in range(100):
        assert cluster.say("a", 5, "a") is None
        assert cluster.say("b", 6, "b", "c") is None


def test_learners_have_no_vote() -> None:
    cluster = Cluster()
    assert cluster.say("a", 5, "a", "learner", "another") is None
    assert cluster.say("a", 5, "b") == LeaderElected("a", 5, "")


def test_a_cluster_made_anew_from_a_backup_is_believed_after_a_while() -> None:
    cluster = led_by_a(50)
    cluster.say("", 1)
    began = cluster.now
    change: Change = None
    while change is None:
        change = cluster.say("b", 2)
    assert change == LeaderElected("b", 2, "", restored=True)
    assert RESTORED_SECONDS <= cluster.now - began < RESTORED_SECONDS + 1
    assert cluster.say("c", 3) == LeaderElected("c", 3, "b")


def test_a_leader_whose_term_went_back_is_kept_and_its_term_doubted_until_it_is_believed() -> None:
    cluster = led_by_a(6)
    assert not cluster.election.doubted
    began = cluster.now
    while (change := cluster.say("a", 3)) is None:
        assert cluster.election.doubted
        assert (cluster.election.leader, cluster.election.term) == ("a", 6)
    assert change == LeaderElected("a", 3, "a", restored=True)
    assert RESTORED_SECONDS <= cluster.now - began < RESTORED_SECONDS + 1
    assert not cluster.election.doubted


def test_a_doubt_ends_with_what_gave_rise_to_it() -> None:
    cluster = led_by_a(6)
    cluster.say("a", 3)
    assert cluster.election.doubted
    cluster.say("a", 6)
    assert not cluster.election.doubted


def test_a_member_without_voters_around_it_leads_nobody() -> None:
    assert Cluster(()).say("a", 5, "a") is None


answers = st.tuples(
    st.sampled_from(VOTERS),
    st.sampled_from(["", *VOTERS]),
    st.integers(1, 4),
    st.floats(0.0, 4.0),
    st.booleans(),
)


@given(st.lists(answers, max_size=60))
def test_whatever_is_answered_a_leader_has_said_so_itself_and_losses_follow_elections(
    poller: list[tuple[str, str, int, float, bool]],
) -> None:
    cluster = Cluster()
    claimed: set[str] = set()
    said: set[tuple[str, int]] = set()
    known: tuple[str, int] | None = None
    highest = 0
    for member, leader, term, seconds, answered in poller:
        if answered:
            claimed |= {member} if leader == member else set()
            said.add((leader, term))
            change = cluster.say(leader, term, member, seconds=seconds)
        else:
            change = cluster.silent(member, seconds=seconds)
        match change:
            case LeaderElected():
                assert change.leader in claimed
                assert (change.leader, change.term) in said
                assert change.before == (known[0] if known else "")
                assert change.term >= highest or change.restored
                known, highest = (change.leader, change.term), change.term
            case LeaderLost():
                assert (change.leader, change.term) == known
                known = None
        assert cluster.election.leader == (known[0] if known else "")
        if known:
            fresh = [each for each in cluster.answers.values() if cluster.now - each.at <= FRESH_SECONDS]
            assert len(fresh) >= 2


class TrueCluster:
    """Five members that elect leaders as Raft does and show it as etcd does: the leader at once, the term once they
    have applied its first entry."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.members = tuple("abcde")
        self.term = 1
        self.leads = dict.fromkeys(self.members, "")
        self.terms = dict.fromkeys(self.members, 1)
        self.shown = dict.fromkeys(self.members, 1)
        self.history: list[tuple[str, int]] = []
        self.slow: dict[str, int] = {}
        """A leader that applies nothing for a while -> the term that it shows meanwhile."""

    def elect(self) -> None:
        followers = set(self.rng.sample(self.members, self.rng.randint(3, 5)))
        leader = self.rng.choice(sorted(followers))
        self.term += self.rng.randint(1, 3)
        self.history.append((leader, self.term))
        self.slow = {leader: self.shown[leader]} if self.rng.random() < 0.3 else {}
        for each in followers:
            self.leads[each], self.terms[each] = leader, self.term

    def step(self) -> None:
        """Something happens between two polls."""
        if self.rng.random() < 0.02:
            self.slow.clear()
        match self.rng.randrange(8):
            case 0:
                self.elect()
            case 1:
                self.leads[self.rng.choice(self.members)] = ""
            case 2:
                # An isolated candidate: nobody sees its term before it has applied something of it.
                alone = self.rng.choice(self.members)
                self.leads[alone] = ""
                self.term += 1
            case _:
                pass
        for each in self.members:
            # The leader's own first entry is applied soon; a follower may take its time.
            if self.leads[each] == each or self.rng.random() < 0.5:
                self.shown[each] = self.terms[each]


@given(st.integers(0, 2**32))
def test_only_true_elections_are_reported_and_in_their_order(seed: int) -> None:
    rng = Random(seed)
    truth = TrueCluster(rng)
    view = Cluster(truth.members)
    reported = []
    for _ in range(150):
        before = dict(truth.shown)
        truth.step()
        for each in truth.members:
            polled = rng.random()
            # A poll may fall into the moment in which a new leader still shows the old term. If nobody was seen to
            # lead in that one, it cannot be distinguished from its own.
            term = truth.shown[each]
            older = before[each] if polled < 0.1 else truth.slow.get(each, term)
            if older <= view.election.term:
                term = min(term, older)
            if polled < 0.8:
                change = view.say(truth.leads[each], term, each, seconds=0.05)
            else:
                change = view.silent(each, seconds=0.05) if each in view.answers else None
            if isinstance(change, LeaderElected):
                reported.append((change.leader, change.term))
    terms = [term for _, term in reported]
    assert terms == sorted(terms)
    assert [each for each in reported[1:] if each not in truth.history] == []
