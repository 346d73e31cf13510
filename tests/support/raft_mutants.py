"""Faults that are planted into a copy of `heliosd/raft/`: the checker must find every one (`make prove-raft`)."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).parents[2]
FRESH = ("heliosd.raft", "tests.support.raft_")


@dataclass(frozen=True)
class Mutant:
    """In each module of `heliosd/raft/` named in `edits` a text, which stands there once, becomes another.

    `idea`: where the fault comes from. `seed`: the first one whose run finds it.
    """

    name: str
    idea: str
    edits: tuple[tuple[str, str, str], ...]
    seed: int = 0

    def sources(self) -> dict[str, str]:
        """The changed source of each module, by its full name."""
        changed: dict[str, str] = {}
        for module, old, new in self.edits:
            name = f"heliosd.raft.{module}"
            source = changed.get(name) or (REPOSITORY / (name.replace(".", "/") + ".py")).read_text()
            assert source.count(old) == 1, f"{self.name}: {old!r} stands {source.count(old)} times"
            changed[name] = source.replace(old, new)
        return changed


class _Planted(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, sources: dict[str, str]) -> None:
        self._sources = sources

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        return importlib.machinery.ModuleSpec(name, self) if name in self._sources else None

    def get_source(self, fullname: str) -> str:
        return self._sources[fullname]


@contextmanager
def planted(mutant: Mutant) -> Iterator[ModuleType]:
    """Inside, `tests.support.raft_report` as imported anew with this fault; outside, everything is as before."""
    finder = _Planted(mutant.sources())
    kept = {name: module for name, module in sys.modules.items() if name.startswith(FRESH)}
    for name in kept:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield importlib.import_module("tests.support.raft_report")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.startswith(FRESH)]:
            del sys.modules[name]
        sys.modules.update(kept)


PAPER = "Raft paper"
THESIS = "Raft thesis"
MUTANTS = (
    Mutant(
        "entries of an old term are committed by counting",
        f"{PAPER}, figure 8",
        (("leader", "return node.log.term(index) == node.term", "return True"),),
        seed=2,
    ),
    Mutant(
        "the vote is forgotten by a restart",
        f"{PAPER}, figure 2 (persistent state)",
        (("state", "self.vote = state.vote", 'self.vote = ""'),),
        seed=12,
    ),
    Mutant(
        "a vote asks for no up-to-date log",
        f"{PAPER}, 5.4.1",
        (("log", "return (last_term, last_index) >= (than_term, than_index)", "return True"),),
        seed=2,
    ),
    Mutant(
        "an answer leaves before its write is durable",
        f"{PAPER}, figure 2 (updated on stable storage before responding)",
        (
            (
                "state",
                "        if self._answers:\n            if self._writes:",
                "        if self._answers:\n            if False:",
            ),
        ),
    ),
    Mutant(
        "a leader counts itself twice",
        f"{PAPER}, 5.3",
        (
            (
                "leader",
                "quorum.reached_by_majority(_match_index(node, member) for member in node.membership)",
                "quorum.reached_by_majority([*(_match_index(node, member) for member in node.membership),"
                " node.durable_index])",
            ),
        ),
        seed=2,
    ),
    Mutant(
        "two membership changes are uncommitted at once",
        f"{THESIS}, 4.1",
        (
            (
                "membership",
                "if change_pending(node) or not committed_in_term(node):",
                "if not committed_in_term(node):",
            ),
        ),
        seed=22,
    ),
    Mutant(
        "a membership changes before the term has a commit",
        "Ongaro, raft-dev 2015: bug in single-server membership changes",
        (
            (
                "membership",
                "if change_pending(node) or not committed_in_term(node):",
                "if change_pending(node):",
            ),
        ),
        seed=1,
    ),
    Mutant(
        "a truncated membership stays in force",
        f"{THESIS}, 4.1",
        (("log", "while len(self._memberships) > 1 and self._memberships[-1][0] >= index:", "while False:"),),
        seed=4,
    ),
    Mutant(
        "a pre-vote enters the next term",
        f"{THESIS}, 9.6",
        (
            (
                "election",
                "    node.prevoting = True\n",
                '    node.prevoting = True\n    node.enter_term(node.term + 1, vote="")\n',
            ),
        ),
    ),
    Mutant(
        "a stale append truncates entries that match",
        "Students' Guide to Raft: the importance of details",
        (
            ("log", "self.term(entry.index) != entry.term", "True"),
            ("state", "if first <= self.commit:", "if False:"),
        ),
        seed=11,
    ),
    Mutant(
        "an entry beyond the commit index is applied",
        f"{PAPER}, figure 2 (lastApplied)",
        (
            (
                "state",
                "self.log.slice(self._handed_out + 1, self.commit)",
                "self.log.slice(self._handed_out + 1, self.commit + 1)",
            ),
            (
                "state",
                "            self._handed_out = self.commit\n",
                "            self._handed_out = committed[-1].index\n",
            ),
        ),
    ),
    Mutant(
        "a snapshot has the membership of the one before",
        f"{PAPER}, 7",
        (
            (
                "state",
                "members = self.log.members_at(index)",
                "members = self.log.members_at(self.log.snapshot.index)",
            ),
        ),
        seed=3,
    ),
    Mutant(
        "a leader answers reads without asking its followers",
        f"{THESIS}, 6.4",
        (("contact", "node.reads[0][0] < contact", "contact >= 0"),),
        seed=74,
    ),
    Mutant(
        "half of an even number is a majority",
        f"{PAPER}, 5.1",
        (("quorum", "return size // 2 + 1", "return (size + 1) // 2"),),
        seed=2,
    ),
    # Beyond that list.
    Mutant(
        "a snapshot does not reach the state machine",
        f"{PAPER}, figure 13 (step 8)",
        (("simulation.cluster", "                member.machine.restore(ready.installed.data)\n", ""),),
        seed=4,
    ),
    Mutant(
        "a candidate votes for another one too",
        "microsoft/CCF issue 5891, camunda/camunda issue 5356: a former candidate votes twice",
        (
            (
                "election",
                "node.enter_term(node.term + 1, vote=node.id)",
                'node.enter_term(node.term + 1, vote="")',
            ),
            (
                "election",
                '        and node.role == "Follower"\n        and may_vote(node, candidate, request.term)',
                '        and node.role != "Leader"\n        and may_vote(node, candidate, request.term)',
            ),
        ),
    ),
    Mutant(
        "a vote of an earlier term counts",
        "andreev-io/little-raft issue 44: a delayed vote counts",
        (
            (
                "election",
                'elif node.role == "Candidate" and answer.term == node.term and answer.granted:',
                'elif node.role == "Candidate" and answer.granted:',
            ),
        ),
        seed=400,
    ),
    Mutant(
        "votes of members that are no voters count",
        "ktoso/akka-raft issue 45: whose vote it is does not matter",
        (
            (
                "quorum",
                "return sum(voter in granted for voter in voters) >= majority(len(voters))",
                "return len(granted) >= majority(len(voters))",
            ),
        ),
        seed=58,
    ),
    Mutant(
        "a member that hears a leader votes for another",
        f"{THESIS}, 4.2.3",
        (("election", "(request.transfer or not lease_active(node, now))", "True"),),
        seed=14,
    ),
    Mutant(
        "a leader that hears no majority stays",
        f"{THESIS}, 6.2",
        (
            (
                "contact",
                "    contact = contact_time(node)\n    return None if contact == NEVER else",
                "    contact = NEVER\n    return None if contact == NEVER else",
            ),
        ),
        seed=1,
    ),
    Mutant(
        "proposals are taken while leadership is transferred",
        f"{THESIS}, 3.10",
        (
            (
                "node",
                '        if node.transfer_target:\n            raise ChangeRefused("transferring")\n',
                "",
            ),
        ),
        seed=3,
    ),
    Mutant(
        "an old snapshot is installed",
        "eBay/NuRaft pull request 407: a snapshot behind the commit index is installed",
        (
            ("follower", "if install.snapshot.index > node.commit:", "if install.snapshot.index:"),
            ("state", "if snapshot.index <= self.commit:", "if False:"),
            ("log", "if not self.first_index <= snapshot.index <= self.last_index:", "if False:"),
            ("leader", "if now >= progress.snapshot_sent_at + node.timing.election:", "if True:"),
        ),
        seed=32,
    ),
    Mutant(
        "a commit index follows every message",
        f"{PAPER}, figure 2 (commitIndex increases monotonically)",
        (("state", "self.commit = max(self.commit, index)", "self.commit = index"),),
    ),
    Mutant(
        "a message of an old term is obeyed",
        f"{PAPER}, 5.1",
        (
            ("follower", "if append.term < node.term:", "if False:"),
            ("state", "if term < self.term:", "if False:"),
            ("state", "if term > self.term:", "if term != self.term:"),
        ),
    ),
    Mutant(
        "entries match by their index alone",
        "Students' Guide to Raft: the consistency check",
        (
            (
                "log",
                "self.snapshot.index <= index <= self.last_index and self.term(index) == term",
                "self.snapshot.index <= index <= self.last_index",
            ),
        ),
        seed=4,
    ),
    Mutant(
        "a leader writes over its own uncommitted entry",
        f"{PAPER}, 5.3 (a leader creates one entry at an index in a term)",
        (
            (
                "leader",
                "    first = node.log.last_index + 1\n    entries",
                "    own = node.log.last_term == node.term and node.log.last_index > node.commit\n"
                "    first = node.log.last_index + (not own)\n    entries",
            ),
            ("state", '            if self.role == "Leader":\n', "            if False:\n"),
        ),
    ),
    Mutant(
        "a leader drops its last entry when a follower rejects it",
        f"{PAPER}, 5.3 (leader append-only)",
        (
            (
                "leader",
                "        progress.search_from(_next_guess(node, answer))\n",
                "        progress.search_from(_next_guess(node, answer))\n"
                "        node.log.truncate(max(node.commit + 1, node.log.last_index))\n",
            ),
        ),
    ),
    Mutant(
        "a voter takes the candidate for the leader",
        f"{PAPER}, 5.2 (only AppendEntries shows who leads)",
        (
            (
                "election",
                "        node.prevoting = False\n        node.restart_election_timer(now)\n    node",
                "        node.prevoting = False\n        node.leader = candidate\n"
                "        node.restart_election_timer(now)\n    node",
            ),
        ),
        seed=9,
    ),
    Mutant(
        "a no-op is applied and not published",
        "members that count what is published lose their place",
        (
            (
                "simulation.cluster",
                "                self._observations.append(observations.EntryApplied(name, entry, result))\n",
                '                if entry.kind != "noop":\n'
                "                    self._observations.append(observations.EntryApplied(name, entry, result))\n",
            ),
        ),
    ),
    Mutant(
        "an entry counts on the leader's disk before it is there",
        f"{THESIS}, 10.2.1",
        (
            (
                "leader",
                "return node.durable_index if member == node.id",
                "return node.log.last_index if member == node.id",
            ),
        ),
        seed=2,
    ),
    Mutant(
        "two members are removed at once",
        f"{THESIS}, 4.1",
        (
            ("membership", "    if not differs_by_one(node.log.members, members):\n", "    if False:\n"),
            (
                "membership",
                "for other, address in addresses.items() if other != member}",
                "for other, address in addresses.items() if other not in {member, max(addresses)}}",
            ),
        ),
        seed=3,
    ),
    Mutant(
        "a learner campaigns",
        f"{THESIS}, 4.2.1",
        (
            (
                "state",
                "        if self.id in self.log.membership:\n            return True\n",
                "        if self.id in self.log.members.all:\n            return True\n",
            ),
        ),
        seed=2,
    ),
    Mutant(
        "a learner is promoted before it has caught up",
        f"{THESIS}, 4.2.1",
        (
            (
                "membership",
                "        progress.caught_up\n        and progress.match >= node.commit\n        and",
                "       ",
            ),
        ),
        seed=22,
    ),
    Mutant(
        "a learner's disk counts for a commit",
        f"{THESIS}, 4.2.1",
        (
            (
                "leader",
                "for member in node.membership)\n    if",
                "for member in node.log.members.all)\n    if",
            ),
        ),
        seed=2,
    ),
    Mutant(
        "a member is wiped before its removal is committed",
        "a fault that heliosd had",
        (
            (
                "simulation.member_set",
                "needed = {self.root, *newest.log.members_at(newest.commit).all}",
                "needed = {self.root, *newest.log.members.all}",
            ),
        ),
        seed=4,
    ),
    Mutant(
        "a member whose removal only it has does not campaign",
        f"{THESIS}, 4.2.2; a fault that heliosd had",
        (
            (
                "state",
                "return uncommitted and self.id in self.log.previous_members.voters",
                "return False",
            ),
        ),
        seed=121,
    ),
    Mutant(
        "a lost snapshot is not sent again",
        "etcd-io/etcd issue 10225: a follower that crashes with a snapshot under way is stuck",
        (("leader", "if now >= progress.snapshot_sent_at + node.timing.election:", "if False:"),),
        seed=109,
    ),
    Mutant(
        "a repeated chunk of a snapshot is taken twice",
        f"{PAPER}, figure 13 (step 3: at the given offset)",
        (("snapshot_chunks", "if install.offset != self.received:", "if False:"),),
        seed=204,
    ),
    Mutant(
        "a lost probe is not sent again",
        "etcd-io/raft: what testdata/heartbeat_resp_recovers_from_probing.txt guards",
        (
            (
                "leader",
                "    else:\n        _send_append(node, now, member, progress)\n\n\ndef",
                '    elif progress.mode != "probe" or not progress.waiting:\n'
                "        _send_append(node, now, member, progress)\n\n\ndef",
            ),
        ),
        seed=21,
    ),
    Mutant(
        "a refused write leaves its entries applied",
        "databases that go on after a failed fsync",
        (
            (
                "simulation.member_set",
                "if keep_machine and old.disk.holds(applied, old.raft.log.term(applied)):",
                "if keep_machine:",
            ),
        ),
        seed=17,
    ),
)
