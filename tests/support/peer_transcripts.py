"""Runs the test data of etcd-io/raft (Apache-2.0) against `heliosd/raft/`: facts are compared, not words.

The data comes with the Go module and is never copied: `data()` downloads the module.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from heliosd.raft.log import Members
from heliosd.raft.membership import ChangeRefused
from heliosd.raft.messages import Envelope, PreVote, PreVoteAnswer, Snapshot
from heliosd.raft.node import RaftNode
from heliosd.raft.state import Ready, Timing
from heliosd.raft.storage import MemberState

MODULE = "go.etcd.io/raft/v3@v3.6.0"
TIMING = Timing(heartbeat=1, election=1000)


def data(folder: Path) -> Path | None:
    """The directory of the peer's module; None where there is no Go to download it."""
    go = shutil.which("go")
    if go is None:
        return None
    subprocess.run([go, "mod", "init", "peer"], cwd=folder, check=True, capture_output=True)
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE], cwd=folder, check=True, capture_output=True, timeout=300
    )
    return Path(json.loads(done.stdout)["Dir"])


@dataclass(frozen=True)
class Step:
    """One command of a test file, and what the peer answers."""

    command: str
    lines: tuple[str, ...]
    expected: tuple[str, ...]

    def argument(self, name: str) -> list[str]:
        """The values of `name=(a,b)` or `name=a`."""
        found = re.search(rf"\b{name}=(?:\(([^)]*)\)|(\S+))", self.command)
        return re.split(r"[ ,]+", (found[1] or found[2]).strip()) if found else []


def steps(path: Path) -> Iterator[Step]:
    """The steps of a file in the format of Go's datadriven package."""
    command: list[str] = []
    answer: list[str] | None = None
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("#") and answer is None:
            continue
        if line == "----" and answer is None:
            answer = []
        elif line or answer is None:
            if line:
                (command if answer is None else answer).append(line)
        else:
            yield Step(command[0], tuple(command[1:]), tuple(answer))
            command, answer = [], None


class Differs(AssertionError):
    """A fact of ours is not the peer's."""


class NotComparable(Exception):
    """The file asks for something that heliosd does otherwise on purpose; the text says what."""


@dataclass
class TranscriptNode:
    raft: RaftNode
    outbox: list[Envelope] = field(default_factory=list)
    unwritten: int = 0


