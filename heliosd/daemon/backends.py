"""The backend and the event log that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heliosd.clock import Instant
from heliosd.cluster.etcd.backend import EtcdBackend
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.simulated.backend import SimulatedBackend
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.cluster.uptime import UptimeTracker
from heliosd.config.model import Config
from heliosd.hub.local_log import LocalLog
from heliosd.hub.shared_log import ClusterLog
from heliosd.store.changes import Save, Saved
from heliosd.store.epoch_file import EpochFile


def backend_of(
    config: Config,
    directory: Path,
    saved: Saved,
    save: Save,
    now: Callable[[], Instant],
    revoked: Callable[[str, float], None],
) -> SimulatedBackend | EtcdBackend:
    """The configured backend. It calls `revoked` with tokens (`jti`, expiry) that another daemon revoked."""
    node_id = config.node.id
    if config.cluster.backend == "etcd":
        return EtcdBackend(
            node_id=node_id,
            config=config.cluster.etcd,
            history=config.history,
            directory=directory,
            saved=saved,
            save=save,
            revoked=revoked,
            now=now,
            buffer=config.websocket.broadcast_buffer,
        )
    simulated = config.cluster.simulated
    return SimulatedBackend(
        node_id=node_id,
        config=simulated,
        saved=saved,
        save=save,
        latency=LatencyTracker(),
        uptime=UptimeTracker(node_id, saved),
        snapshots=SnapshotTracker(
            node_id, saved, interval=simulated.snapshot_interval, threshold=simulated.snapshot_threshold
        ),
        now=now,
        buffer=config.websocket.broadcast_buffer,
    )


def log_of(config: Config, saved: Saved, save: Save, epoch_marker: EpochFile) -> LocalLog | ClusterLog:
    """The event log: this daemon's own, or the cluster's."""
    history = config.history
    if config.cluster.backend == "etcd":
        return ClusterLog(max_events=history.max_events, max_age=history.max_age)
    return LocalLog(
        saved, save=save, epoch_marker=epoch_marker, max_events=history.max_events, max_age=history.max_age
    )
