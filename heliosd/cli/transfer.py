"""`heliosd transfer`: hand leadership to another member."""

from __future__ import annotations

import argparse
from contextlib import suppress

from heliosd.client.rest_client import RestClient
from heliosd.errors import AccessRefused, ErrorAnswer, Unreachable

from .options import add_output, add_target
from .report import Report
from .requests import run_report
from .status import fetch_cluster


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="MEMBER", nargs="?", help="its id or its name; default: the most advanced one"
    )
    add_output(parser)
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    return run_report(options, _ask)


async def _ask(rest: RestClient, options: argparse.Namespace) -> Report:
    body = {} if options.target is None else {"target": options.target}
    answer = await rest.post("/api/cluster/leadership/transfer", body)
    names: dict[str, str] = {}
    # It is done, also where its user may not read who that is, or heliosd ends now.
    with suppress(AccessRefused, ErrorAnswer, Unreachable):
        _status, cluster = await fetch_cluster(rest)
        names = {member.id: member.name for member in cluster.members}
    return Report(answer, text=f"{names.get(answer['leader'], answer['leader'])} leads")
