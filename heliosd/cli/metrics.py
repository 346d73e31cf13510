"""`heliosd metrics`: the custom metrics; registering, changing and deleting one."""

from __future__ import annotations

import argparse
import math

from heliosd.client.rest_client import RestClient

from .members_view import time_cell
from .options import Parser, add_output, add_target, add_verbs
from .report import Cell, Report, Table, number_text
from .requests import run_report

METRICS = "/api/cluster/custom-metrics"


def add_options(parser: argparse.ArgumentParser) -> None:
    verbs = {
        "list": ("Show all metrics, or those that are named.", _names),
        "register": ("Register a metric.", _registration),
        "set": ("Set a gauge.", _value),
        "inc": ("Add to a counter.", _delta),
        "observe": ("Add an observation to a histogram.", _value),
        "delete": ("Delete a metric.", _name),
    }
    add_verbs(parser, verbs, default="list", reads={"list"}, shared=_shared)


def _shared(parser: Parser) -> None:
    add_output(parser, repeats=True)
    add_target(parser)


def _name(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME")


def _names(parser: Parser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*")


def _value(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("value", metavar="VALUE", type=_number)


def _delta(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("delta", metavar="DELTA", type=_number, nargs="?", default=1)


def _registration(parser: Parser) -> None:
    _name(parser)
    parser.add_argument("type", metavar="TYPE", choices=("counter", "gauge", "histogram"))
    parser.add_argument("--help-text", metavar="TEXT", default="", help="what it counts")
    parser.add_argument("--label", metavar="NAME=VALUE", type=_label, action="append", default=[])
    parser.add_argument("--ttl", metavar="TIME", help="delete it when not written to for so long: 90s, 5m")
    parser.add_argument("--bucket", metavar="BOUND", type=_number, action="append", help="of a histogram")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"not a number: {text!r}")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"not NAME=VALUE: {text!r}")
    return name, value


def run(options: argparse.Namespace) -> int:
    return run_report(options, _list if options.verb == "list" else _change)


async def _list(rest: RestClient, options: argparse.Namespace) -> Report:
    report = await rest.get(METRICS)
    asked = getattr(options, "names", [])
    if asked:
        found = {name: view for name, view in report["metrics"].items() if name in asked}
        for name in asked:
            if name not in found:
                await rest.get(METRICS, name=name)  # its refusal says what is wrong
        report["metrics"] = found
    rows = [
        [
            name,
            view["type"],
            Cell(view["value"], text=number_text(view["value"])),
            ",".join(f"{key}={value}" for key, value in view["labels"].items()),
            time_cell(view["updated_at"]),
            view["help"],
        ]
        for name, view in sorted(report["metrics"].items())
    ]
    columns = ["Metric", "Type", "Value", "Labels", "Updated", "Help"]
    return Report(report, [Table(columns, rows, f"Metrics: {report['total_metrics']}", ["Updated"])])


async def _change(rest: RestClient, options: argparse.Namespace) -> Report:
    name = options.name
    match options.verb:
        case "register":
            body = {
                "name": name,
                "type": options.type,
                "help": options.help_text,
                "labels": dict(options.label),
            }
            if options.bucket is not None:
                body["buckets"] = sorted(options.bucket)
            if options.ttl is not None:
                body["ttl"] = float(options.ttl) if options.ttl.isdecimal() else options.ttl
            answer, done = await rest.post(METRICS, body), "registered"
        case "inc":
            answer, done = await rest.put(METRICS, {"name": name, "delta": options.delta}), "counted"
        case "delete":
            answer, done = await rest.delete(METRICS, name=name), "deleted"
        case _:
            body = {"name": name, "value": options.value}
            answer, done = await rest.put(METRICS, body), "set" if options.verb == "set" else "observed"
    return Report(answer, text=f"Metric {name} {done}")
