"""What Helios' documents and structs say of each field of each answer of `/admin/cluster/…`.

int is Go's int64, which takes no point, float its float64; a list has items of one shape.
"""

from __future__ import annotations

from typing import Any

STATS = dict.fromkeys(("count", "error_count"), int) | dict.fromkeys(
    [f"{name}_value_ms" for name in ("last", "min", "max", "avg", "p50", "p90", "p99")] + ["std_dev_ms"],
    float,
)
PEER = {
    **dict.fromkeys(("peer_id", "address", "last_contact"), str),
    **dict.fromkeys(("append_entries", "request_vote", "install_snapshot", "aggregated"), STATS),
    **dict.fromkeys(("last_contact_unix", "consecutive_errors"), int),
    **dict.fromkeys(("reachable", "connection_healthy"), bool),
}
METRIC = {
    **dict.fromkeys(("name", "type", "help", "created_at", "updated_at"), str),
    "value": float,
    "labels": {},
}
PERCENTAGES = dict.fromkeys([f"uptime_percentage_{period}" for period in ("24h", "7d", "all")], float)
TYPES: dict[str, Any] = {
    "uptime": {
        "node_id": str,
        "current_session": {
            "start_time": str,
            "uptime_seconds": int,
            "uptime_formatted": str,
            "current_state": str,
        },
        "historical": {
            **dict.fromkeys(("total_sessions", "total_uptime_seconds", "total_downtime_seconds"), int),
            **dict.fromkeys(("restarts", "crashes", "mtbf_seconds"), int),
            **PERCENTAGES,
        },
        "state_time": {
            **dict.fromkeys(("leader_seconds", "follower_seconds", "candidate_seconds"), int),
            "leadership_ratio": float,
        },
        "leadership": dict.fromkeys(("elections_participated", "terms_as_leader", "current_term"), int),
    },
    "uptime/history": {
        "recent_events": [{"type": str, "timestamp": str, "state": str, "term": int, "uptime_at_event": int}],
        "recent_sessions": [
            {
                "session_id": str,
                "duration_seconds": int,
                "states_visited": [str],
                "terms_seen": [int],
                "is_current": bool,
            }
        ],
        **dict.fromkeys(("total_events", "total_sessions"), int),
    },
    "latency": {
        "peers": {"node-2": PEER},
        "aggregated": STATS,
        "health_summary": dict.fromkeys(("healthy", "unhealthy", "total"), int),
    },
    "latency?peer_id=node-2": PEER,
    "snapshot": {
        "has_snapshot": bool,
        **dict.fromkeys(
            [f"latest_snapshot_{name}" for name in ("index", "term", "size", "age_ms")]
            + ["total_snapshots", "total_bytes_written", "avg_snapshot_size", "snapshots_on_disk"],
            int,
        ),
        **dict.fromkeys(("avg_creation_time_ms", "max_creation_time_ms"), float),
    },
    "snapshot/history": {
        "events": [
            {"type": str, "index": int, "term": int, "size": int, "duration_ms": float, "success": bool}
        ],
        "snapshots": [{"id": str, "index": int, "term": int, "size": int, "creation_duration": int}],
    },
    "metrics": {
        **dict.fromkeys([f"{kind}_metrics" for kind in ("total", "counter", "gauge", "histogram")], int),
        "metrics": {"g": METRIC, "h": {**METRIC, "buckets": [float]}},
    },
    "metrics?name=h": {**METRIC, "buckets": [float]},
    "status": {
        "node": {"id": str, "state": str, "term": int},
        "indices": dict.fromkeys(("last_log", "last_log_term", "commit_index", "applied_index"), int),
        "uptime": str,
        "uptime_stats": {
            **dict.fromkeys(
                ("current_uptime_ms", "total_uptime_ms", "total_sessions", "total_restarts"), int
            ),
            **dict.fromkeys(
                ("total_crashes", "current_uptime_seconds", "mtbf_seconds", "leader_time_seconds"), int
            ),
            **dict.fromkeys(("current_uptime_str", "total_uptime_str", "current_uptime_formatted"), str),
            "leadership_ratio": float,
            **PERCENTAGES,
        },
        "sessions": {"active_count": int},
    },
    "peers": {"peers": [{"id": str, "address": str, "state": str}]},
}


def go_type(kind: Any) -> str:
    """As a type of Go. Every field is a pointer, which stays nil if the answer does not have it."""
    match kind:
        case dict():
            fields = (
                f'F{i} *{go_type(inner)} `json:"{name}"`' for i, (name, inner) in enumerate(kind.items())
            )
            return f"struct {{ {'; '.join(fields)} }}"
        case [inner]:
            return f"[]{go_type(inner)}"
    return {int: "int64", float: "float64", str: "string", bool: "bool"}[kind]


def go_program() -> str:
    """A program that decodes `{"PATH": ANSWER, …}` from its standard input with Go's encoding/json, and prints each
    field that does not fit or is missing."""
    checks = "\n".join(
        f"    {{ var v {go_type(kind)}; check({path!r}, answers, &v) }}".replace("'", '"')
        for path, kind in TYPES.items()
    )
    return GO_PROGRAM.replace("CHECKS", checks)


GO_PROGRAM = """
package main

import (
    "encoding/json"
    "fmt"
    "os"
    "reflect"
)

func check(path string, answers map[string]json.RawMessage, into interface{}) {
    if err := json.Unmarshal(answers[path], into); err != nil {
        fmt.Println(path, err)
        return
    }
    missing(path, reflect.ValueOf(into).Elem())
}

func missing(where string, v reflect.Value) {
    switch v.Kind() {
    case reflect.Ptr:
        if v.IsNil() {
            fmt.Println(where, "is missing")
        } else {
            missing(where, v.Elem())
        }
    case reflect.Struct:
        for i := 0; i < v.NumField(); i++ {
            missing(where+"."+v.Type().Field(i).Tag.Get("json"), v.Field(i))
        }
    case reflect.Slice:
        if v.Len() == 0 {
            fmt.Println(where, "is empty")
        }
        for i := 0; i < v.Len(); i++ {
            missing(fmt.Sprintf("%s[%d]", where, i), v.Index(i))
        }
    }
}

func main() {
    answers := map[string]json.RawMessage{}
    if err := json.NewDecoder(os.Stdin).Decode(&answers); err != nil {
        panic(err)
    }
CHECKS
}
"""
