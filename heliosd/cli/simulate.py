"""`heliosd simulate`: play a script of faults, and print what every correct client must have received.

On a running daemon, or with `--own` on one that is started for it. Standard output gets the events in their order,
and what holds at the end; what is being done goes to standard error.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import trio
from msgspec.structs import replace

from heliosd.client.http_api import Password
from heliosd.client.rest_client import open_rest
from heliosd.client.websocket import sole_error

from .ending_signals import until_terminated
from .event_text import event_lines
from .exits import OK, Usage, print_error
from .members_view import time_cell
from .options import add_output, add_target
from .options import seconds as number_of_seconds
from .own_daemon import own_daemon
from .report import Cell, Report, Table
from .requests import print_report
from .scenario import BadScenario, Scenario, parse
from .scenario_player import ScenarioPlayer
from .standard_output import standard_output
from .target import Target, target_of

OWN_LISTEN = "127.0.0.1:8080"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", type=Path, metavar="SCENARIO.toml", help="as in examples/scenarios/")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="FACTOR",
        help="so many times the script's pace; default 1",
    )
    parser.add_argument("--seed", type=int, metavar="NUMBER", help="in place of the script's")
    parser.add_argument(
        "--own",
        nargs="?",
        const=OWN_LISTEN,
        metavar="HOST:PORT",
        help=f"start a daemon for it there ({OWN_LISTEN}), and end it afterwards",
    )
    parser.add_argument(
        "--delay",
        type=number_of_seconds,
        metavar="SECONDS",
        help="begin so much later: for clients to connect",
    )
    add_output(parser)
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    if options.own is not None and options.url is not None:
        raise Usage("give --url or --own, not both")
    try:
        scenario = parse(options.scenario.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, BadScenario) as wrong:
        raise Usage(f"{options.scenario}: {wrong}") from None
    if options.seed is not None:
        scenario = replace(scenario, seed=options.seed)
    if options.own is not None:
        with sole_error():
            trio.run(until_terminated, _run_own, options, scenario)
        return OK
    target = target_of(options)
    with target.naming_errors(), sole_error():
        trio.run(until_terminated, _run, options, scenario, target)
    return OK


async def _run_own(options: argparse.Namespace, scenario: Scenario) -> None:
    async with own_daemon(
        options.own, members=scenario.members, seed=scenario.seed, speed=options.speed
    ) as target:
        assert isinstance(target.credentials, Password)
        print_error(f"serving at {target.url}, user {target.user}, password {target.credentials.password}")
        with target.naming_errors(), sole_error():
            await _run(options, scenario, target)


async def _run(options: argparse.Namespace, scenario: Scenario, target: Target) -> None:
    began = trio.current_time()
    async with open_rest(target.url, target.credentials) as rest:
        if options.delay is not None:
            await trio.sleep(options.delay)
        print_error(scenario.about)

        def say(text: str) -> None:
            print_error(f"{trio.current_time() - began:7.2f} s  {text}")

        heard = await ScenarioPlayer(rest, scenario, options.speed, say).play()
    await print_report(standard_output(), _report(heard), options.output)


def _report(heard: dict[str, Any]) -> Report:
    rows = [
        [event["seq"], time_cell(event["timestamp"]), Cell(event["type"], style, text)]
        for event in heard["events"]
        for text, style in event_lines(event["type"], event["data"])
    ]
    final = heard["final"]
    metrics = ", ".join(f"{name} = {value}" for name, value in final["custom_metrics"].items())
    return Report(
        heard,
        [
            Table(
                ["Seq", "Time", "Event"], rows, f"What a correct client has received, epoch {heard['epoch']}"
            )
        ],
        f"At the end {final['leader']} leads in term {final['term']}; peers {', '.join(final['peers'])}"
        + (f"; {metrics}" if metrics else ""),
    )


def _speed(text: str) -> float:
    value = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError("must be from 0.01 to 100")
    return value
