"""Changes under the prefix as items for the hub."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import Struct, field

from heliosd.protocol.events import LogReset, MetricValuesChanged
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.store.changes import LoggedEvent

from .keys import Part


class MirrorUpdate(Struct, frozen=True, kw_only=True):
    """What a reading or a batch of the watch has changed."""

    emitted: tuple[LoggedEvent | MetricValuesChanged | LogReset, ...] = ()
    """For the hub, in the order of revisions."""
    revoked: Mapping[str, float] = field(default_factory=dict)
    """Newly revoked tokens: `jti` -> expiry in Unix seconds."""
    changed: frozenset[Part] = frozenset()
    """The parts of the mirror that differ from before."""
    unreadable: tuple[bytes, ...] = ()
    """Keys whose values are not in heliosd's format; they are ignored."""


class UpdateBuilder:
    """Collects an update while a reading or a batch is applied."""

    def __init__(self, metric_revisions: Mapping[str, int] | None) -> None:
        self.metric_revisions = metric_revisions
        """The revisions of the metrics before; None: no value counts as changed."""
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
    """The event in these bytes. Raises one of `BAD_JSON`."""
    payload.decode()  # it is sent as text; the decoder does not look at the text of keys that it passes over
    emitted = _payload_decoder.decode(payload)
    return LoggedEvent(emitted.seq, emitted.timestamp.timestamp(), emitted.type, payload)


def newest(events: Mapping[int, LoggedEvent], seq: int, at_most: int) -> tuple[LoggedEvent, ...]:
    """The events up to `seq` without a hole, the newest `at_most` of them."""
    oldest = seq + 1
    while oldest - 1 in events and seq + 1 - oldest < at_most:
        oldest -= 1
    return tuple(events[each] for each in range(oldest, seq + 1))
