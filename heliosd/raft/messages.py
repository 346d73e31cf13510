"""The messages between Raft members, log entries and snapshots.

Field names and rules follow the extended Raft paper (Ongaro & Ousterhout 2014, figures 2 and 13) and Ongaro's
thesis (2014): PreVote section 9.6, leadership transfer 3.10, single-server membership changes 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

EntryKind = Literal["command", "membership", "noop"]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the replicated log. `index` counts from 1. Raft itself reads `data` of `membership` entries
    only."""

    index: int
    term: int
    kind: EntryKind
    data: bytes = b""


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The state machine and the membership as of `index`; index 0 is the empty start of every log."""

    index: int = 0
    term: int = 0
    membership: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Voting members: id -> address."""
    data: bytes = b""
    learners: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Members without a vote (thesis 4.2.1): id -> address."""


class PreVote(msgspec.Struct, frozen=True, gc=False):
    """Asks whether the receiver would vote for the sender in `term`; the receiver changes nothing (thesis 9.6)."""

    term: int
    """The term in which the sender would campaign: its own plus one."""
    last_index: int
    last_term: int
    sent: int
    """The sender's tick, in every request. The answer repeats it, so the sender knows how old it is."""


class PreVoteAnswer(msgspec.Struct, frozen=True, gc=False):
    term: int
    """If granted the requested term, else the receiver's own."""
    granted: bool
    sent: int


class RequestVote(msgspec.Struct, frozen=True, gc=False):
    term: int
    last_index: int
    last_term: int
    transfer: bool
    """The leader itself handed over to the sender (thesis 3.10), so its lease is no reason to refuse."""
    sent: int


class VoteAnswer(msgspec.Struct, frozen=True, gc=False):
    term: int
    granted: bool
    sent: int


class AppendEntries(msgspec.Struct, frozen=True, gc=False):
    """From the leader of `term`, the envelope's sender. Without entries it is a heartbeat."""

    term: int
    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit: int
    sent: int


class AppendAnswer(msgspec.Struct, frozen=True, gc=False):
    """`accepted`: the sender's durable log equals the leader's up to `match_index`.

    Otherwise the entry at `prev_index` did not match. The log has `conflict_term` there, starting at
    `conflict_index`; or it ends before, with `conflict_term` 0 and `conflict_index` one past its end. With
    `conflict_index` 0 nothing was compared: the leader's term was over.
    """

    term: int
    accepted: bool
    match_index: int
    prev_index: int
    conflict_index: int
    conflict_term: int
    sent: int


class InstallSnapshot(msgspec.Struct, frozen=True, gc=False):
    """Figure 13: a chunk of a snapshot. Without `offset` and `done` it is the whole one."""

    term: int
    snapshot: Snapshot
    """Its `data` is the chunk."""
    sent: int
    offset: int = 0
    """Where the chunk begins in the data of the snapshot."""
    done: bool = True
    """It is the last chunk."""


class InstallAnswer(msgspec.Struct, frozen=True, gc=False):
    """The sender's durable log equals the leader's up to `match_index`; 0: the snapshot is not complete yet."""

    term: int
    match_index: int
    sent: int
    received: int = 0
    """How many bytes of an incomplete snapshot the sender has: the next chunk begins there."""


class TimeoutNow(msgspec.Struct, frozen=True, gc=False):
    """The leader hands over: the receiver is to campaign at once (thesis 3.10)."""

    term: int


class Probe(msgspec.Struct, frozen=True, gc=False):
    """Measures the latency between two members; no part of Raft."""

    sent: int


class ProbeAnswer(msgspec.Struct, frozen=True, gc=False):
    sent: int


Message = (
    PreVote
    | PreVoteAnswer
    | RequestVote
    | VoteAnswer
    | AppendEntries
    | AppendAnswer
    | InstallSnapshot
    | InstallAnswer
    | TimeoutNow
)
"""What `RaftNode.step` takes. Probes are answered outside of it."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A message with its sender and its recipient."""

    sender: str
    recipient: str
    message: Message
