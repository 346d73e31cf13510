"""Holds a trace (`raft_trace.py`) against the eight invariants of etcd's TLA+ specification of Raft.

It keeps its own log of each member, made from the events alone: a leader's entries from `Replicate` and
`ChangeConf`, a follower's from the messages that it receives. So it also finds a trace that cannot be: a message
that nobody sent, or a log of another length.

Two invariants are taken as Raft needs them, not as that specification words them. `LeaderCompletenessInv`: a leader
has what was committed in an earlier term, where the specification says what is of an earlier term; a former leader
that does not know of its end need not have that. `CommittedIsDurableInv`: what a leader commits is on the disks of
a majority, where the specification says on its own disk; here a leader writes in parallel (thesis 10.2.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

INVARIANTS = (
    *("LogInv", "MoreThanOneLeaderInv", "ElectionSafetyInv", "LogMatchingInv"),
    *("QuorumLogInv", "MoreUpToDateCorrectInv", "LeaderCompletenessInv", "CommittedIsDurableInv"),
)
Entry = tuple[int, int]
"""The term, and a number of its own for each that a leader creates."""


class TraceBroken(AssertionError):
    """An invariant does not hold after a line of the trace."""

    def __init__(self, invariant: str, line: int, witness: str) -> None:
        super().__init__(f"line {line}: {invariant}: {witness}")
        self.invariant = invariant


@dataclass
class Server:
    """What the trace says of one member."""

    term: int = 0
    role: str = ""
    commit: int = 0
    durable: int = 0
    conf: tuple[str, ...] = ()
    log: list[Entry] = field(default_factory=list)
    """From index 1 on; a snapshot is the entries that it replaced."""


class TraceChecker:
    """Raises `TraceBroken`."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.committed: list[tuple[Entry, int]] = []
        """By index: the entry, and the term in which it was first known to be committed."""
        self.line = 0
        self._sent: dict[tuple[Any, ...], list[Entry]] = {}
        self._known: dict[tuple[int, int], Entry] = {}
        self._created = 0

    def check(self, lines: Iterable[str]) -> int:
        """Takes the lines of a trace. Returns how many."""
        for line in lines:
            self.line += 1
            self._event(json.loads(line)["event"])
        return self.line

    def _require(self, holds: bool, invariant: str, *witness: object) -> None:
        if not holds:
            raise TraceBroken(invariant, self.line, ", ".join(map(str, witness)))

    def _event(self, event: dict[str, Any]) -> None:
        name, of, message = event["name"], event["nid"], event.get("msg", {})
        server = self.servers.setdefault(of, Server())
        if name == "InitState":
            self._restart(server, event["prop"])
        elif name in {"Replicate", "ChangeConf"}:
            self._created += 1
            entry = event["state"]["term"], self._created
            server.log.append(entry)
            self._known[len(server.log), entry[0]] = entry
        elif name == "SendAppendEntriesRequest":
            first = message["index"]
            self._sent[_key(message)] = server.log[first : first + message["entries"]]
        elif name == "SendSnapshot":
            self._sent[_key(message)] = server.log[: message["entries"]]
        elif name == "ReceiveAppendEntriesRequest" and message["term"] >= server.term:
            self._append(server, message)
        elif name == "ReceiveSnapshot":
            prefix = self._entries(message)
            same = len(server.log) >= len(prefix) and server.log[len(prefix) - 1][0] == prefix[-1][0]
            server.log = prefix + (server.log[len(prefix) :] if same else [])
        elif name == "Ready":
            server.durable = event["prop"]["durable"]
        commit = server.commit
        self._state(server, event)
        self._require(len(server.log) == event["log"], "the trace", of, len(server.log), event["log"])
        if name != "InitState" and not name.startswith("Send"):  # members start one after the other
            self._invariants(of, server)
            if server.role == "Leader":
                self._leader(of, server)
                if server.commit > commit:
                    self._durable(of, server)

    def _entries(self, message: dict[str, Any]) -> list[Entry]:
        key = _key(message)
        self._require(key in self._sent, "the trace", f"nobody sent {message}")
        return list(self._sent[key])

    def _restart(self, server: Server, prop: dict[str, Any]) -> None:
        base = prop["base"]["index"]
        while len(self.committed) < base:  # of the first start
            self.committed.append(((prop["base"]["term"], -len(self.committed) - 1), 0))
        server.log = [entry for entry, _ in self.committed[:base]]
        for term in prop["terms"]:
            server.log.append(self._known[len(server.log) + 1, term])
        server.durable = len(server.log)
        server.commit = base

    def _append(self, server: Server, message: dict[str, Any]) -> None:
        prev, entries, log = message["index"], self._entries(message), server.log
        if prev > len(log) or (prev > server.commit and log[prev - 1][0] != message["logTerm"]):
            return
        for place, entry in enumerate(entries, prev):
            if place >= len(log) or log[place][0] != entry[0]:
                server.log = log[:place] + entries[place - prev :]
                server.durable = min(server.durable, place)
                return

    def _state(self, server: Server, event: dict[str, Any]) -> None:
        server.term, server.role = event["state"]["term"], event["role"].removeprefix("State")
        server.conf = tuple(event["conf"][0])
        commit, server.commit = server.commit, event["state"]["commit"]
        if server.commit <= len(server.log):
            for index in range(commit, server.commit):
                if index >= len(self.committed):
                    self.committed.append((server.log[index], server.term))

    # The invariants

    def _invariants(self, of: str, server: Server) -> None:
        log, commit = server.log, server.commit
        self._require(commit <= len(log), "LogInv", of, f"commit {commit} of {len(log)}")
        known = [entry for entry, _ in self.committed[:commit]]
        self._require(log[:commit] == known, "LogInv", of, log[:commit], known)
        for name, other in self.servers.items():
            if name != of:
                self._pair(of, server, name, other)
        for name, other in self.servers.items():
            lacking = [voter for voter in other.conf if not self._holds(self.servers.get(voter), other)]
            few = len(lacking) <= len(other.conf) // 2 or name not in other.conf
            self._require(few, "QuorumLogInv", name, f"commit {other.commit}", f"{lacking} lack it")

    def _holds(self, voter: Server | None, other: Server) -> bool:
        """Whether this log has what the other member knows to be committed."""
        if voter is None or not other.commit:
            return not other.commit
        return len(voter.log) >= other.commit and voter.log[other.commit - 1] == other.log[other.commit - 1]

    def _pair(self, of: str, server: Server, name: str, other: Server) -> None:
        both = server.role == other.role == "Leader" and server.term == other.term
        self._require(not both, "MoreThanOneLeaderInv", of, name, f"term {server.term}")
        one, two = server.log, other.log
        for index in range(min(len(one), len(two)) - 1, -1, -1):
            if one[index][0] == two[index][0]:
                same = one[: index + 1] == two[: index + 1]
                self._require(same, "LogMatchingInv", of, name, f"entry {index + 1}")
                break
        for (a, first), (b, second) in (((of, server), (name, other)), ((name, other), (of, server))):
            if _end(first) >= _end(second):
                self._require(self._holds(first, second), "MoreUpToDateCorrectInv", a, b, second.commit)
            if first.role == "Leader":
                newest = _newest(first.log, first.term)
                self._require(newest >= _newest(second.log, first.term), "ElectionSafetyInv", a, b)

    def _leader(self, of: str, server: Server) -> None:
        for index in range(len(self.committed) - 1, -1, -1):
            entry, term = self.committed[index]
            if term < server.term:
                has = len(server.log) > index and server.log[index] == entry
                self._require(has, "LeaderCompletenessInv", of, f"term {server.term}", f"entry {index + 1}")
                break

    def _durable(self, of: str, server: Server) -> None:
        disks = [self.servers[voter].durable for voter in server.conf if voter in self.servers]
        durable = sum(end >= server.commit for end in disks)
        majority = durable > len(server.conf) // 2
        self._require(majority, "CommittedIsDurableInv", of, f"commit {server.commit}", f"on {disks}")


def _key(message: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        message[name] for name in ("type", "from", "to", "term", "index", "logTerm", "entries", "commit")
    )


def _end(server: Server) -> tuple[int, int]:
    return (server.log[-1][0] if server.log else 0), len(server.log)


def _newest(log: list[Entry], term: int) -> int:
    """The last index of an entry of this term; 0 without one."""
    return next((index for index in range(len(log), 0, -1) if log[index - 1][0] == term), 0)
