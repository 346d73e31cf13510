"""What a simulated cluster reports to its driver, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.state import ConfirmedRead, SoftState

from .proposals import ProposalResult

CallKind = Literal["append_entries", "request_vote", "install_snapshot", "probe"]


@dataclass(frozen=True, slots=True)
class SoftStateChanged:
    """A member's role, term or known leader changed."""

    member: str
    state: SoftState


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A leader had another member campaign in its place."""

    leader: str
    term: int


@dataclass(frozen=True, slots=True)
class EntryApplied:
    """A member applied a committed entry. `result`: what its state machine returned; None if it is no command."""

    member: str
    entry: Entry
    result: object


@dataclass(frozen=True, slots=True)
class ReadConfirmed:
    """A leader knows that a read misses nothing that was committed before it was requested."""

    member: str
    read: ConfirmedRead


@dataclass(frozen=True, slots=True)
class Installed:
    """A member's state machine was replaced by a snapshot from its leader `sender`."""

    member: str
    sender: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A call of the root member was answered after so many ticks."""

    peer: str
    kind: CallKind
    ticks: int


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A call of the root member was not answered in time."""

    peer: str
    kind: CallKind


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A probe of any member was answered by `peer` after so many ticks."""

    member: str
    peer: str
    ticks: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to the proposal that a member sent under this serial."""

    member: str
    serial: int
    result: ProposalResult


@dataclass(frozen=True, slots=True)
class MemberStarted:
    """A member started from its disk, with its state machine as of `applied`."""

    member: str
    applied: int


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The disk refused a member's writes, so its entries after `last_index` are gone. `was`: its state before."""

    member: str
    was: SoftState
    last_index: int
    sent: bool = False
    """They have waited for its slow disk, so other members may have them already."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """A member crashed; what it had not written is lost."""

    member: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A member that no configuration needs any more was stopped and its disk wiped."""

    member: str


Observation = (
    SoftStateChanged
    | HandedOver
    | EntryApplied
    | Installed
    | ReadConfirmed
    | RoundTrip
    | Unanswered
    | ProbeAnswered
    | Answered
    | MemberStarted
    | Unwritten
    | Crashed
    | Forgotten
)