class Transcript:
    """A run of one file. The peer's members have no clock: ours advances only where the file says so."""

    def __init__(self) -> None:
        self.nodes: dict[str, TranscriptNode] = {}
        self.now = 0
        self.network: list[Envelope] = []
        self.facts = 0
        """Compared so far."""
        self._prevote = self._own_ticks = self._leases = self._silent = False
        self._clocks: dict[str, int] = {}
        self._members = Members({}, {})
        self._known: dict[str, dict[str, object]] = {}

    def run(self, step: Step) -> None:
        name = step.command.split()[0].replace("-", "_")
        do = getattr(self, f"_{name}", None)
        if do is None:
            raise NotComparable(f"`{step.command.split()[0]}` has no counterpart")
        do(step)
        if self._silent or step.argument("log-level"):
            self._known.clear()  # the peer says nothing of what changes in this step
        self._learn(step)
        if self._quiet:
            self._compare()

    @property
    def _quiet(self) -> bool:
        """Whether nothing is under way."""
        return not self.network and not any(node.outbox or node.unwritten for node in self.nodes.values())

    def _fact(self, what: str, ours: object, theirs: object) -> None:
        if ours != theirs:
            raise Differs(f"{what}: {ours} here, {theirs} there")
        self.facts += 1

    # Commands

    def _log_level(self, step: Step) -> None:
        self._silent = step.command.split()[1] == "none"

    def _add_nodes(self, step: Step) -> None:
        self._own_ticks = bool(step.argument("checkquorum"))
        self._leases = bool(step.argument("read-only"))
        if step.argument("async-storage-writes"):
            raise NotComparable("an entry is applied in the step that commits it here")
        self._prevote = bool(step.argument("prevote"))
        members = Members(
            {name: name for name in step.argument("voters")},
            {name: name for name in step.argument("learners")},
        )
        index = int((step.argument("index") or ["0"])[0])
        snapshot = Snapshot(index, 1 if index else 0, members.voters, b"", members.learners)
        for _ in range(int(step.command.split()[1])):
            name = str(len(self.nodes) + 1)
            raft = RaftNode(name, MemberState(snapshot=snapshot), timing=TIMING, rng=Random(1), now=self.now)
            self.nodes[name] = TranscriptNode(raft)
            if self._own_ticks:  # a start is no lease there
                self._clocks[name] = self.now + 10 * TIMING.election

    def _campaign(self, step: Step) -> None:
        """The election timeout of this member has passed, and the others hear no leader any more."""
        name = step.command.split()[1]
        if self._own_ticks:
            self._clocks[name] += 10 * TIMING.election
        else:
            self.now += 10 * TIMING.election
        for other, node in self.nodes.items():
            if other == name or (node.raft.role == "Leader" and not (self._prevote or self._own_ticks)):
                self._took(other, node.raft.tick(self._time(other)))
        if self._prevote:
            return
        node = self.nodes[name]
        asked = [envelope for envelope in node.outbox if isinstance(envelope.message, PreVote)]
        node.outbox = [envelope for envelope in node.outbox if not isinstance(envelope.message, PreVote)]
        for envelope in asked:  # the peer runs this file without pre-votes
            answer = PreVoteAnswer(envelope.message.term, True, envelope.message.sent)  # type: ignore[union-attr]
            self._step(Envelope(envelope.recipient, name, answer))

    def _time(self, name: str) -> int:
        """What this member's clock shows: in a file with CheckQuorum each has its own."""
        return self._clocks.get(name, self.now)

    def _tick_election(self, step: Step) -> None:
        """An election timeout passes at this member alone. One that follows does not campaign by that."""
        name = step.command.split()[1]
        raft = self.nodes[name].raft
        for _ in range(10):
            self._clocks[name] = self._time(name) + TIMING.election // 10
            if raft.role == "Leader":
                self._took(name, raft.tick(self._time(name)))

    def _forget_leader(self, step: Step) -> None:
        """The member may vote for another at once, as if an election timeout had passed. Without CheckQuorum each
        campaign has that effect here."""
        name = step.command.split()[1]
        if name in self._clocks and not self._leases and self.nodes[name].raft.role == "Follower":
            self._clocks[name] += TIMING.election

    def _set_randomized_election_timeout(self, step: Step) -> None:
        """Timers fire here where the file says so."""

    def _took(self, name: str, ready: Ready) -> None:
        node = self.nodes[name]
        node.outbox += ready.sends
        if ready.write is not None:
            node.unwritten = ready.write.number

    def _step(self, envelope: Envelope) -> None:
        node = self.nodes.get(envelope.recipient)
        if node is not None:
            self._took(envelope.recipient, node.raft.step(self._time(envelope.recipient), envelope))

    def _process_ready(self, step: Step) -> None:
        for name in step.command.split()[1:]:
            self._ready(name)

    def _ready(self, name: str) -> bool:
        """Write, and send; whether there was anything."""
        node = self.nodes[name]
        number, node.unwritten = node.unwritten, 0
        if number:
            self._took(name, node.raft.persisted(self._time(name), number))
        sent, node.outbox = node.outbox, []
        self.network += sent
        return bool(number or sent)

    def _deliver_msgs(self, step: Step) -> None:
        dropped = step.argument("drop")
        if step.argument("type"):
            raise NotComparable("it delivers messages by their type")
        self.network = [envelope for envelope in self.network if envelope.recipient not in dropped]
        self._deliver([name for name in step.command.split()[1:] if "=" not in name])

    def _deliver(self, names: list[str]) -> bool:
        arrived = [envelope for envelope in self.network if envelope.recipient in names]
        self.network = [envelope for envelope in self.network if envelope.recipient not in names]
        for name in names:
            for envelope in arrived:
                if envelope.recipient == name:
                    self._step(envelope)
        return bool(arrived)

    def _stabilize(self, step: Step) -> None:
        names = [name for name in step.command.split()[1:] if "=" not in name] or list(self.nodes)
        busy = True
        while busy:
            busy = sum(self._ready(name) for name in names) > 0
            busy = self._deliver(names) or busy

    def _propose(self, step: Step) -> None:
        _, name, content = step.command.split(maxsplit=2)
        try:
            self._took(name, self.nodes[name].raft.propose(self._time(name), [content.strip('"').encode()]))
        except ChangeRefused as refused:
            raise NotComparable("only a leader takes proposals here") from refused

    def _propose_conf_change(self, step: Step) -> None:
        raft = self.nodes[step.command.split()[1]].raft
        if (step.argument("transition") or ["auto"]) != ["auto"]:
            raise NotComparable("no joint consensus here")
        voters, learners = dict(raft.log.membership), dict(raft.log.members.learners)
        for change in " ".join(step.lines).split():
            voters.pop(change[1:], None)
            learners.pop(change[1:], None)
            if change[0] in "vl":
                (voters if change[0] == "v" else learners)[change[1:]] = change[1:]
        if (voters, learners) == (raft.log.membership, raft.log.members.learners):
            raise NotComparable("a leader promotes a learner by itself here")
        try:
            self._took(raft.id, raft.propose_membership(self._time(raft.id), Members(voters, learners)))
        except ChangeRefused as refused:
            raise NotComparable("no membership change before the term has a commit") from refused
        except ValueError as refused:
            raise NotComparable("no joint consensus here: a membership changes by one member") from refused

    def _report_unreachable(self, step: Step) -> None:
        """A hint of the peer's transport, which heliosd does without."""

    def _tick_heartbeat(self, step: Step) -> None:
        name = step.command.split()[1]
        self.now += TIMING.heartbeat
        if name in self._clocks:
            self._clocks[name] += TIMING.heartbeat
        self._took(name, self.nodes[name].raft.tick(self._time(name)))

    def _compact(self, step: Step) -> None:
        """Ours compacts all that is committed."""
        name = step.command.split()[1]
        _, ready = self.nodes[name].raft.compact(self._time(name), b"")
        self._took(name, ready)

    def _transfer_leadership(self, step: Step) -> None:
        (origin,), (target,) = step.argument("from"), step.argument("to")
        self._took(origin, self.nodes[origin].raft.transfer(self._time(origin), target))

    # Facts

    def _raft_log(self, step: Step) -> None:
        log = self.nodes[step.command.split()[1]].raft.log
        theirs = [
            tuple(map(int, line.split()[0].split("/")))
            for line in step.expected
            if re.match(r"\d+/\d+ ", line)
        ]
        ours = [(entry.term, entry.index) for entry in log.slice(log.first_index, log.last_index)]
        if theirs:
            self._fact(step.command, ours, theirs[-len(ours) :] if len(ours) < len(theirs) else theirs)

    def _raft_state(self, step: Step) -> None:
        for line in step.expected:
            found = re.match(r"(\d+): State(\w+) \(([\w-]+)\) Term:(\d+) Lead:(\d+)", line)
            assert found is not None, line
            raft = self.nodes[found[1]].raft
            self._fact(f"{step.command}, {found[1]}", (raft.role, raft.term), (found[2], int(found[4])))

    def _status(self, step: Step) -> None:
        raft = self.nodes[step.command.split()[1]].raft
        for line in step.expected:
            found = re.match(r"(\d+): State(\w+) match=(\d+)", line)
            assert found is not None, line
            if found[1] in raft.progress and self._quiet:
                self._fact(
                    f"{step.command}, match of {found[1]}", raft.progress[found[1]].match, int(found[3])
                )

    def _learn(self, step: Step) -> None:
        """What the peer says of its members in this step, as they handle a Ready."""
        name = step.command.split()[1] if step.command.startswith("process-ready") else ""
        for line in step.expected:
            if found := re.match(r"> (\d+) handling Ready", line):
                name = found[1]
            elif line.startswith(">"):
                name = ""
            elif name:
                known = self._known.setdefault(name, {})
                if found := re.match(r" *HardState Term:(\d+)(?: Vote:(\d+))? Commit:(\d+)", line):
                    known.update(term=int(found[1]), vote=found[2] or "", commit=int(found[3]))
                elif found := re.match(r" *Lead:\d+ State:State(\w+)", line):
                    # A member that asks for pre-votes is a follower here.
                    known["role"] = found[1].replace("PreCandidate", "Follower")

    def _compare(self) -> None:
        for name, known in self._known.items():
            raft = self.nodes[name].raft
            ours = {"term": raft.term, "vote": raft.vote, "commit": raft.commit, "role": raft.role}
            for fact, theirs in known.items():
                self._fact(f"{fact} of {name}", ours[fact], theirs)
