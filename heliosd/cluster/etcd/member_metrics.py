"""What heliosd reads from a member's own `/metrics`: round trips, snapshots, its start, the size of its database.

Only the samples of Prometheus' text format 0.0.4 are read. Families that this version of etcd does not have, and
other lines, are ignored. Most values are only shown; `reachability.py` also sees in them that a member was started
anew, and the quota of its database.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct, field

ROUND_TRIP = "etcd_network_peer_round_trip_time_seconds"

_FAMILIES = (
    ROUND_TRIP,
    "etcd_server_is_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_debugging_snap_save_total_duration_seconds",
    "etcd_snap_db_save_total_duration_seconds",
    "etcd_mvcc_db_total_size_in_",
    "etcd_server_quota_backend_bytes",
    "process_start_time_seconds",
)
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+([^ \t]+)(?:[ \t]+-?[0-9]+)?[ \t]*")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"[ \t]*(?:,|$)')


class Sums(NamedTuple):
    """A histogram's sum of seconds and count of observations, since the member's start."""

    seconds: float = 0.0
    times: int = 0


NOTHING = Sums()


class Measured(Struct, frozen=True, kw_only=True):
    """What one member has counted since its start."""

    is_leader: bool = False
    leader_changes: int = 0
    """Since its start, as the member saw them."""
    round_trips: Mapping[str, Sums] = field(default_factory=dict)
    """Peer id -> the probes that this member sends to that peer."""
    snapshots_saved: Sums = NOTHING
    """Raft snapshots of its own state."""
    snapshots_received: Sums = NOTHING
    """Databases received from a leader."""
    started: float | None = None
    """Start of its process in Unix seconds."""
    db_size: int | None = None
    """Bytes of its database file."""
    db_in_use: int | None = None
    """Bytes of it in use, without free pages."""
    db_quota: int | None = None
    """Bytes that it may have."""


def measured(text: str) -> Measured:
    """Read one body of `/metrics`."""
    plain: dict[str, float] = {}
    seconds: dict[str, float] = {}
    counts: dict[str, float] = {}
    for line in text.splitlines():
        # The body is some 150 KB, of which a few lines are used.
        if not line.startswith(_FAMILIES):
            continue
        sample = _SAMPLE.fullmatch(line)
        value = None if sample is None else _number(sample[3])
        if sample is None or value is None:
            continue
        if not sample[2]:
            plain[sample[1]] = value
        elif sample[1] in (f"{ROUND_TRIP}_sum", f"{ROUND_TRIP}_count"):
            peer = _labels(sample[2]).get("To", "")
            (seconds if sample[1].endswith("_sum") else counts)[peer] = value

    def sums(family: str) -> Sums:
        return Sums(plain.get(f"{family}_sum", 0.0), int(plain.get(f"{family}_count", 0)))

    def whole(name: str) -> int | None:
        return int(plain[name]) if name in plain else None

    return Measured(
        is_leader=plain.get("etcd_server_is_leader") == 1,
        leader_changes=int(plain.get("etcd_server_leader_changes_seen_total", 0)),
        round_trips={
            peer: Sums(seconds[peer], int(counts[peer]))
            for peer in sorted(seconds.keys() & counts.keys())
            if peer
        },
        snapshots_saved=sums("etcd_debugging_snap_save_total_duration_seconds"),
        snapshots_received=sums("etcd_snap_db_save_total_duration_seconds"),
        started=plain.get("process_start_time_seconds"),
        db_size=whole("etcd_mvcc_db_total_size_in_bytes"),
        db_in_use=whole("etcd_mvcc_db_total_size_in_use_in_bytes"),
        db_quota=whole("etcd_server_quota_backend_bytes"),
    )


def _number(text: str) -> float | None:
    """A sample's value, if it is finite and not negative, as all values read here are."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _labels(text: str) -> dict[str, str]:
    """The labels between the braces. Those read here hold no escaped character."""
    return dict(_LABEL.findall(text))


def mean_since(before: Sums | None, after: Sums) -> float | None:
    """Mean seconds of the observations between two readings; None if there were none. Without a first reading, or
    if the member was restarted in between, the mean of all."""
    if before is None or after.times < before.times or after.seconds < before.seconds:
        before = Sums()
    counted = after.times - before.times
    return (after.seconds - before.seconds) / counted if counted else None


class RoundTrips:
    """The mean round trips between two readings of one member."""

    def __init__(self) -> None:
        self._member = ""
        self._before: Mapping[str, Sums] = {}

    def since_last(self, member: str, measured: Measured) -> dict[str, float | None]:
        """Mean seconds by peer id since the last call; None: nothing was counted.

        The mean of all where the last call was of another member, which has counted by itself: a heliosd without a
        member of its own reads the leader's.
        """
        before = self._before if member == self._member else {}
        self._member, self._before = member, measured.round_trips
        return {peer: mean_since(before.get(peer), sums) for peer, sums in measured.round_trips.items()}
