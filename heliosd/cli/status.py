"""`heliosd status`: the cluster as one node sees it, and with `--check` a verdict for scripts."""

from __future__ import annotations

import argparse

from heliosd.client.rest_client import RestClient

from .exits import OK, UNHEALTHY, print_error
from .members_view import Cluster, clock, cluster_of
from .options import add_output, add_target
from .report import Report
from .requests import run_report


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 5 and say why if there is no leader, the quorum is lost or at risk, or the view is stale",
    )
    add_output(parser, repeats=True)
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    return run_report(options, _ask)


async def fetch_cluster(rest: RestClient) -> tuple[dict[str, object], Cluster]:
    """The status as the daemon answers it, and as rows of members."""
    status = await rest.get("/api/cluster/status")
    peers = await rest.get("/api/cluster/peers")
    return status, cluster_of(status, peers["peers"])


async def _ask(rest: RestClient, options: argparse.Namespace) -> Report:
    status, cluster = await fetch_cluster(rest)
    problems = cluster.problems()
    if options.check:
        for problem in problems:
            print_error(f"{problem} (as {cluster.observed_by} sees it)")
    return Report(
        status,
        [cluster.members_table()],
        "\n".join(_summary(status, cluster)),
        UNHEALTHY if options.check and problems else OK,
    )


def _summary(status: dict[str, object], cluster: Cluster) -> list[str]:
    match status:
        case {
            "indices": {"commit_index": commit, "applied_index": applied},
            "sessions": {"active_count": clients},
            "uptime": uptime,
            "custom_metrics": {"total_metrics": metrics},
        }:
            seen = f"Seen by {cluster.observed_by} at {clock(cluster.observed_at, date=True)}"
            lines = [
                f"{seen}, up {uptime}",
                f"Commit {commit}, applied {applied}; {clients} connected, {metrics} metrics",
            ]
        case _:
            lines = []
    warnings = status.get("warnings")
    lines += [f"Warning: {warning}" for warning in warnings] if isinstance(warnings, list) else []
    return lines + [problem[:1].upper() + problem[1:] for problem in cluster.problems()]
