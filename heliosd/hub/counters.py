"""What the hub counts for `/metrics`: plain numbers that only grow, added to on the hot path, and its engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from heliosd.histogram import Histogram
from heliosd.protocol.message import OutgoingMessage

BROADCAST_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
LAG_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.00075,
    0.001,
    0.00125,
    0.0015,
    0.002,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
)


@dataclass(slots=True)
class HubCounters:
    """Totals since the daemon's start."""

    connections: Counter[str] = field(default_factory=Counter)
    """Upgrade requests by how they ended: `accepted`, `unauthenticated`, `forbidden`, `full`, `unread`,
    `malformed`."""
    messages: Counter[str] = field(default_factory=Counter)
    """Deliveries (message × client) by message type, counted as they leave the queue, or are written at once."""
    bytes: int = 0
    """Bytes of their frames; of an event stream, of the messages."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Events that clients did not get, by reason: `slow`, `write_timeout`, `epoch_changed`, `too_old`,
    `closed`."""
    broadcast: Histogram = field(default_factory=lambda: Histogram(BROADCAST_BUCKETS))
    """Seconds from the start of a fan-out until the last client had the message written or queued."""
    fanout_engine: str = "write"
    """What writes to clients, as `websocket.fanout` names it."""
    fanout_threads: int = 0
    """How many threads do it beside the loop's own."""
    loop_lag: Histogram = field(default_factory=lambda: Histogram(LAG_BUCKETS))
    """Seconds that a task which could run waits for its turn."""

    def count(self, messages: Iterable[OutgoingMessage], size: int, receivers: int = 1) -> None:
        """These went out, with so many bytes, to so many clients each."""
        for message in messages:
            self.messages[message.type] += receivers
        self.bytes += size * receivers
