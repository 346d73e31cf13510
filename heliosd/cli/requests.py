"""Running a command that asks a daemon by REST: once, or with `-w` again and again."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable

import trio

from heliosd.client.rest_client import RestClient, open_rest
from heliosd.client.websocket import sole_error
from heliosd.errors import ErrorAnswer, Unreachable

from .exits import Usage, print_error
from .output import coloured
from .report import Report, rendered
from .standard_output import StandardOutput, on_terminal, standard_output
from .target import Target, target_of

Ask = Callable[[RestClient, argparse.Namespace], Awaitable[Report]]
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def run_report(options: argparse.Namespace, ask: Ask) -> int:
    """Ask the daemon that the options of `add_target` name, print the report as those of `add_output` say, and
    return its exit code. Raises `CommandFailed` and `Usage`."""
    every = _pause(options)
    target = target_of(options)
    with target.naming_errors(), sole_error():
        return trio.run(_run, target, options, ask, every)


def _pause(options: argparse.Namespace) -> float | None:
    """The seconds after which to ask again; None: ask once. What changes the cluster is never asked again."""
    if not getattr(options, "once", False):
        pause: float | None = getattr(options, "watch", None)
        return pause
    if getattr(options, "watch_given", False):
        raise Usage(f"-w, --watch: {options.verb} changes something, and is done once")
    return None


async def _run(target: Target, options: argparse.Namespace, ask: Ask, every: float | None) -> int:
    output = standard_output()
    async with open_rest(target.url, target.credentials) as rest:
        if every is None:
            report = await ask(rest, options)
            if not report.silent:
                await print_report(output, report, options.output)
            return report.exit_code
        while True:
            try:
                report = await ask(rest, options)
            except (Unreachable, ErrorAnswer) as error:
                print_error(f"{error}; trying again in {every:g} s")
            else:
                await _print_again(output, report, options.output)
            await trio.sleep(every)


async def print_report(output: StandardOutput, report: Report, form: str) -> None:
    """Print a report, as wide as the terminal allows."""
    width = shutil.get_terminal_size().columns if on_terminal() else None
    await output.write(rendered(report, form, width=width, colour=coloured(sys.stdout)))


async def _print_again(output: StandardOutput, report: Report, form: str) -> None:
    if form == "json":
        # One document a line, so that a reader knows where each ends.
        await output.write(json.dumps(report.data, ensure_ascii=False) + "\n")
        return
    if on_terminal() and os.environ.get("TERM") != "dumb":
        await output.write(CLEAR)
    elif form == "yaml":
        await output.write("---\n")
    await print_report(output, report, form)
