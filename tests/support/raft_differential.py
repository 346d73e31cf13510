"""The same schedule on heliosd's members and on those of etcd-io/raft: equal at every quiet point.

A seed gives a schedule, drawn while ours runs. `benchmarks/peers/go_raft` runs it on the peer. A step is done when
all is delivered and stored. Then each member has the same role, term, vote, commit index and entries in both.

Left out is where the two differ on purpose (docs/raft.md): an election begins only after a silence in which leaders
step down and leases end, a membership changes only where majorities of both memberships are connected, no leader is
removed.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from heliosd.raft.log import Members
from heliosd.raft.membership import with_learner, without_member
from heliosd.raft.messages import Entry, Envelope, PreVote, PreVoteAnswer, Snapshot
from heliosd.raft.node import RaftNode
from heliosd.raft.quorum import has_majority
from heliosd.raft.simulation.disk import Disk
from heliosd.raft.state import Ready, Timing
from heliosd.raft.storage import MemberState

PEER = Path(__file__).parents[2] / "benchmarks" / "peers" / "go_raft"
TIMING = Timing(heartbeat=1, election=100_000)
STEPS = 30
"""Of a schedule: so few that the peer's leaders do not count a whole election timeout."""
WEIGHTS = {
    "propose": 16,
    "elect": 5,
    "cut": 4,
    "restart": 4,
    "crash": 2,
    "compact": 2,
    "transfer": 2,
    "half": 1,
    "add": 2,
    "remove": 1,
}


def build(folder: Path) -> Path | None:
    """The peer's program; None where there is no Go to build it with."""
    go = shutil.which("go")
    if go is None:
        return None
    program = folder / "go_raft"
    subprocess.run([go, "build", "-o", str(program), "."], cwd=PEER, check=True, timeout=300)
    return program


@dataclass(frozen=True)
class Row:
    """One member at a quiet point."""

    name: str
    role: str
    term: int
    vote: str
    commit: int | None
    """None: it is out of reach of a leader with a majority. The peer stores commit indices, heliosd does not."""
    last: int
    entries: dict[int, tuple[int, str]]
    """Of each index after the snapshot: the term and the command."""

    def same(self, other: Row) -> bool:
        """Where logs are compacted is left to each."""
        both = self.entries.keys() & other.entries.keys()
        mine = {index: self.entries[index] for index in both}
        theirs = {index: other.entries[index] for index in both}
        facts = (self.name, self.role, self.term, self.vote, self.last)
        commits = self.commit is None or self.commit == other.commit
        return (
            facts == (other.name, other.role, other.term, other.vote, other.last)
            and commits
            and mine == theirs
        )


def rows(line: str) -> list[Row]:
    """What the peer's program prints of a step."""
    found = []
    for part in filter(None, line.split(";")):
        name, role, term, vote, commit, last, log = part.split(" ")
        entries = {}
        for entry in filter(None, log.split(",")):
            index, of, command = entry.split("/")
            entries[int(index)] = (int(of), command)
        found.append(Row(name, role, int(term), vote.replace("0", ""), int(commit), int(last), entries))
    return found


@dataclass
class Member:
    raft: RaftNode
    disk: Disk
    alive: bool = True


