"""The JSON shapes of latency: `GET …/latency`, and `latency` and `cluster_health` of the status."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

AddressKind = Literal["client", "peer"]
"""With etcd: whether an address is a member's for its clients, or, while none is known, the one for its peers."""


class Stats(Struct, frozen=True, kw_only=True):
    """STATS of `GET …/latency`. Every value is 0 while there is no sample."""

    count: int
    """Number of samples: at most 100 for each kind and peer."""
    last_value_ms: float
    min_value_ms: float
    max_value_ms: float
    avg_value_ms: float
    p50_value_ms: float
    p90_value_ms: float
    p99_value_ms: float
    std_dev_ms: float
    """Population standard deviation."""
    error_count: int
    """Failed calls since the start or the last reset."""
    last_error_unix: int | UnsetType = UNSET


class KindStats(Stats, frozen=True, kw_only=True):
    """The outer `aggregated`: all peers and kinds together, and each kind under its name."""

    append_entries: Stats
    request_vote: Stats
    install_snapshot: Stats
    probe: Stats


class PeerReport(Struct, frozen=True, kw_only=True):
    """One peer in `GET …/latency`."""

    peer_id: str
    address: str
    address_kind: AddressKind | UnsetType = UNSET
    append_entries: Stats
    request_vote: Stats
    install_snapshot: Stats
    probe: Stats
    aggregated: Stats
    last_contact: str | None
    """RFC 3339; None before the first answer."""
    last_contact_unix: int
    """Unix seconds; 0 before the first answer."""
    reachable: bool
    consecutive_errors: int
    connection_healthy: bool
    peer_round_trip_ms: float | UnsetType = UNSET
    """With etcd: the recent mean of the round trips that a member measured to this one."""


class HealthSummary(Struct, frozen=True):
    healthy: int
    unhealthy: int
    total: int


class LatencyReport(Struct, frozen=True):
    """`GET …/latency`."""

    peers: dict[str, PeerReport]
    aggregated: KindStats
    health_summary: HealthSummary


class LatencyCell(Struct, frozen=True, kw_only=True):
    """The round trips that one member measured to another, over at most 100."""

    last_value_ms: float
    avg_value_ms: float
    max_value_ms: float
    count: int
    age_ms: int
    """How old the last one is."""


class LatencyMatrixReport(Struct, frozen=True):
    """`GET …/latency/matrix`: who measured, to whom."""

    members: dict[str, dict[str, LatencyCell]]


class PeerLatency(Struct, frozen=True, kw_only=True):
    """The `latency` of a peer in `GET …/status`, over all kinds of calls."""

    avg_latency_ms: float
    min_latency_ms: float
    max_latency_ms: float
    p50_latency_ms: float
    p90_latency_ms: float
    p99_latency_ms: float
    last_latency_ms: float
    sample_count: int
    error_count: int
    error_rate: float
    """Share of the calls since the start or the last reset that failed, 0..1."""
    last_contact_unix: int
    reachable: bool
    """The last call was answered, and that within 30 s."""
    connection_healthy: bool
    """Fewer than 3 failed calls in a row and no silence of 30 s."""
    consecutive_errors: int


class ClusterHealth(Struct, frozen=True, kw_only=True):
    """`cluster_health` of `GET …/status`, over all peers."""

    healthy_peers: int
    unhealthy_peers: int
    total_peers: int
    avg_cluster_latency_ms: float
    max_cluster_latency_ms: float
    cluster_error_rate: float
    """As `PeerLatency.error_rate`."""
