"""How far the events of committed entries are on disk, and whether a snapshot got there before them.

An event is stored with a marker, the index of its entry. A snapshot of the local member is stored with the marker
of the last event that came of what it covers. After a kill the entries in a snapshot are not applied again: where
that event is not on disk, it never comes, and the numbering cannot go on as if it had.

An entry is emitted once it is applied, which may be before the local member's own disk has it. What such events
have shown is then read from the log of another member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from heliosd.raft.log import RaftLog
from heliosd.store.changes import Saved, ValueSet

from .bootstrap import FIRST_INDEX

EMITTED_INDEX = "simulated/told"
"""Name of the stored value: the index up to which events of committed entries are stored."""
SNAPSHOT_MARKER = "simulated/snapshot_marker"
"""Name of the stored value: the index that `EMITTED_INDEX` reaches once no event of the snapshot is missing."""


def marker(index: int) -> ValueSet:
    """What is stored with the last event of the entry `index`."""
    return ValueSet(EMITTED_INDEX, b"%d" % index)


def snapshot_marker(index: int) -> ValueSet:
    """What is stored with a snapshot: the last event that came of what it covers is that of the entry `index`."""
    return ValueSet(SNAPSHOT_MARKER, b"%d" % index)


def emitted_index(saved: Saved) -> int:
    """The index up to which no entry is emitted again."""
    return max(_stored(saved), _needed(saved))


def missing_events(saved: Saved, node: str) -> ValueSet | None:
    """None if the numbering can go on: the stored events are all that came of the stored snapshot, and a stored log
    says what they have shown. Otherwise a new epoch has to begin, with which this is stored."""
    emitted, own = emitted_index(saved), saved.members.get(node)
    spans = [(state.snapshot.index, len(state.log)) for state in saved.members.values()]
    unknown = (
        own is not None and own.snapshot.index + len(own.log) < emitted and not any(_hold(spans, emitted))
    )
    return marker(emitted) if _stored(saved) < emitted or unknown else None


def emitted_log(logs: Mapping[str, RaftLog], node: str, emitted: int) -> RaftLog:
    """A log that reaches the last entry that was emitted; this node's if none does.

    That entry is committed: of several logs with an entry of this index the one of the latest term has it, since no
    leader without it has been elected (paper, 5.4).
    """
    own = logs[node]
    others = (log for name, log in logs.items() if name != node)
    reaching = [log for log in (own, *others) if log.snapshot.index <= emitted <= log.last_index]
    return max(reaching, key=lambda log: log.term(emitted), default=own)


def _hold(spans: Iterable[tuple[int, int]], index: int) -> Iterable[bool]:
    return (start <= index <= start + length for start, length in spans)


def _stored(saved: Saved) -> int:
    return int(saved.values.get(EMITTED_INDEX, b"%d" % FIRST_INDEX))


def _needed(saved: Saved) -> int:
    return int(saved.values.get(SNAPSHOT_MARKER, b"0"))
