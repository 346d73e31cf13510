"""The documented answers, as shapes.

A dict is an object with exactly these keys in this order, `key?` one that may be missing, `*` any number of keys of
one shape, a list an array of one shape, None any plain value, `...` anything.
"""

from __future__ import annotations

from typing import Any

Shape = Any


def keys(text: str) -> dict[str, Shape]:
    return dict.fromkeys(text.split())


STATS = keys(
    "count last_value_ms min_value_ms max_value_ms avg_value_ms p50_value_ms p90_value_ms p99_value_ms "
    "std_dev_ms error_count last_error_unix?"
)
KINDS = dict.fromkeys(("append_entries", "request_vote", "install_snapshot", "probe"), STATS)
LATENCY = {
    "peers": {
        "*": {
            "peer_id": None,
            "address": None,
            **KINDS,
            "aggregated": STATS,
            **keys("last_contact last_contact_unix reachable consecutive_errors connection_healthy"),
        }
    },
    "aggregated": {**STATS, **KINDS},
    "health_summary": keys("healthy unhealthy total"),
}
UPTIME = {
    "node_id": None,
    "current_session": keys("start_time uptime_seconds uptime_formatted current_state state_since uptime_ms"),
    "historical": keys(
        "total_sessions total_uptime_seconds total_downtime_seconds uptime_percentage_24h uptime_percentage_7d "
        "uptime_percentage_30d uptime_percentage_all restarts crashes mtbf_seconds total_uptime_ms "
        "total_downtime_ms"
    ),
    "state_time": keys(
        "leader_seconds follower_seconds candidate_seconds leadership_ratio leader_ms follower_ms candidate_ms"
    ),
    "leadership": keys("elections_participated terms_as_leader current_term"),
    **keys("first_seen last_event"),
}
UPTIME_HISTORY = {
    "node_id": None,
    "recent_events": [
        keys("type timestamp state previous_state? term leader_id? reason? uptime_at_event"),
    ],
    "recent_sessions": [
        {
            **keys("session_id start_time end_time duration_seconds end_reason"),
            "states_visited": [None],
            "terms_seen": [None],
            **keys("is_current duration_ms"),
        }
    ],
    **keys("total_events total_sessions"),
}
SNAPSHOT = keys(
    "has_snapshot latest_snapshot_id latest_snapshot_index latest_snapshot_term latest_snapshot_size "
    "latest_snapshot_time latest_snapshot_age_ms latest_snapshot_age total_snapshots total_snapshots_created "
    "total_snapshots_received total_restores failed_creations failed_restores total_bytes_written "
    "total_entries_compacted avg_snapshot_size largest_snapshot_size avg_creation_time_ms max_creation_time_ms "
    "last_creation_time_ms avg_restore_time_ms last_restore_time_ms snapshot_interval_ms snapshot_interval "
    "snapshot_threshold retention_count time_since_last_snapshot_ms time_since_last_snapshot snapshots_on_disk"
)
SNAPSHOT_RECORD = keys(
    "id index term size created_at creation_duration node_id leader_id is_from_peer peer_count "
    "entries_compacted previous_index version"
)
SNAPSHOT_HISTORY = {
    "node_id": None,
    "events": [
        keys(
            "timestamp type snapshot_id index term size duration_ms success error_message? from_peer? "
            "entries_compacted?"
        )
    ],
    "snapshots": [SNAPSHOT_RECORD],
    **keys("total_events total_snapshots"),
}
METRIC = {
    **keys("name type help"),
    "labels": {"*": None},
    "value": None,
    "buckets?": [None],
    "bucket_counts?": [None],
    **keys("count? sum? created_at updated_at"),
}
METRICS = {
    **keys("total_metrics counter_metrics gauge_metrics histogram_metrics"),
    "metrics": {"*": METRIC},
}
STATUS = {
    "node": keys("id state term"),
    "leader": keys("id address is_leader"),
    "indices": keys("last_log last_log_term commit_index applied_index"),
    "peers": [
        {
            **keys("id address match_index? next_index?"),
            "latency": keys(
                "avg_latency_ms min_latency_ms max_latency_ms p50_latency_ms p90_latency_ms p99_latency_ms "
                "last_latency_ms sample_count error_count error_rate last_contact_unix reachable "
                "connection_healthy consecutive_errors"
            ),
            **keys("state voter applied_index?"),
        }
    ],
    "cluster_health": keys(
        "healthy_peers unhealthy_peers total_peers avg_cluster_latency_ms max_cluster_latency_ms "
        "cluster_error_rate"
    ),
    "sessions": {"active_count": None, "session_ids": [None]},
    "tls": keys("enabled verify_peer"),
    "uptime": None,
    "uptime_stats": keys(
        "current_uptime_ms current_uptime_str total_uptime_ms total_uptime_str total_sessions "
        "uptime_percentage_24h uptime_percentage_7d uptime_percentage_all total_restarts total_crashes "
        "leadership_ratio total_elections first_tracked_time current_uptime_seconds current_uptime_formatted "
        "mtbf_seconds leader_time_seconds"
    ),
    "snapshot": SNAPSHOT,
    "custom_metrics": METRICS,
    **keys("observed_by observed_at stale"),
}
PEERS = {"peers": [keys("id address state")]}
CLIENTS = {"clients": [keys("id user address since transport queue sent dropped")], "total": None}
ME = {"user_id": None, "roles": [None], "permissions": [None], "expires_at": None}
HISTORY = {
    **keys("epoch oldest_seq seq"),
    "events": [{**keys("type timestamp seq"), "data": ...}],
    "more": None,
}
SESSION = {"token": None, "user_id": None, "expires_at": None, "roles": [None]}


