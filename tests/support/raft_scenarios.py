"""Runs readable scenarios on real Raft members (`tests/rules/raft/scenarios/*.txt`).

A file is made of steps: commands, a line `----`, and what comes of them, up to an empty line. `#` begins a remark.
Nothing happens by itself: a timer fires, a disk has written and a message arrives where the file says so.

    members a b c [learners d]   a new cluster; chunk=3: snapshots are sent in parts of 3 bytes
    log a 1 1 2:x [vote=b term=3]  a starts with entries of these terms on its disk, one of them with a command
    timer a                      the time is that of a's next timer, which fires
    wait 50                      time passes (an election timeout is 100), and no timer fires
    disk a                       all that a has written so far is on its disk
    deliver, drop, repeat        messages in flight, in their order: all, or `a>b`, `a>`, `>b`, a kind, the `first`
    settle [a b]                 disks write and messages are delivered until nothing is left, among these members;
                                 only roles, entries that are applied, reads and snapshots are shown
    elect a b c                  a's timer fires, and b and c vote for it; its first entry is under way
    beat a 9 [b]                 nine times: a's timer fires, and all is delivered among a and b (or all)
    acknowledge b a 2            b's answer to a message of a that ended at entry 2 is in flight
    cut c, heal                  nothing reaches c or leaves it; everything does
    propose a x y, add a d, remove a b, transfer a b, read a, snapshot a, crash a, restart a
    show [a b]                   a table of the members
    quietly …                    the command without what comes of it
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec

from heliosd.raft.membership import ChangeRefused, with_learner, without_member
from heliosd.raft.messages import AppendAnswer, Entry, Envelope, Snapshot
from heliosd.raft.node import RaftNode
from heliosd.raft.simulation.disk import Disk
from heliosd.raft.state import RaftChange, Ready, Timing, Write
from heliosd.raft.storage import HardState, LogSuffix, MemberState, SnapshotSaved

from .raft_words import entry_words, message_words, short_entries

TIMING = Timing(heartbeat=10, election=100)
SHOWN = re.compile(r"^\S+ (is|applies|confirms|installs|takes) ")


def rewritten(path: Path) -> str:
    """The text of a scenario with what comes of its steps now."""
    scenario, lines, after = Scenario(), [], False
    commands: list[str] = []
    for line in path.read_text().splitlines():
        if line == "----":
            lines += [line, *(out for command in commands for out in scenario.run(command))]
            commands, after = [], True
        elif not after or not line:
            if line and not line.startswith("#"):
                commands.append(line)
            lines.append(line)
            after = False
    return "\n".join(lines).rstrip() + "\n"


@dataclass
class Member:
    raft: RaftNode
    disk: Disk
    state: str = ""
    """What its state machine holds: the commands in their order."""
    writes: list[Write] = field(default_factory=list)
    alive: bool = True


class Scenario:
    """Raises AssertionError where two members apply different entries, or two lead one term."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.flight: list[Envelope] = []
        self.now = 0
        self._unreachable: set[str] = set()
        self._chunk_bytes = 1000
        self._reads = 0
        self._out: list[str] = []
        self._applied: dict[int, Entry] = {}
        self._leaders: dict[int, str] = {}

    def run(self, command: str) -> list[str]:
        """Do what a line says. Returns what came of it."""
        name, *words = command.split()
        loud = name != "quietly"
        if not loud:
            name, *words = words
        self._out = []
        do: Callable[..., None] = getattr(self, f"_{name}")
        try:
            do(*words)
        except ChangeRefused as refused:
            self._out.append(f"{words[0]} refuses: {refused.reason}")
        return self._out if loud else []

    # Members

    def _members(self, *words: str) -> None:
        options = dict(word.split("=") for word in words if "=" in word)
        self._chunk_bytes = int(options.get("chunk", self._chunk_bytes))
        names = [word for word in words if "=" not in word]
        split = names.index("learners") if "learners" in names else len(names)
        voters, learners = names[:split], names[split + 1 :]
        start = Snapshot(0, 0, {name: name for name in voters}, b"", {name: name for name in learners})
        for name in (*voters, *learners):
            self._start(name, MemberState(snapshot=start))

    def _log(self, name: str, *words: str) -> None:
        options = dict(word.split("=") for word in words if "=" in word)
        texts = [word for word in words if "=" not in word]
        entries = tuple(_entry(index, word) for index, word in enumerate(texts, 1))
        term = int(options.get("term", max((entry.term for entry in entries), default=0)))
        start = self.members[name].disk.read().snapshot
        self._start(name, MemberState(term=term, vote=options.get("vote", ""), snapshot=start, log=entries))

    def _start(self, name: str, state: MemberState) -> None:
        raft = RaftNode(
            name, state, timing=TIMING, rng=Random(1), now=self.now, chunk_bytes=self._chunk_bytes
        )
        self.members[name] = Member(raft, Disk(state), state.snapshot.data.decode())

    def _crash(self, name: str) -> None:
        """What is not on its disk is lost."""
        self.members[name].alive = False

    def _restart(self, name: str) -> None:
        self._start(name, self.members[name].disk.read())

    # Time, disks and messages

    def _timer(self, name: str) -> None:
        raft = self.members[name].raft
        assert raft.deadline is not None, f"{name} has no timer"
        self.now = max(self.now, raft.deadline)
        self._ready(name, raft.tick(self.now))

    def _wait(self, ticks: str) -> None:
        self.now += int(ticks)

    def _disk(self, *names: str) -> None:
        for name in names:
            member = self.members[name]
            writes, member.writes = member.writes, []
            for write in writes:
                for change in write.changes:
                    member.disk.write(change)
            if writes:
                self._out.append(f"{name} has write {writes[-1].number} on disk")
                self._ready(name, member.raft.persisted(self.now, writes[-1].number))

    def _chosen(self, words: tuple[str, ...]) -> list[Envelope]:
        """Of the messages in flight, those that the words name."""
        links = [word.split(">") for word in words if ">" in word] or [["", ""]]
        kinds = [word for word in words if ">" not in word and word != "first"]
        chosen = [
            envelope
            for envelope in self.flight
            if any(one in {"", envelope.sender} and two in {"", envelope.recipient} for one, two in links)
            and (not kinds or type(envelope.message).__name__ in kinds)
        ]
        return chosen[:1] if "first" in words else chosen

    def _deliver(self, *words: str) -> None:
        for envelope in self._taken(self._chosen(words)):
            if not {envelope.sender, envelope.recipient} & self._unreachable:
                member = self.members.get(envelope.recipient)
                if member is not None and member.alive:
                    self._out.append(
                        f"{envelope.recipient} gets {type(envelope.message).__name__} of {envelope.sender}"
                    )
                    self._ready(envelope.recipient, member.raft.step(self.now, envelope))

    def _drop(self, *words: str) -> None:
        self._taken(self._chosen(words))

    def _repeat(self, *words: str) -> None:
        self.flight += [msgspec.structs.replace(envelope) for envelope in self._chosen(words)]

    def _taken(self, envelopes: list[Envelope]) -> list[Envelope]:
        ids = {id(envelope) for envelope in envelopes}
        self.flight = [envelope for envelope in self.flight if id(envelope) not in ids]
        return envelopes

    def _settle(self, *names: str) -> None:
        before, self._out = self._out, []
        while self._exchange(*(names or tuple(self.members))):
            pass
        self._out = before + [line for line in self._out if SHOWN.search(line)]

    def _exchange(self, *names: str) -> bool:
        """Disks write, and what is in flight among these members is delivered. Whether there was anything."""
        self._disk(*(name for name in names if self.members[name].alive))
        links = [f"{one}>{two}" for one in names for two in names if one != two]
        found = bool(links) and bool(self._chosen(tuple(links)))
        if found:
            self._deliver(*links)
        return found

    def _elect(self, name: str, *voters: str) -> None:
        before, self._out = self._out, []
        raft, timers = self.members[name].raft, 0
        while raft.role != "Leader":
            assert timers < 5, f"{name} is not elected"
            timers += 1
            if raft.role == "Follower" or not self._exchange(name, *voters):
                self._timer(name)
                while raft.role == "Follower" and self._exchange(name, *voters):
                    pass
        self._out = [*before, f"{name} is Leader in term {raft.term}"]

    def _beat(self, name: str, times: str, *others: str) -> None:
        before, self._out = self._out, []
        for _ in range(int(times)):
            self._timer(name)
            self._settle(*((name, *others) if others else ()))
        self._out = before + [line for line in self._out if SHOWN.search(line)]

    def _acknowledge(self, name: str, leader: str, index: str) -> None:
        answer = AppendAnswer(self.members[name].raft.term, True, int(index), 0, 0, 0, self.now)
        self.flight.append(Envelope(name, leader, answer))

    def _cut(self, *names: str) -> None:
        self._unreachable.update(names)

    def _heal(self) -> None:
        self._unreachable.clear()

    # Requests

    def _propose(self, name: str, *commands: str) -> None:
        self._ready(name, self.members[name].raft.propose(self.now, [text.encode() for text in commands]))

    def _add(self, name: str, member: str) -> None:
        """The new member starts empty, as in the thesis. (In heliosd it starts with a copy.)"""
        raft = self.members[name].raft
        self._ready(name, raft.propose_membership(self.now, with_learner(raft.log.members, member, member)))
        if member not in self.members:
            self._start(member, MemberState())

    def _remove(self, name: str, member: str) -> None:
        raft = self.members[name].raft
        self._ready(name, raft.propose_membership(self.now, without_member(raft.log.members, member)))

    def _transfer(self, name: str, target: str) -> None:
        self._ready(name, self.members[name].raft.transfer(self.now, target))

    def _read(self, name: str) -> None:
        self._reads += 1
        self._ready(name, self.members[name].raft.read(self.now, self._reads))

    def _snapshot(self, name: str) -> None:
        member = self.members[name]
        snapshot, ready = member.raft.compact(self.now, member.state.encode())
        self._out.append(f"{name} takes a snapshot at {snapshot.index}/{snapshot.term}")
        self._ready(name, ready)

    # What a member wants

    def _ready(self, name: str, ready: Ready) -> None:
        member = self.members[name]
        if ready.changed is not None:
            role, term, leader = ready.changed
            follows = f" of {leader}" if role == "Follower" and leader else ""
            self._out.append(f"{name} is {role}{follows} in term {term}")
            if role == "Leader":
                assert self._leaders.setdefault(term, name) == name, f"two leaders in term {term}"
        if ready.write is not None:
            member.writes.append(ready.write)
            changes = "; ".join(map(_change_words, ready.write.changes))
            self._out.append(f"{name} writes {ready.write.number}: {changes}")
        if ready.installed is not None:
            member.state = ready.installed.data.decode()
            self._out.append(f"{name} installs the snapshot at {ready.installed.index}")
        for entry in ready.committed:
            assert self._applied.setdefault(entry.index, entry) == entry, f"{name} applies {entry}"
            if entry.kind == "command":
                member.state += entry.data.decode()
        if ready.committed:
            self._out.append(f"{name} applies {' '.join(map(entry_words, ready.committed))}")
        for read in ready.reads:
            self._out.append(f"{name} confirms read {read.serial} at {read.index}")
        for held in ready.held_back:
            message = message_words(held.envelope.message)
            self._out.append(f"{name} > {held.envelope.recipient} after write {held.after}: {message}")
        for envelope in ready.sends:
            self.flight.append(envelope)
            self._out.append(f"{name} > {envelope.recipient}: {message_words(envelope.message)}")

    def _show(self, *names: str) -> None:
        for name in names or tuple(sorted(self.members)):
            self._out.append(_row(name, self.members[name]))


def _entry(index: int, word: str) -> Entry:
    term, _, command = word.partition(":")
    return Entry(index, int(term), "command" if command else "noop", command.encode())


def _change_words(change: RaftChange) -> str:
    match change:
        case HardState(term=term, vote=vote):
            return f"term {term}, vote {vote or 'none'}"
        case LogSuffix(entries=entries):
            return f"log from {entries[0].index}: {short_entries(entries)}"
        case SnapshotSaved(snapshot=snapshot):
            return f"snapshot at {snapshot.index}/{snapshot.term}"


def _row(name: str, member: Member) -> str:
    raft, log = member.raft, member.raft.log
    if not member.alive:
        return f"{name} is down"
    base = f"[{log.snapshot.index}/{log.snapshot.term}] " if log.snapshot.index else ""
    entries = base + short_entries(log.slice(log.first_index, log.last_index))
    members = "".join(log.members.voters) + "".join(f"+{learner}" for learner in log.members.learners)
    return (
        f"{name}: {raft.role:<9} term {raft.term} vote {raft.vote or '-'} commit {raft.commit} "
        f"disk {member.disk.last_index} members {members} log {entries}"
    ).rstrip()
