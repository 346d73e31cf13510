"""What Raft members say to each other, and what they keep.

Field names and rules follow the extended Raft paper (Ongaro & Ousterhout 2014, figures 2 and 13) and Ongaro's
thesis (2014): PreVote section 9.6, leadership transfer 3.10, single-server membership changes 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EntryKind = Literal["command", "membership", "noop"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a replicated log. `index` counts from 1; `data` is opaque to Raft but for `membership`."""

    index: int
    term: int
    kind: EntryKind
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine and the membership as of `index`; index 0 is the empty beginning of every log."""

    index: int = 0
    term: int = 0
    membership: Mapping[str, str] = field(default_factory=dict)
    """Voting members: id -> address."""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you vote for me in `term`? Changes nothing at the receiver (thesis 9.6)."""

    term: int
    """The term that the sender would campaign in: its own plus one."""
    last_index: int
    last_term: int
    sent: int
    """The sender's tick, in every request; the answer repeats it, so that the sender knows how old it is."""


@dataclass(frozen=True, slots=True)
class PreVoteAnswer:
    term: int
    """If granted the term asked for, else the receiver's own."""
    granted: bool
    sent: int


@dataclass(frozen=True, slots=True)
class RequestVote:
    term: int
    last_index: int
    last_term: int
    transfer: bool
    """The leader itself told the sender to campaign (thesis 3.10), so its own lease is no reason to refuse."""
    sent: int


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    term: int
    granted: bool
    sent: int


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """From the leader of `term`, who is the envelope's sender. Without entries it is a heartbeat."""

    term: int
    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit: int
    sent: int


@dataclass(frozen=True, slots=True)
class AppendAnswer:
    """`accepted`: the sender's log is, on its disk, the leader's up to `match_index`.

    Otherwise `prev_index` repeats what did not fit, and the log has `conflict_term` there, beginning at
    `conflict_index`; or it ends before, with `conflict_term` 0 and `conflict_index` one past its end.
    """

    term: int
    accepted: bool
    match_index: int
    prev_index: int
    conflict_index: int
    conflict_term: int
    sent: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """Figure 13, in one piece."""

    term: int
    snapshot: Snapshot
    sent: int


@dataclass(frozen=True, slots=True)
class InstallAnswer:
    """The sender's log is, on its disk, the leader's up to `match_index`."""

    term: int
    match_index: int
    sent: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """Campaign at once: the leader hands over to you (thesis 3.10)."""

    term: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Are you there? No part of Raft: it measures the network between any two members."""

    sent: int


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
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
"""What `machine.Raft.step` takes. Probes are answered by the member's surroundings."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with its way."""

    sender: str
    recipient: str
    message: Message
