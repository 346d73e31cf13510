"""`heliosd members`: who is in the cluster; adding and removing a member."""

from __future__ import annotations

import argparse

from heliosd.client.rest_client import RestClient

from .options import Parser, add_output, add_target, add_verbs
from .report import Report
from .requests import run_report
from .status import fetch_cluster

PEERS = "/api/cluster/peers"


def add_options(parser: argparse.ArgumentParser) -> None:
    verbs = {
        "list": ("Show every member, the node that is asked among them.", _nothing),
        "add": ("Add a member.", _add_arguments),
        "remove": ("Remove a member.", _remove_arguments),
    }
    add_verbs(parser, verbs, default="list", reads={"list"}, shared=_shared)


def _shared(parser: Parser) -> None:
    add_output(parser, repeats=True)
    add_target(parser)


def _nothing(_: Parser) -> None:
    """It has no arguments."""


def _add_arguments(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="its id; with etcd its name, since etcd gives the id")
    parser.add_argument("address", metavar="ADDRESS", help="its HOST:PORT; with etcd its peer address")


def _remove_arguments(parser: Parser) -> None:
    parser.add_argument("id", metavar="MEMBER", help="its id or its name")


def run(options: argparse.Namespace) -> int:
    asks = {"list": _list, "add": _add, "remove": _remove}
    return run_report(options, asks[options.verb])


async def _list(rest: RestClient, _: argparse.Namespace) -> Report:
    _status, cluster = await fetch_cluster(rest)
    return Report(cluster.data(), [cluster.members_table()])


async def _add(rest: RestClient, options: argparse.Namespace) -> Report:
    answer = await rest.post(PEERS, {"id": options.id, "address": options.address})
    peer = answer["peer"]
    return Report(answer, text=f"Member {peer['id']} added at {peer['address']}")


async def _remove(rest: RestClient, options: argparse.Namespace) -> Report:
    answer = await rest.delete(PEERS, id=options.id)
    return Report(answer, text=f"Member {answer['peer_id']} removed")
