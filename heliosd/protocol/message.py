"""One outgoing message: its bytes, and what is derived from them once for all clients.

A message is made in `server_messages.py` or read from the event log. Here it is framed, compressed, filtered for a
subscription and merged with a newer one.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

import msgspec
from msgspec import Struct

from heliosd.websocket.deflate import MIN_COMPRESSED, deflate
from heliosd.websocket.frames import TEXT, frame, text_frame

from .message_cache import cached_up_to
from .subscription import NOTHING, Subscription, Topic

CACHED_BYTES = 512 * 1024
"""Of the payloads from which each of the caches below has something. What it has takes some ten times as much."""

_encode = msgspec.json.Encoder().encode


class Kind(Enum):
    """How a message is treated in the queue of a slow client."""

    EVENT = auto()
    """Queued in order, never merged."""
    VALUE = auto()
    """The present state of something; a newer one of its type replaces it."""
    STATUS = auto()
    """The whole state, the message `status`; queued like an event."""
    BOUNDARY = auto()
    """Says what the events around it mean (welcome, gap); keeps its place among them."""
    CONTROL = auto()
    """An answer or notice to one client, or a frame of the connection's own."""


class OutgoingMessage:
    """One message. Immutable, and shared by all clients that get it, so that each derived form is made once."""

    __slots__ = ("_deflated", "_frame", "at", "kind", "payload", "seq", "topic", "type")

    def __init__(
        self,
        type: str,  # noqa: A002 (the wire's word)
        kind: Kind,
        topic: Topic,
        payload: bytes,
        seq: int | None = None,
        at: float = 0.0,
    ) -> None:
        self.type = type
        self.kind = kind
        self.topic = topic
        """The topic that a client must be subscribed to; `NOTHING`: sent to every client."""
        self.payload = payload
        self.seq = seq
        """An event's number; None on everything else."""
        self.at = at
        """Unix seconds at which an event was numbered."""
        self._frame: bytes | None = None
        self._deflated: bytes | None = None

    @classmethod
    def of_frame(cls, name: str, frame: bytes) -> OutgoingMessage:
        """A protocol frame (ping, pong, close) to be queued with the messages, so that frames never interleave."""
        message = cls(name, Kind.CONTROL, NOTHING, b"")
        message._frame = frame
        return message

    @property
    def frame(self) -> bytes:
        """The message as a WebSocket frame."""
        if self._frame is None:
            self._frame = text_frame(self.payload)
        return self._frame

    @property
    def deflated(self) -> bytes:
        """The frame for clients with compression; short messages are not compressed."""
        if self._deflated is None:
            plain = len(self.payload) < MIN_COMPRESSED or self.kind in {Kind.CONTROL, Kind.BOUNDARY}
            self._deflated = self.frame if plain else frame(TEXT, deflate(self.payload), compressed=True)
        return self._deflated

    @property
    def data(self) -> dict[str, Any]:
        """`data` as on the wire. Callers must not change it."""
        return _data_of(self)

    def with_data(self, data: dict[str, Any]) -> OutgoingMessage:
        """The same message with other data."""
        envelope = msgspec.json.decode(self.payload)
        envelope["data"] = data
        return OutgoingMessage(self.type, self.kind, self.topic, _encode(envelope), self.seq, self.at)

    def filtered_for(self, subscription: Subscription) -> OutgoingMessage | None:
        """The message as a subscription lets it through; None if it does not. For live and replayed messages."""
        if not subscription.wants(self.topic):
            return None
        content_filter = subscription.filter_for(self.topic)
        if content_filter is None:
            return self
        whole = self.data
        data = content_filter.apply(whole)
        if data is whole:
            return self
        return None if data is None else self.with_data(data)


def _bytes_of(argument: OutgoingMessage | frozenset[str]) -> int:
    return len(argument.payload) if isinstance(argument, OutgoingMessage) else 0


@cached_up_to(128, CACHED_BYTES, _bytes_of)
def _data_of(message: OutgoingMessage) -> dict[str, Any]:
    """Cached for what is being sent, to clients with many filters. Not in the message: events are kept for long."""
    return msgspec.json.decode(message.payload, type=_Data).data


@cached_up_to(16, CACHED_BYTES, _bytes_of)
def merged(older: OutgoingMessage, newer: OutgoingMessage) -> OutgoingMessage:
    """Two values of custom metrics as one: of each metric the newer value.

    Cached for the last few pairs, since clients that are behind have the same messages in their queues.
    """
    return newer.with_data({**older.data, **newer.data})


@cached_up_to(16, CACHED_BYTES, _bytes_of)
def without_metrics(values: OutgoingMessage, names: frozenset[str]) -> OutgoingMessage | None:
    """Values of custom metrics without some of them; None if none is left."""
    kept = {name: view for name, view in values.data.items() if name not in names}
    return values.with_data(kept) if kept else None


def defined_metrics(event: OutgoingMessage) -> frozenset[str]:
    """The names of the metrics that a `custom_metrics` event registers or deletes."""
    if event.type != "custom_metrics" or event.kind is not Kind.EVENT:
        return frozenset()
    return frozenset(event.data)


def deleted_metrics(event: OutgoingMessage) -> frozenset[str]:
    """The names of the metrics that a `custom_metrics` event deletes."""
    if event.type != "custom_metrics" or event.kind is not Kind.EVENT:
        return frozenset()
    return frozenset(name for name, view in event.data.items() if view is None)


def replayed(*, seq: int, at: float, name: str, payload: bytes) -> OutgoingMessage:
    """An event as it was stored: the same bytes that were sent live. One of a type that only a newer heliosd
    knows is sent to every client."""
    return OutgoingMessage(name, Kind.EVENT, EVENT_TOPICS.get(name, NOTHING), payload, seq, at)


EVENT_TOPICS = {
    "state_change": Topic.STATE_CHANGES,
    "peer_change": Topic.PEER_CHANGES,
    "snapshot": Topic.SNAPSHOT,
    "custom_metrics": Topic.CUSTOM_METRICS,
}
"""Each type of event, and what a client must be subscribed to."""


class _Data(Struct, frozen=True):
    data: dict[str, Any] = {}
