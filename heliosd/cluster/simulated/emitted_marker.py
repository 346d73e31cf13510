"""How far the events of committed entries are on disk, and whether a snapshot got there before them.

An event is stored with a marker, the index of its entry. A snapshot of the local member is stored with the marker
of the last event that came of what it covers. After a kill the entries in a snapshot are not applied again: where
that event is not on disk, it never comes, and the numbering cannot go on as if it had.
"""

from __future__ import annotations

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


def missing_events(saved: Saved) -> ValueSet | None:
    """None if the stored events are all that came of the stored snapshot. Otherwise a new epoch has to begin, with
    which this is stored."""
    return marker(_needed(saved)) if _stored(saved) < _needed(saved) else None


def _stored(saved: Saved) -> int:
    return int(saved.values.get(EMITTED_INDEX, b"%d" % FIRST_INDEX))


def _needed(saved: Saved) -> int:
    return int(saved.values.get(SNAPSHOT_MARKER, b"0"))