def check(shape: Shape, value: object, where: str = "answer") -> None:
    """Fail with the place where `value` is not of this shape."""
    match shape:
        case _ if shape is ...:
            pass
        case None:
            assert not isinstance(value, dict | list), where
        case [inner]:
            assert isinstance(value, list), where
            for index, item in enumerate(value):
                check(inner, item, f"{where}[{index}]")
        case {"*": inner}:
            assert isinstance(value, dict), where
            for key, item in value.items():
                check(inner, item, f"{where}.{key}")
        case dict():
            assert isinstance(value, dict), where
            wanted = [key.rstrip("?") for key in shape if not key.endswith("?") or key.rstrip("?") in value]
            assert list(value) == wanted, where
            for key, item in value.items():
                check(shape.get(key, shape.get(f"{key}?")), item, f"{where}.{key}")


SIMULATION = {
    "partitions": [[None]],
    "crashed": [None],
    **keys("loss latency_ms"),
    "paused": [None],
    "disk_latency_ms": {"*": None},
    "clock_rate": {"*": None},
    "clock_offset_ms": {"*": None},
    "nodes": [keys("id alive state term leader commit_index last_index")],
}
BY_PATH: dict[str, Shape] = {
    "/api/auth/me": ME,
    "/api/cluster/status": STATUS,
    "/api/cluster/peers": PEERS,
    "/api/cluster/latency": LATENCY,
    "/api/cluster/latency/matrix": {
        "members": {"*": {"*": keys("last_value_ms avg_value_ms max_value_ms count age_ms")}}
    },
    "/api/cluster/uptime": UPTIME,
    "/api/cluster/uptime/history": UPTIME_HISTORY,
    "/api/cluster/snapshot": SNAPSHOT,
    "/api/cluster/snapshot/history": SNAPSHOT_HISTORY,
    "/api/cluster/custom-metrics": METRICS,
    "/api/cluster/clients": CLIENTS,
    "/api/cluster/history": HISTORY,
    "/api/cluster/simulation": SIMULATION,
    "/api/cluster/permits": {"permits": []},
}
"""What a GET of each path under /api/ answers."""
