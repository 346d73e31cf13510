"""A snapshot is sent in chunks, one at a time (figure 13): what a leader sends next, what a follower has so far."""

from __future__ import annotations

import msgspec

from .messages import InstallSnapshot, Snapshot

CHUNK_BYTES = 64 * 1024


def chunk_of(snapshot: Snapshot, *, term: int, offset: int, size: int, now: int) -> InstallSnapshot:
    """The message of a leader of `term` with the part from `offset` on, of at most `size` bytes."""
    data = snapshot.data[offset : offset + size]
    part = snapshot if len(data) == len(snapshot.data) else msgspec.structs.replace(snapshot, data=data)
    return InstallSnapshot(term, part, now, offset, offset + len(data) == len(snapshot.data))


class IncomingSnapshot:
    """The chunks that a follower has of one snapshot of one leader: in memory only, so a restart begins anew."""

    __slots__ = ("_chunks", "_of", "received")

    def __init__(self) -> None:
        self._of = (0, 0, 0)
        self._chunks: list[bytes] = []
        self.received = 0
        """Bytes so far."""

    def add(self, install: InstallSnapshot) -> Snapshot | None:
        """The whole snapshot, once its last chunk is there.

        A chunk at another place than the next one is ignored (it is late or repeated), and one of another snapshot
        or of another leader begins anew: two leaders may encode the same state differently.
        """
        part = install.snapshot
        of = (install.term, part.index, part.term)
        if install.offset == 0 or of != self._of:
            self._of, self._chunks, self.received = of, [], 0
        if install.offset != self.received:
            return None
        self._chunks.append(part.data)
        self.received += len(part.data)
        if not install.done:
            return None
        whole = msgspec.structs.replace(part, data=b"".join(self._chunks))
        self._of, self._chunks = (0, 0, 0), []
        return whole
