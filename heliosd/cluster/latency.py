"""Latency and health of every peer, as measured from this node.

For samples, percentiles and units see `call_stats`. Error counts and rates start with the daemon or the last reset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from msgspec import UNSET, UnsetType, structs

from heliosd.clock import Instant, rfc3339
from heliosd.errors import NotFound
from heliosd.histogram import Histogram
from heliosd.protocol.views.latency import (
    AddressKind,
    ClusterHealth,
    HealthSummary,
    KindStats,
    LatencyReport,
    PeerLatency,
    PeerReport,
    Stats,
)

from .call_stats import CallRecord, error_rate, stats_of
from .latency_matrix import LatencyMatrix

RpcKind = Literal["append_entries", "request_vote", "install_snapshot", "probe"]
KINDS: tuple[RpcKind, ...] = get_args(RpcKind)

ERRORS_UNTIL_UNHEALTHY = 3
SILENCE_UNTIL_UNHEALTHY_SECONDS = 30.0

_ALL = ""  # no peer has this id


class HealthChanged(NamedTuple):
    """A peer's health changed to `healthy`."""

    peer_id: str
    healthy: bool


class _Peer:
    """One peer. `heard` starts as the time it was added, so that it has 30 s to answer."""

    __slots__ = (
        "address",
        "address_kind",
        "calls",
        "errors_in_row",
        "healthy",
        "heard",
        "last_contact",
        "round_trip",
    )

    def __init__(self, address: str, now: Instant) -> None:
        self.address = address
        self.address_kind: AddressKind | UnsetType = UNSET
        self.calls: dict[RpcKind, CallRecord] = {kind: CallRecord() for kind in KINDS}
        self.heard = now.mono
        self.last_contact: float | None = None
        self.errors_in_row = 0
        self.healthy = True
        self.round_trip: float | None = None

    def silent(self, now: Instant) -> bool:
        return now.mono - self.heard >= SILENCE_UNTIL_UNHEALTHY_SECONDS

    def healthy_at(self, now: Instant) -> bool:
        return self.errors_in_row < ERRORS_UNTIL_UNHEALTHY and not self.silent(now)

    def reachable_at(self, now: Instant) -> bool:
        return self.last_contact is not None and self.errors_in_row == 0 and not self.silent(now)


class CallTotals(NamedTuple):
    """Calls of one kind to one peer, since it was added; never reset."""

    peer_id: str
    kind: RpcKind
    seconds: Histogram
    """Of the answered calls."""
    errors: int


class PeerHealth(NamedTuple):
    """A peer's health as `/metrics` shows it."""

    peer_id: str
    healthy: bool
    silent_seconds: float
    """Since the last answer, or since the peer was added."""
    consecutive_errors: int


