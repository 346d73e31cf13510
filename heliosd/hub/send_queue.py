"""What waits for one client: bounded by count and by bytes, in order, values conflated."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from heliosd.protocol.message import Kind, OutgoingMessage, deleted_metrics, merged, without_metrics

MAX_QUEUED_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DroppedMessages:
    """Events that a client will not get: `events` of them, from one number to another. Adjacent drops merge."""

    from_seq: int
    to_seq: int
    events: int

    def and_then(self, later: DroppedMessages) -> DroppedMessages:
        return DroppedMessages(self.from_seq, later.to_seq, self.events + later.events)


class SendQueue:
    """A queue of messages in which a newer value takes an older one's place at the end.

    The full case is `put` returning False: the message is not queued, and what that means is the caller's to
    say. Answers (`Kind.CONTROL`) can be taken alone, for a client whose token has expired.
    """

    __slots__ = ("_gap", "_limit", "_messages", "_serial", "size")

    def __init__(self, limit: int) -> None:
        # A dict keeps order; a value is keyed by its type, everything else by a number of its own.
        self._messages: dict[int | str, OutgoingMessage] = {}
        self._serial = count()
        self._limit = limit
        self._gap: tuple[int, DroppedMessages] | None = None
        self.size = 0
        """Bytes that wait."""

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: OutgoingMessage) -> bool:
        """Queue `message` at the end. False: full, and it is not queued.

        A value takes the place of an older one of its type; values of custom metrics merge by name, and the
        event of a metric's deletion removes the values that wait for it.
        """
        key: int | str = next(self._serial)
        if message.kind is Kind.VALUE or message.type in CONFLATED_FRAMES:
            key = message.type
            older = self._remove(key)
            if older is not None and key == "custom_metrics":
                message = merged(older, message)
        elif "custom_metrics" in self._messages and (deleted := deleted_metrics(message)):
            older = self._messages["custom_metrics"]
            rest = without_metrics(older, deleted)
            if rest is None:
                self._remove("custom_metrics")
            else:
                self._messages["custom_metrics"] = rest
                self.size += len(rest.payload) - len(older.payload)
        if len(self._messages) >= self._limit or self.size + len(message.payload) > MAX_QUEUED_BYTES:
            return False
        self._add(key, message)
        return True

    def put_final(self, message: OutgoingMessage) -> None:
        """Queue `message` whatever the limits say: for the close frame, after which nothing comes."""
        self._add(next(self._serial), message)

    def put_gap(self, gap: OutgoingMessage, dropped: DroppedMessages, status: OutgoingMessage) -> None:
        """Queue the news that events were dropped, and the status that takes their place."""
        key = next(self._serial)
        self._gap = key, dropped
        self._add(key, gap)
        self._add(next(self._serial), status)

    @property
    def untold(self) -> int:
        """Events that were dropped before, by a gap that has not gone out yet."""
        return self._gap[1].events if self._gap is not None and self._gap[0] in self._messages else 0

    def drop(self) -> DroppedMessages | None:
        """Drop all but answers; returns which events were among it, those of a gap not yet told included."""
        dropped: DroppedMessages | None = None
        if self._gap is not None and self._gap[0] in self._messages:
            dropped = self._gap[1]
            self._remove(self._gap[0])
        self._gap = None
        for key, message in list(self._messages.items()):
            if message.kind is Kind.CONTROL:
                continue
            self._remove(key)
            if message.seq is not None:
                one = DroppedMessages(message.seq, message.seq, 1)
                dropped = one if dropped is None else dropped.and_then(one)
        return dropped

    def pop(self, *, answers_only: bool = False) -> OutgoingMessage | None:
        """The oldest message that may go, removed; None if there is none.

        With `answers_only` everything but the client's own conversation stays: a gap belongs to the events.
        """
        if not answers_only:
            return self._remove(next(iter(self._messages))) if self._messages else None
        gap = self._gap[0] if self._gap is not None else None
        for key, message in self._messages.items():
            if message.kind is Kind.CONTROL and key != gap:
                return self._remove(key)
        return None

    def has(self, *, answers_only: bool = False) -> bool:
        """Whether `pop` would return something."""
        if not answers_only:
            return bool(self._messages)
        gap = self._gap[0] if self._gap is not None else None
        return any(m.kind is Kind.CONTROL and key != gap for key, m in self._messages.items())

    def clear(self) -> int:
        """Drop all that waits; returns how many messages that was."""
        dropped = len(self._messages)
        self._messages.clear()
        self._gap = None
        self.size = 0
        return dropped

    def _add(self, key: int | str, message: OutgoingMessage) -> None:
        self._messages[key] = message
        self.size += len(message.payload)

    def _remove(self, key: int | str) -> OutgoingMessage | None:
        message = self._messages.pop(key, None)
        if message is not None:
            self.size -= len(message.payload)
        return message


CONFLATED_FRAMES = frozenset({"ping frame", "pong frame"})
"""Protocol frames of which only the newest matters (RFC 6455 section 5.5.3)."""
