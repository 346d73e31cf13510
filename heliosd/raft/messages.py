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
