"""Writes what the members of a run do in the events of etcd's TLA+ trace specification (etcd-io/raft, tla/).

A line of the file is `{"tag": "trace", "event": {"name", "nid", "state", "role", "log", "conf", "msg", "prop"}}`,
as etcd's members write them. Two properties are ours: `base` and `terms` of an `InitState`, what a start found on
its disk, and `durable` of a `Ready`, how far the log is on disk. PreVote is not in the specification, and left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from heliosd.raft.messages import (
    AppendAnswer,
    AppendEntries,
    Envelope,
    InstallAnswer,
    InstallSnapshot,
    Message,
    RequestVote,
    VoteAnswer,
)
from heliosd.raft.simulation.member import SimulatedMember
from heliosd.raft.simulation.observations import MemberStarted, Observation
from heliosd.raft.state import Ready
from heliosd.raft.storage import LogSuffix

Event = dict[str, Any]
SENT = {
    AppendEntries: "AppendEntriesRequest",
    InstallSnapshot: "AppendEntriesRequest",
    AppendAnswer: "AppendEntriesResponse",
    InstallAnswer: "AppendEntriesResponse",
    RequestVote: "RequestVoteRequest",
    VoteAnswer: "RequestVoteResponse",
}


class TraceWriter:
    """Its `step` is called after each step of a member, as `SimulatedCluster.inspect` is."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._before: dict[str, tuple[str, int, int, tuple[str, ...]]] = {}
        """Of each member: its role, its term, its commit index and its voters."""
        self._size = 0
        self._durable: dict[str, int] = {}

    def started(self, member: SimulatedMember) -> None:
        """A member starts from its disk."""
        log = member.raft.log
        self._size = log.last_index
        terms = [entry.term for entry in log.slice(log.first_index, log.last_index)]
        base = {"index": log.snapshot.index, "term": log.snapshot.term}
        self._write("InitState", member, prop={"base": base, "terms": terms})
        self._remember(member)
        self._durable[member.raft.id] = log.last_index

    def observe(self, observations: Iterable[Observation], members: Mapping[str, SimulatedMember]) -> None:
        """Take what the cluster has reported since the last time."""
        for each in observations:
            if isinstance(each, MemberStarted) and each.member in members:
                self.started(members[each.member])

    def step(self, member: SimulatedMember, ready: Ready, envelope: Envelope | None) -> None:
        raft = member.raft
        role, term, commit, voters = self._before[raft.id]
        appended = _appended(ready) if raft.role == "Leader" else ()
        self._size = appended[0].index - 1 if appended else raft.log.last_index
        if envelope is not None and type(envelope.message) in SENT:
            kind = SENT[type(envelope.message)]
            if not isinstance(envelope.message, InstallSnapshot):
                self._write(f"Receive{kind}", member, envelope)
        if ready.installed is not None and envelope is not None:
            self._write("ReceiveSnapshot", member, envelope)
        if raft.role != role or raft.term != term:
            self._write(f"Become{raft.role}", member)
        for entry in appended:
            self._size = entry.index
            self._write("ChangeConf" if entry.kind == "membership" else "Replicate", member)
        if (durable := _durable(member)) != self._durable[raft.id]:
            self._durable[raft.id] = durable
            self._write("Ready", member, prop={"durable": durable})
        if raft.commit != commit:
            self._write("Commit", member)
        if tuple(raft.log.membership) != voters:
            self._write("ApplyConfChange", member, prop={"cc": {"newconf": list(raft.log.membership)}})
        for sent in ready.sends:
            if isinstance(sent.message, InstallSnapshot):
                self._write("SendSnapshot", member, sent)
            elif type(sent.message) in SENT:
                self._write(f"Send{SENT[type(sent.message)]}", member, sent)
        self._remember(member)

    def _remember(self, member: SimulatedMember) -> None:
        raft = member.raft
        voters = tuple(raft.log.membership)
        self._before[raft.id] = (raft.role, raft.term, raft.commit, voters)

    def _write(
        self, name: str, member: SimulatedMember, envelope: Envelope | None = None, prop: Event | None = None
    ) -> None:
        raft = member.raft
        event: Event = {
            "name": name,
            "nid": raft.id,
            "state": {"term": raft.term, "vote": raft.vote or "0", "commit": raft.commit},
            "role": f"State{raft.role}",
            "log": self._size,
            "conf": [sorted(raft.log.membership), []],
        }
        if envelope is not None:
            event["msg"] = _message(envelope)
        if prop is not None:
            event["prop"] = prop
        self._file.write(json.dumps({"tag": "trace", "event": event}) + "\n")


def _appended(ready: Ready) -> tuple[Any, ...]:
    changes = () if ready.write is None else ready.write.changes
    return tuple(entry for change in changes if isinstance(change, LogSuffix) for entry in change.entries)


def _durable(member: SimulatedMember) -> int:
    """Up to where the log is on disk."""
    log, disk = member.raft.log, member.disk
    index = min(log.last_index, disk.last_index)
    while index >= log.snapshot.index and not disk.holds(index, log.term(index)):
        index -= 1
    return index if index >= log.snapshot.index else min(index, disk.snapshot_index)


def _message(envelope: Envelope) -> Event:
    message: Message = envelope.message
    fields: Event = {"type": "", "index": 0, "logTerm": 0, "entries": 0, "commit": 0, "reject": False}
    match message:
        case AppendEntries(prev_index=index, prev_term=term, entries=entries, commit=commit):
            fields |= {"type": "MsgApp", "index": index, "logTerm": term}
            fields |= {"entries": len(entries), "commit": commit}
        case InstallSnapshot(snapshot=snapshot):
            fields |= {"type": "MsgSnap", "entries": snapshot.index}
        case AppendAnswer(accepted=accepted, match_index=match):
            fields |= {"type": "MsgAppResp", "index": match, "reject": not accepted}
        case InstallAnswer(match_index=match):
            fields |= {"type": "MsgAppResp", "index": match, "reject": match == 0}
        case RequestVote(last_index=index, last_term=term):
            fields |= {"type": "MsgVote", "index": index, "logTerm": term}
        case VoteAnswer(granted=granted):
            fields |= {"type": "MsgVoteResp", "reject": not granted}
    return {"term": message.term, "from": envelope.sender, "to": envelope.recipient, **fields}
