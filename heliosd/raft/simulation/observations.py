"""What a simulated cluster reports to its driver, in order."""

from __future__ import annotations

from typing import Literal

import msgspec

from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.state import ConfirmedRead, SoftState

from .proposals import ProposalResult

CallKind = Literal["append_entries", "request_vote", "install_snapshot", "probe"]


class SoftStateChanged(msgspec.Struct, frozen=True):
    """A member's role, term or known leader changed."""

    member: str
    state: SoftState


class HandedOver(msgspec.Struct, frozen=True):
    """A leader had another member campaign in its place."""

    leader: str
    term: int


class EntryApplied(msgspec.Struct, frozen=True):
    """A member applied a committed entry. `result`: what its state machine returned; None if it is no command."""

    member: str
    entry: Entry
    result: object


class ReadConfirmed(msgspec.Struct, frozen=True):
    """A leader knows that a read misses nothing that was committed before it was requested."""

    member: str
    read: ConfirmedRead


class Installed(msgspec.Struct, frozen=True):
    """A member's state machine was replaced by a snapshot from its leader `sender`."""

    member: str
    sender: str
    snapshot: Snapshot


class RoundTrip(msgspec.Struct, frozen=True):
    """A call of the root member was answered after so many ticks."""

    peer: str
    kind: CallKind
    ticks: int


class Unanswered(msgspec.Struct, frozen=True):
    """A call of the root member was not answered in time."""

    peer: str
    kind: CallKind
    overtaken: bool = False
    """Whether the peer has answered a call that was sent later: then it has not failed since."""


class ProbeAnswered(msgspec.Struct, frozen=True):
    """A probe of any member was answered by `peer` after so many ticks."""

    member: str
    peer: str
    ticks: int


class Answered(msgspec.Struct, frozen=True):
    """The reply to the proposal that a member sent under this serial."""

    member: str
    serial: int
    result: ProposalResult


class MemberStarted(msgspec.Struct, frozen=True):
    """A member started from its disk, with its state machine as of `applied`."""

    member: str
    applied: int


class Unwritten(msgspec.Struct, frozen=True):
    """The disk refused a member's writes, so its entries after `last_index` are gone. `was`: its state before."""

    member: str
    was: SoftState
    last_index: int
    sent: bool = False
    """Other members may have them already: they have waited for its slow disk, or another one is slow or paused."""


class Crashed(msgspec.Struct, frozen=True):
    """A member crashed; what it had not written is lost."""

    member: str


class Forgotten(msgspec.Struct, frozen=True):
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
