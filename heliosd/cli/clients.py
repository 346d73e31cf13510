"""`heliosd clients`: who is connected to this daemon; disconnecting one."""

from __future__ import annotations

import argparse

from heliosd.client.rest_client import RestClient

from .members_view import time_cell
from .options import Parser, add_output, add_target, add_verbs
from .report import Report, Table
from .requests import run_report

CLIENTS = "/api/cluster/clients"


def add_options(parser: argparse.ArgumentParser) -> None:
    verbs = {
        "list": ("Show who is connected.", _nothing),
        "disconnect": ("Close a client's connection; it may come again.", _client),
    }
    add_verbs(parser, verbs, default="list", reads={"list"}, shared=_shared)


def _shared(parser: Parser) -> None:
    add_output(parser, repeats=True)
    add_target(parser)


def _nothing(_: Parser) -> None:
    """It has no arguments."""


def _client(parser: Parser) -> None:
    parser.add_argument("id", metavar="CLIENT", help="its id in the list")


def run(options: argparse.Namespace) -> int:
    return run_report(options, _list if options.verb == "list" else _disconnect)


async def _list(rest: RestClient, _: argparse.Namespace) -> Report:
    answer = await rest.get(CLIENTS)
    rows = [
        [
            each["id"],
            each["user"],
            each["address"],
            each["transport"],
            time_cell(each["since"]),
            each["queue"],
            each["sent"],
            each["dropped"],
        ]
        for each in answer["clients"]
    ]
    columns = ["ID", "User", "Address", "By", "Since", "Queue", "Sent", "Dropped"]
    return Report(answer, [Table(columns, rows, f"Clients: {answer['total']}", ["Since", "By"])])


async def _disconnect(rest: RestClient, options: argparse.Namespace) -> Report:
    answer = await rest.delete(CLIENTS, id=options.id)
    return Report(answer, text=f"Client {answer['client_id']} disconnected")
