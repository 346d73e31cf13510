"""The `data` of `subscribe` as JSON shapes, for descriptions.

`Subscription.parse` reads it, and names what is wrong.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from heliosd.raft.roles import Role

from .events import PeerEvent
from .filters import MAX_MIN_INTERVAL, MAX_PATTERN_LENGTH, MAX_PATTERNS

Glob = Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN_LENGTH)]
Globs = Annotated[list[Glob], Meta(min_length=1, max_length=MAX_PATTERNS)] | UnsetType
Seconds = Annotated[float, Meta(gt=0, le=MAX_MIN_INTERVAL)] | UnsetType


class ValueOptions(Struct, frozen=True):
    """How often values are wanted."""

    min_interval: Seconds = UNSET
    """At least so many seconds between two; the newest value is never lost."""


class LatencyOptions(ValueOptions, frozen=True):
    """`latency` of some peers."""

    peers: Globs = UNSET
    """Ids, with `*`, `?` and `[…]`."""


class MetricsOptions(ValueOptions, frozen=True):
    """`custom_metrics` of some names and labels."""

    names: Globs = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    """All of these must be equal."""


class StateOptions(Struct, frozen=True):
    """`state_changes` to some states."""

    states: Annotated[list[Role], Meta(min_length=1, max_length=MAX_PATTERNS)] | UnsetType = UNSET


class PeerOptions(Struct, frozen=True):
    """`peer_changes` of some peers, or of some kinds."""

    peers: Globs = UNSET
    events: Annotated[list[PeerEvent], Meta(min_length=1, max_length=MAX_PATTERNS)] | UnsetType = UNSET


class NoFilter(Struct, frozen=True):
    """All of it."""


class SubscribeData(Struct, frozen=True, forbid_unknown_fields=True):
    """Each topic: true, false, or an object that says what of it is wanted."""

    status: bool | ValueOptions = False
    latency: bool | LatencyOptions = False
    uptime: bool | ValueOptions = False
    snapshot: bool | NoFilter = False
    custom_metrics: bool | MetricsOptions = False
    state_changes: bool | StateOptions = False
    peer_changes: bool | PeerOptions = False