class LatencyTracker:
    """Latency and health of every peer.

    A peer is unhealthy after 3 failed calls in a row or 30 s without an answer, and healthy again on the next
    answer. Silence is measured on `now.mono`, so a jump of the wall clock makes no peer unhealthy.
    """

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._cached: dict[str, tuple[Stats, float]] = {}
        """Cache of `_summed` until the next call: a status is made more often than peers are called."""
        self.matrix = LatencyMatrix()
        """What members measured to each other."""

    def add_peer(
        self, peer_id: str, address: str, now: Instant, kind: AddressKind | UnsetType = UNSET
    ) -> None:
        """Measure this peer from now on; it starts healthy. A known peer only gets the new address."""
        known = self._peers.get(peer_id)
        if known is None:
            known = self._peers[peer_id] = _Peer(address, now)
            self._cached.clear()
        known.address, known.address_kind = address, kind

    def remove_peer(self, peer_id: str) -> None:
        """Forget this peer and all its measurements; an unknown one is ignored."""
        self._peers.pop(peer_id, None)
        self.matrix.forget(peer_id)
        self._cached.clear()

    def succeeded(self, peer_id: str, kind: RpcKind, seconds: float, now: Instant) -> HealthChanged | None:
        """A call was answered after `seconds`. An unknown peer is ignored: it may have been removed."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return None
        self._cached.clear()
        calls = peer.calls[kind]
        calls.samples.append(seconds)
        calls.seconds.observe(seconds)
        calls.last_answer = now.mono
        peer.heard, peer.last_contact = now.mono, now.wall
        peer.errors_in_row = 0
        if peer.healthy:
            return None
        peer.healthy = True
        return HealthChanged(peer_id, healthy=True)

    def failed(
        self, peer_id: str, kind: RpcKind, now: Instant, *, overtaken: bool = False
    ) -> HealthChanged | None:
        """A call was not answered. An unknown peer is ignored. `overtaken`: a call that was made later has been
        answered, so that this one is an error, but says nothing of the peer's health."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return None
        self._cached.clear()
        calls = peer.calls[kind]
        calls.errors += 1
        calls.last_error = now.wall
        if overtaken:
            return None
        peer.errors_in_row += 1
        return self._health_change(peer_id, peer, now)

    def skip(self, seconds: float) -> None:
        """This process did not run for so long: that was no silence of the peers."""
        for peer in self._peers.values():
            peer.heard += seconds

    def silent_seconds(self, peer_id: str, now: Instant) -> float | None:
        """Since the peer's last answer, or since it was added; None: unknown."""
        peer = self._peers.get(peer_id)
        return None if peer is None else now.mono - peer.heard

    def round_trip(self, member: str, peer_id: str, seconds: float | None, now: Instant) -> None:
        """The mean round trip to the peer that `member` measured; None: no new one, the last stays valid (etcd
        measures every 30 s)."""
        peer = self._peers.get(peer_id)
        if peer is not None and seconds is not None:
            peer.round_trip = seconds
            self.matrix.add(member, peer_id, seconds, now)

    def check(self, now: Instant) -> list[HealthChanged]:
        """The peers that have not answered for too long; call it about once a second."""
        changes = (self._health_change(peer_id, peer, now) for peer_id, peer in self._peers.items())
        return [change for change in changes if change is not None]

    def _health_change(self, peer_id: str, peer: _Peer, now: Instant) -> HealthChanged | None:
        if not peer.healthy or peer.healthy_at(now):
            return None
        peer.healthy = False
        return HealthChanged(peer_id, healthy=False)

    def peer_latency(self, peer_id: str, now: Instant) -> PeerLatency:
        """One peer as `status` shows it. Raises `NotFound` (field `peer_id`)."""
        peer = self._known(peer_id)
        stats, rate = self._summed(peer_id)
        return PeerLatency(
            avg_latency_ms=stats.avg_value_ms,
            min_latency_ms=stats.min_value_ms,
            max_latency_ms=stats.max_value_ms,
            p50_latency_ms=stats.p50_value_ms,
            p90_latency_ms=stats.p90_value_ms,
            p99_latency_ms=stats.p99_value_ms,
            last_latency_ms=stats.last_value_ms,
            sample_count=stats.count,
            error_count=stats.error_count,
            error_rate=rate,
            last_contact_unix=int(peer.last_contact or 0),
            reachable=peer.reachable_at(now),
            connection_healthy=peer.healthy_at(now),
            consecutive_errors=peer.errors_in_row,
        )

    def cluster_health(self, now: Instant) -> ClusterHealth:
        peers = list(self._peers.values())
        summary = _summary(peers, now)
        stats, rate = self._summed()
        return ClusterHealth(
            healthy_peers=summary.healthy,
            unhealthy_peers=summary.unhealthy,
            total_peers=summary.total,
            avg_cluster_latency_ms=stats.avg_value_ms,
            max_cluster_latency_ms=stats.max_value_ms,
            cluster_error_rate=rate,
        )

    def report(self, now: Instant) -> LatencyReport:
        """`GET …/latency`."""
        peers = list(self._peers.values())
        return LatencyReport(
            peers={name: _peer_report(name, peer, now) for name, peer in self._peers.items()},
            aggregated=_kind_stats(peers),
            health_summary=_summary(peers, now),
        )

    def peer_report(self, peer_id: str, now: Instant) -> PeerReport:
        """`GET …/latency?peer_id=`. Raises `NotFound` (field `peer_id`)."""
        return _peer_report(peer_id, self._known(peer_id), now)

    def reset(self) -> None:
        """Forget samples and error counts. Health and the totals for `/metrics` stay."""
        self._cached.clear()
        for peer in self._peers.values():
            for calls in peer.calls.values():
                calls.reset()

    def call_totals(self) -> list[CallTotals]:
        """Per peer and kind, since the peer was added. Do not change the histograms."""
        return [
            CallTotals(peer_id, kind, calls.seconds, calls.errors)
            for peer_id, peer in self._peers.items()
            for kind, calls in peer.calls.items()
        ]

    def peer_health(self, now: Instant) -> list[PeerHealth]:
        return [
            PeerHealth(peer_id, peer.healthy_at(now), max(0.0, now.mono - peer.heard), peer.errors_in_row)
            for peer_id, peer in self._peers.items()
        ]

    def _summed(self, peer_id: str | None = None) -> tuple[Stats, float]:
        """Statistics and error rate of one peer's calls, or of all peers'."""
        name = peer_id or _ALL
        if name not in self._cached:
            peers = self._peers.values() if peer_id is None else [self._peers[peer_id]]
            calls = _all_calls(peers)
            self._cached[name] = stats_of(calls), error_rate(calls)
        return self._cached[name]

    def _known(self, peer_id: str) -> _Peer:
        try:
            return self._peers[peer_id]
        except KeyError:
            raise NotFound("Unknown peer", field="peer_id") from None


def _all_calls(peers: Iterable[_Peer]) -> list[CallRecord]:
    return [calls for peer in peers for calls in peer.calls.values()]


def _kind_stats(peers: Sequence[_Peer]) -> KindStats:
    def of(kind: RpcKind) -> Stats:
        return stats_of([peer.calls[kind] for peer in peers])

    return KindStats(
        **structs.asdict(stats_of(_all_calls(peers))),
        append_entries=of("append_entries"),
        request_vote=of("request_vote"),
        install_snapshot=of("install_snapshot"),
        probe=of("probe"),
    )


def _peer_report(peer_id: str, peer: _Peer, now: Instant) -> PeerReport:
    return PeerReport(
        peer_id=peer_id,
        address=peer.address,
        address_kind=peer.address_kind,
        append_entries=stats_of([peer.calls["append_entries"]]),
        request_vote=stats_of([peer.calls["request_vote"]]),
        install_snapshot=stats_of([peer.calls["install_snapshot"]]),
        probe=stats_of([peer.calls["probe"]]),
        aggregated=stats_of(list(peer.calls.values())),
        last_contact=None if peer.last_contact is None else rfc3339(peer.last_contact),
        last_contact_unix=int(peer.last_contact or 0),
        reachable=peer.reachable_at(now),
        consecutive_errors=peer.errors_in_row,
        connection_healthy=peer.healthy_at(now),
        peer_round_trip_ms=UNSET if peer.round_trip is None else round(peer.round_trip * 1000, 3),
    )


def _summary(peers: Sequence[_Peer], now: Instant) -> HealthSummary:
    healthy = sum(peer.healthy_at(now) for peer in peers)
    return HealthSummary(healthy=healthy, unhealthy=len(peers) - healthy, total=len(peers))
