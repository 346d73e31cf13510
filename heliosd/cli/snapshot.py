"""`heliosd snapshot`: the newest snapshot and its statistics; taking one; the list of those before."""

from __future__ import annotations

import argparse

from heliosd.client.rest_client import RestClient

from .members_view import time_cell
from .options import Parser, add_output, add_target, add_verbs
from .report import Report, Table
from .requests import run_report

SNAPSHOT = "/api/cluster/snapshot"


def add_options(parser: argparse.ArgumentParser) -> None:
    verbs = {
        "show": ("Show the newest snapshot and the counters.", _nothing),
        "take": ("Take a snapshot now.", _nothing),
        "history": ("Show the snapshots so far, the newest first.", _nothing),
    }
    add_verbs(parser, verbs, default="show", reads={"show", "history"}, shared=_shared)


def _shared(parser: Parser) -> None:
    add_output(parser, repeats=True)
    add_target(parser)


def _nothing(_: Parser) -> None:
    """It has no arguments."""


def run(options: argparse.Namespace) -> int:
    asks = {"show": _show, "take": _take, "history": _history}
    return run_report(options, asks[options.verb])


async def _show(rest: RestClient, _: argparse.Namespace) -> Report:
    found = await rest.get(SNAPSHOT)
    newest = time_cell(found["latest_snapshot_time"])
    row = [
        found["latest_snapshot_id"],
        found["latest_snapshot_size"],
        newest,
        found["total_snapshots_created"],
        found["failed_creations"],
        found["snapshots_on_disk"],
    ]
    columns = ["Newest", "Bytes", "Taken", "Created", "Failed", "On disk"]
    text = "" if found["has_snapshot"] else "There is no snapshot yet; `heliosd snapshot take` takes one."
    return Report(found, [Table(columns, [row])], text)


async def _take(rest: RestClient, _: argparse.Namespace) -> Report:
    answer = await rest.post(SNAPSHOT)
    made = answer["snapshot"]
    return Report(answer, text=f"Snapshot {made['id']}: {made['size']} bytes")


async def _history(rest: RestClient, _: argparse.Namespace) -> Report:
    found = await rest.get(f"{SNAPSHOT}/history", events=1, snapshots=100)
    rows = [
        [
            each["id"],
            each["size"],
            time_cell(each["created_at"]),
            each["creation_duration"] / 1e6,
            each["entries_compacted"],
            each["leader_id"] if each["is_from_peer"] else each["node_id"],
        ]
        for each in found["snapshots"]
    ]
    columns = ["Snapshot", "Bytes", "Taken", "ms", "Compacted", "From"]
    return Report(found["snapshots"], [Table(columns, rows)])