@dataclass
class Schedule:
    """A schedule of a seed, and our members' states after each of its steps."""

    seed: int
    steps: list[str] = field(default_factory=list)
    states: list[list[Row] | None] = field(default_factory=list)
    """None: no quiet point, as the leader's heartbeats or a lost snapshot come next."""
    _members: dict[str, Member] = field(default_factory=dict)
    _cut: set[str] = field(default_factory=set)
    _flight: list[Envelope] = field(default_factory=list)
    _now: int = 0

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)
        names = [str(number) for number in range(1, self._rng.choice([1, 2, 3, 3, 4, 5, 5]) + 1)]
        start = MemberState(snapshot=Snapshot(0, 0, dict.fromkeys(names, "")))
        for name in names:
            self._start(name, start)
        self._step("start", *names)
        kinds = self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS)
        for kind in kinds:
            getattr(self, f"_choose_{kind}")()
            if not self._snapshots_arrive():
                break

    # What the next step is

    def _choose_propose(self) -> None:
        if leader := self._leader():
            self._step("propose", leader, f"{leader}.{len(self.steps)}")

    def _choose_elect(self) -> None:
        self._step("elect", self._any_voter())

    def _choose_half(self) -> None:
        name = self._any_voter()
        if len(self._members[name].raft.log.membership) > 1:
            self._step("half", name)

    def _choose_cut(self) -> None:
        names = sorted(self._members)
        self._step("cut", *self._rng.sample(names, self._rng.randrange(len(names))))

    def _choose_crash(self) -> None:
        up = self._up()
        if len(up) > 1:
            self._step("crash", self._rng.choice(up))

    def _choose_restart(self) -> None:
        down = sorted(self._members.keys() - set(self._up()))
        if down:
            self._step("restart", self._rng.choice(down))

    def _choose_compact(self) -> None:
        name = self._rng.choice(self._up())
        raft = self._members[name].raft
        if raft.commit > raft.log.snapshot.index and self._commit_is_known(name):
            self._step("compact", name)

    def _choose_transfer(self) -> None:
        leader = self._leading_majority()
        if leader:
            voters = self._members[leader].raft.log.membership
            near = [name for name in self._near(leader) if name in voters and name != leader]
            if near:
                self._step("transfer", leader, self._rng.choice(near))

    def _choose_add(self) -> None:
        leader = self._leading_majority()
        if leader and leader not in self._cut and len(self._members) < 7:
            self._step("add", leader, str(max(map(int, self._members)) + 1))

    def _choose_remove(self) -> None:
        leader = self._leading_majority()
        if leader:
            members = self._members[leader].raft.log.members
            for name in self._near(leader):
                after = members.voters.keys() - {name}
                if name != leader and has_majority(set(self._near(leader)), list(after)):
                    self._step("remove", leader, name)
                    return

    def _snapshots_arrive(self) -> bool:
        """A lost snapshot is sent again after an election timeout here, at once there: connect all for so long."""
        if not self._waiting_for_snapshots():
            return True
        for name in sorted(self._members.keys() - set(self._up())):
            self._step("restart", name)
        self._step("cut")
        leader = self._leading_majority()
        if not leader:
            return not self._waiting_for_snapshots()
        for _ in range(2):
            self._now += TIMING.election // 2
            self._step("beat", leader)
        return not self._waiting_for_snapshots()

    def _waiting_for_snapshots(self) -> bool:
        return any(
            progress.mode == "snapshot"
            for name in self._up()
            for progress in self._members[name].raft.progress.values()
        )

    # Who

    def _up(self) -> list[str]:
        return sorted(name for name, member in self._members.items() if member.alive)

    def _near(self, name: str) -> list[str]:
        """The members that this one reaches, and itself."""
        return [other for other in self._up() if (other in self._cut) == (name in self._cut)]

    def _leaders(self) -> list[str]:
        return [name for name in self._up() if self._members[name].raft.role == "Leader"]

    def _leader(self) -> str:
        leaders = self._leaders()
        return self._rng.choice(leaders) if leaders else ""

    def _leading_majority(self) -> str:
        for name in self._leaders():
            if has_majority(set(self._near(name)), self._members[name].raft.log.membership):
                return name
        return ""

    def _any_voter(self) -> str:
        voters = [name for name in self._up() if name in self._members[name].raft.log.membership]
        return self._rng.choice(voters or self._up())

    def _commit_is_known(self, name: str) -> bool:
        leader = self._leading_majority()
        return bool(leader) and name in self._near(leader)

    # Doing it

    def _step(self, kind: str, *words: str) -> None:
        self._do(kind, *words)
        for _ in range(2):
            if leader := self._leading_majority():
                self._do("beat", leader)
        if not self._waiting_for_snapshots():
            self.states[-1] = [self._row(name) for name in self._up()]

    def _do(self, kind: str, *words: str) -> None:
        self.steps.append(" ".join((kind, *words)))
        self.states.append(None)
        getattr(self, f"_do_{kind}", lambda *_: None)(*words)
        self._settle()

    def _row(self, name: str) -> Row:
        raft = self._members[name].raft
        log = raft.log
        entries = {
            entry.index: (entry.term, _command(entry)) for entry in log.slice(log.first_index, log.last_index)
        }
        commit = raft.commit if self._commit_is_known(name) else None
        return Row(name, raft.role, raft.term, raft.vote, commit, log.last_index, entries)

    def _start(self, name: str, state: MemberState) -> None:
        raft = RaftNode(name, state, timing=TIMING, rng=Random(1), now=self._now)
        self._members[name] = Member(raft, Disk(state))

    def _handle(self, name: str, ready: Ready) -> None:
        """Its disk writes at once."""
        member = self._members[name]
        self._flight += ready.sends
        if ready.write is not None:
            for change in ready.write.changes:
                member.disk.write(change)
            self._handle(name, member.raft.persisted(self._now, ready.write.number))

    def _settle(self, *kinds: type) -> None:
        while self._flight:
            flight, self._flight = self._flight, []
            for envelope in flight:
                to = self._members.get(envelope.recipient)
                near = (envelope.recipient in self._cut) == (envelope.sender in self._cut)
                if to is not None and to.alive and near and (not kinds or type(envelope.message) in kinds):
                    self._handle(envelope.recipient, to.raft.step(self._now, envelope))

    def _silence(self) -> None:
        self._now += 3 * TIMING.election
        for name in self._leaders():
            self._handle(name, self._members[name].raft.tick(self._now))
        self._now += 3 * TIMING.election
        self._flight.clear()

    def _do_elect(self, name: str) -> None:
        self._silence()
        if self._members[name].raft.role != "Leader":
            self._handle(name, self._members[name].raft.tick(self._now))

    def _do_half(self, name: str) -> None:
        self._do_elect(name)
        self._settle(PreVote, PreVoteAnswer)

    def _do_cut(self, *names: str) -> None:
        self._cut = set(names)

    def _do_beat(self, name: str) -> None:
        self._now += TIMING.heartbeat
        self._handle(name, self._members[name].raft.tick(self._now))

    def _do_propose(self, name: str, command: str) -> None:
        self._handle(name, self._members[name].raft.propose(self._now, [command.encode()]))

    def _do_transfer(self, name: str, target: str) -> None:
        self._handle(name, self._members[name].raft.transfer(self._now, target))

    def _do_crash(self, name: str) -> None:
        self._members[name].alive = False

    def _do_restart(self, name: str) -> None:
        self._start(name, self._members[name].disk.read())

    def _do_compact(self, name: str) -> None:
        _, ready = self._members[name].raft.compact(self._now, b"")
        self._handle(name, ready)

    def _do_add(self, leader: str, name: str) -> None:
        self._start(name, MemberState())
        self._change(leader, with_learner(self._members[leader].raft.log.members, name, name))

    def _do_remove(self, leader: str, name: str) -> None:
        self._change(leader, without_member(self._members[leader].raft.log.members, name))
        self._settle()
        del self._members[name]

    def _change(self, leader: str, members: Members) -> None:
        self._handle(leader, self._members[leader].raft.propose_membership(self._now, members))


