"""What waits for one client's socket: bounded by count and by bytes, in order."""

from __future__ import annotations

from itertools import count

MAX_QUEUED_BYTES = 1024 * 1024


class Mailbox:
    """A queue of frames in which a newer value takes an older one's place at the end.

    The full case is `put` returning False: the frame is not queued, and what that means is the caller's to say.
    """

    __slots__ = ("_frames", "_limit", "_serial", "size")

    def __init__(self, limit: int) -> None:
        # A dict keeps order; a value is keyed by its type, everything else by a number of its own.
        self._frames: dict[int | str, bytes] = {}
        self._serial = count()
        self._limit = limit
        self.size = 0
        """Bytes that wait."""

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: bytes, replaces: str | None = None) -> bool:
        """Queue `frame` at the end; an older one with the same `replaces` goes. False: full, not queued."""
        if replaces is not None:
            older = self._frames.pop(replaces, None)
            if older is not None:
                self.size -= len(older)
        if len(self._frames) >= self._limit or self.size + len(frame) > MAX_QUEUED_BYTES:
            return False
        self.put_last_words(frame, replaces)
        return True

    def put_last_words(self, frame: bytes, replaces: str | None = None) -> None:
        """Queue `frame` whatever the limits say: for the close frame, after which nothing comes."""
        self._frames[next(self._serial) if replaces is None else replaces] = frame
        self.size += len(frame)

    def take(self, at_most: int) -> bytes:
        """The oldest frames joined: at least one if any waits, more while they fit into `at_most` bytes."""
        taken: list[bytes] = []
        room = at_most
        while self._frames:
            key = next(iter(self._frames))
            frame = self._frames[key]
            if taken and len(frame) > room:
                break
            del self._frames[key]
            taken.append(frame)
            room -= len(frame)
            self.size -= len(frame)
        return b"".join(taken)

    def clear(self) -> int:
        """Drop all that waits; returns how many frames that was."""
        dropped = len(self._frames)
        self._frames.clear()
        self.size = 0
        return dropped
