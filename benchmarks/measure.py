"""One measurement: a started server on one CPU, the load client on another, and what a delivery cost."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .servers import Running

WARMUP_SECONDS = 1.0
SLACK_SECONDS = 45.0
"""The load client bounds itself (30 s to connect everyone); this is for when it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one server did in one round."""

    cpu_us: float
    """The server's CPU time a delivery in microseconds, user and system, without what it costs when idle."""
    p50_ms: float
    p99_ms: float
    rss_kib: float
    """Resident memory a connection, above that of the server with no client."""
    accepts: float
    """Connections upgraded a second."""
    message_bytes: int
    """Mean payload of the messages received."""
    idle_percent: float
    """Of its CPU, with no client."""
    share_delivered: float
    """Messages received over the status messages due; above 1 when there are messages of other types."""


class LoadFailed(Exception):
    """The load client could not measure; the text is what it said."""


def measure(
    load: Path,
    server: Running,
    *,
    cpu: int,
    clients: int,
    seconds: float,
    interval: float,
    deflate: bool = False,
) -> Sample:
    """Measures the idle server for `seconds`, then with `clients` for as long; with `deflate` they take
    compression, and the latencies are those of the messages that came plain, -1 without any.

    Raises LoadFailed when a client is refused or lost, or when nothing arrives.
    """
    idle = _run(load, server, cpu, 0, seconds)
    busy = _run(load, server, cpu, clients, seconds, deflate=deflate)
    deliveries = busy["deliveries"]
    if not deliveries or busy["stampless"]:
        raise LoadFailed(
            f"{server.name}: {deliveries} messages, {busy['stampless']} of them without a timestamp"
        )
    idle_share = idle["cpu_seconds"] / idle["seconds"]
    return Sample(
        cpu_us=(busy["cpu_seconds"] - idle_share * busy["seconds"]) / deliveries * 1e6,
        p50_ms=busy["p50_ms"],
        p99_ms=busy["p99_ms"],
        rss_kib=(busy["resident_after"] - busy["resident_before"]) / clients / 1024,
        accepts=clients / busy["connect_seconds"],
        message_bytes=round(busy["payload_bytes"] / deliveries),
        idle_percent=idle_share * 100,
        share_delivered=deliveries / (clients * busy["seconds"] / interval),
    )


def _run(
    load: Path, server: Running, cpu: int, clients: int, seconds: float, *, deflate: bool = False
) -> dict[str, Any]:
    command = [str(load), server.address, str(clients), str(WARMUP_SECONDS), str(seconds), str(server.pid)]
    done = subprocess.run(
        ["taskset", "-c", str(cpu), *command],
        # The target holds a token: the environment, unlike the arguments, is for this user's eyes only.
        env={**os.environ, "LOAD_TARGET": server.target, **({"LOAD_DEFLATE": "1"} if deflate else {})},
        capture_output=True,
        text=True,
        timeout=seconds + SLACK_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        reason = done.stderr.strip() or f"the load client ended with {done.returncode}"
        raise LoadFailed(f"{server.name}: {reason}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report
