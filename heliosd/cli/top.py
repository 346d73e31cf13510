"""`heliosd top`: members and metrics, live in the terminal."""

from __future__ import annotations

import argparse
import sys
import time

import trio

from heliosd.client.rest_client import RestClient, open_rest
from heliosd.client.websocket import sole_error
from heliosd.errors import ErrorAnswer, Unreachable

from .ending_signals import until_terminated
from .exits import OK, CommandFailed
from .metrics import METRICS
from .options import add_target
from .options import seconds as number_of_seconds
from .output import coloured
from .screen import Screen, open_screen
from .standard_output import on_terminal, standard_output
from .status import fetch_cluster
from .target import Target, target_of
from .top_view import TopReading, TopView


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval",
        type=number_of_seconds,
        default=2.0,
        metavar="SECONDS",
        help="between two readings (2)",
    )
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    if not on_terminal():
        raise CommandFailed("top needs a terminal; `heliosd members -w` and `heliosd metrics -w` do not")
    target = target_of(options)
    with target.naming_errors(), sole_error():
        trio.run(until_terminated, _run, target, options.interval)
    return OK


async def _run(target: Target, interval: float) -> None:
    view = TopView(target.url, target.user, colour=coloured(sys.stdout))
    async with (
        open_rest(target.url, target.credentials) as rest,
        open_screen(
            standard_output(), lambda width, height: view.lines(width, height, time.time())
        ) as screen,
    ):
        await _read_on(rest, view, screen, interval)


async def _read_on(rest: RestClient, view: TopView, screen: Screen, interval: float) -> None:
    while True:
        try:
            status, cluster = await fetch_cluster(rest)
            metrics = await rest.get(METRICS)
        except (Unreachable, ErrorAnswer) as error:
            view.failed(str(error), time.time())
        else:
            view.read(TopReading(time.time(), cluster, status, metrics["metrics"]))
        screen.changed()
        await trio.sleep(interval)
