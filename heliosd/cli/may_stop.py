"""`heliosd may-stop MEMBER`: a permit to stop a member, so that machines are restarted one after the other.

Exit code 0: the permit is given. 5: it is not, and standard error says why.
"""

from __future__ import annotations

import argparse
import signal
from typing import Any

import trio

from heliosd.client.reconnect import is_temporary
from heliosd.client.rest_client import RestClient
from heliosd.errors import ErrorAnswer, HeliosError, Unreachable

from .ending_signals import TERMINATED, ended_by_signal
from .exits import FAILED, UNHEALTHY, CommandFailed, print_error
from .members_view import clock
from .options import add_output, add_target
from .options import seconds as number_of_seconds
from .report import Report
from .requests import print_report, run_report
from .standard_output import standard_output

PERMITS = "/api/cluster/permits"
SECONDS = 600.0
ASK_AGAIN_SECONDS = 1.0
RELEASE_SECONDS = 5.0
NOT_NOW = {409, 503, 504, 507}
"""A permit is out, no quorum would be left, there is no leader, or the write failed or its outcome is unknown."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "member", metavar="MEMBER", help="the member that is to be stopped: its id or its name"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--hold",
        action="store_true",
        help="stay, renew the permit, and give it back on Ctrl-C, SIGTERM or SIGHUP",
    )
    what.add_argument(
        "--done", action="store_true", help="give back the permit to stop MEMBER: it runs again"
    )
    parser.add_argument(
        "--wait",
        type=number_of_seconds,
        metavar="SECONDS",
        help="while there is no permit, ask again for so long",
    )
    parser.add_argument(
        "--seconds",
        type=number_of_seconds,
        default=SECONDS,
        metavar="SECONDS",
        help="the permit ends after so long by itself (600)",
    )
    add_output(parser)
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    return run_report(options, _done if options.done else _hold if options.hold else _ask)


async def _ask(rest: RestClient, options: argparse.Namespace) -> Report:
    return _report(await _granted(rest, options))


async def _granted(rest: RestClient, options: argparse.Namespace) -> dict[str, Any]:
    ends = trio.current_time() + (options.wait or 0.0)
    while True:
        try:
            # One that is to be given back must be known: a signal waits for the answer.
            with trio.CancelScope(shield=options.hold):
                answer = await rest.post(PERMITS, {"member": options.member, "seconds": options.seconds})
        except ErrorAnswer as error:
            refused_now = error.status in NOT_NOW
            # Others of these are a proxy's, whose heliosd is away.
            if not (refused_now or is_temporary(error.status)):
                raise
            if trio.current_time() + ASK_AGAIN_SECONDS > ends:
                if not refused_now:
                    raise
                raise CommandFailed(f"not now: {error} (asked {rest.url})", UNHEALTHY) from error
        except Unreachable:
            # It may be restarting; a permit whose answer was lost ends at once.
            if trio.current_time() + ASK_AGAIN_SECONDS > ends:
                raise
        else:
            permit: dict[str, Any] = answer["permit"]
            return permit
        await trio.sleep(ASK_AGAIN_SECONDS)


async def _hold(rest: RestClient, options: argparse.Namespace) -> Report:
    """Print the permit and renew it until a signal comes, or the output fails; then give it back. Raises
    `CommandFailed` once it has ended all the same."""
    permits: list[dict[str, Any]] = []

    async def hold() -> None:
        permit = await _granted(rest, options)
        permits.append(permit)
        lost: ErrorAnswer | Unreachable | None = None
        try:
            await print_report(standard_output(), _report(permit), options.output)
            lost = await _renew(rest, permit["id"], options.seconds)
        finally:
            if lost is None:
                await _give_back(rest, permit["id"])
        raise CommandFailed(f"the permit has ended: {lost}", FAILED) from lost

    await ended_by_signal((signal.SIGINT, *TERMINATED), hold)
    if not permits:
        raise KeyboardInterrupt
    return Report({"permit": permits[0]}, silent=True)


async def _renew(rest: RestClient, permit_id: str, seconds: float) -> ErrorAnswer | Unreachable:
    """Renew it at every third of its time. Returns why, once it has ended all the same."""
    until = trio.current_time() + seconds
    while True:
        await trio.sleep(seconds / 3)
        try:
            await rest.put(PERMITS, {"id": permit_id, "seconds": seconds})
        except (ErrorAnswer, Unreachable) as error:
            if trio.current_time() >= until or getattr(error, "status", 0) == 404:
                return error
            print_error(f"the permit was not renewed: {error}")
        else:
            until = trio.current_time() + seconds


async def _give_back(rest: RestClient, permit_id: str) -> None:
    """Raises `CommandFailed` if it may still be out after `RELEASE_SECONDS`."""
    failed = f"no answer within {RELEASE_SECONDS:g} s"
    with trio.move_on_after(RELEASE_SECONDS, shield=True):
        try:
            await rest.delete(PERMITS, id=permit_id)
        except HeliosError as error:
            failed = str(error)
        else:
            print_error("the permit is given back")
            return
    raise CommandFailed(f"the permit was not given back, and ends by its time: {failed}")


async def _done(rest: RestClient, options: argparse.Namespace) -> Report:
    permits = (await rest.get(PERMITS))["permits"]
    member = options.member
    found = [each for each in permits if member in (each["member"], each.get("member_name"))]
    if not found:
        # It has ended by its time: what was asked for is so.
        return Report({"permit": None}, text=f"No permit to stop {member} is out")
    answer = await rest.delete(PERMITS, id=found[0]["id"])
    return Report({"permit": answer["permit"]}, text=f"The permit to stop {member} is given back")


def _report(permit: dict[str, Any]) -> Report:
    name = permit.get("member_name") or permit["member"]
    until = clock(permit["expires_at"], date=True)
    return Report({"permit": permit}, text=f"{name} may be stopped until {until} (permit {permit['id']})")
