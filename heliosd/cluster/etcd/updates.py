"""What a node learns from etcd, in the words of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import Struct

from heliosd.protocol.events import LogReset, MetricValuesChanged
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.store.changes import LoggedEvent

from .keys import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorUpdate:
    """What a reading or a batch of the watch brought."""

    emitted: tuple[LoggedEvent | MetricValuesChanged | LogReset, ...] = ()
    """For the hub, in the order of revisions."""
    revoked: Mapping[str, float] = field(default_factory=dict)
    """Tokens that were revoked anew: `jti` -> Unix seconds."""
    changed: frozenset[Part] = frozenset()
    """The parts of the mirror that differ from before."""
    unreadable: tuple[bytes, ...] = ()
    """Keys whose values are none of heliosd's; they are passed over."""


class UpdateBuilder:
    """What comes together while a reading or a batch is taken over."""

    def __init__(self, metric_revisions: Mapping[str, int] | None) -> None:
        self.metric_revisions = metric_revisions
        """What is known of the metrics' values before; None: no value is news."""
        self.emitted: list[LoggedEvent | MetricValuesChanged | LogReset] = []
        self.events: dict[int, LoggedEvent] = {}
        self.moved: dict[str, MetricView] = {}
        self.revoked: dict[str, float] = {}
        self.unreadable: list[bytes] = []

    def news(self, changed: set[Part]) -> MirrorUpdate:
        return MirrorUpdate(
            emitted=tuple(self.emitted),
            revoked=self.revoked,
            changed=frozenset(changed),
            unreadable=tuple(self.unreadable),
        )


class _Payload(Struct):
    type: str
    timestamp: datetime
    seq: int


_payload_decoder = msgspec.json.Decoder(_Payload)


def logged(payload: bytes) -> LoggedEvent:
    """The event that these bytes tell. Raises `msgspec.MsgspecError`."""
    emitted = _payload_decoder.decode(payload)
    return LoggedEvent(emitted.seq, emitted.timestamp.timestamp(), emitted.type, payload)


def newest(events: Mapping[int, LoggedEvent], seq: int, at_most: int) -> tuple[LoggedEvent, ...]:
    """The events that end with `seq`, without a hole."""
    oldest = seq + 1
    while oldest - 1 in events and seq + 1 - oldest < at_most:
        oldest -= 1
    return tuple(events[each] for each in range(oldest, seq + 1))