def _command(entry: Entry) -> str:
    return "members" if entry.kind == "membership" else entry.data.decode()


def difference(schedule: Schedule, lines: list[str]) -> str:
    """The first step after which the peer's members are not as ours; "" if there is none."""
    for place, (ours, line) in enumerate(zip(schedule.states, lines, strict=True)):
        theirs = rows(line)
        if ours is not None and not (len(ours) == len(theirs) and all(map(Row.same, ours, theirs))):
            steps = "\n  ".join(schedule.steps[: place + 1])
            return f"seed {schedule.seed}:\n  {steps}\nours:   {ours}\ntheirs: {theirs}"
    return ""


def compare(program: Path, seeds: range) -> tuple[int, list[str]]:
    """Runs these seeds on both. Returns how many quiet points were compared, and the differences."""
    schedules = [Schedule(seed) for seed in seeds]
    steps = "".join(f"{step}\n" for schedule in schedules for step in schedule.steps)
    done = subprocess.run(
        [str(program)], input=steps, check=True, capture_output=True, text=True, timeout=3600
    )
    lines = iter(done.stdout.splitlines())
    found = [difference(schedule, [next(lines) for _ in schedule.steps]) for schedule in schedules]
    points = sum(state is not None for schedule in schedules for state in schedule.states)
    return points, [text for text in found if text]
