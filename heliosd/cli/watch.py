"""`heliosd watch`: what happens in the cluster, live in the terminal.

On a terminal it is a screen with the members and the newest events. Otherwise, and with `--lines`, events go to
standard output, a line each, and the state of the connection to standard error. With `--json` standard output gets
every message exactly as it was received, and lines of the types `connected`, `disconnected` and `gap` that the
client adds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import suppress
from typing import Literal

import msgspec
import trio

from heliosd.client.client import Client, Connected, Disconnected, Item, open_client
from heliosd.client.rest_client import open_rest
from heliosd.client.resume import Gap, Message, cursor_text, parse_cursor
from heliosd.client.websocket import sole_error
from heliosd.clock import rfc3339
from heliosd.errors import AccessRefused, ErrorAnswer, NotUnderstood, Unreachable
from heliosd.protocol.filters import BadSubscription
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import Subscription

from .ending_signals import until_terminated
from .event_format import EventFormatter
from .exits import INTERRUPTED, OK, CommandFailed, Usage, print_error
from .live_view import LiveView
from .options import add_target, add_watch
from .output import coloured, printable
from .screen import open_screen
from .standard_output import StandardOutput, on_terminal, standard_output
from .target import Target, target_of

HISTORY = "/api/cluster/history"
EARLIER_EVENTS = 30
LONGEST_WAIT_SECONDS = 5.0
"""Somebody is looking: an attempt to connect costs less than a longer silence."""
Form = Literal["json", "lines", "live"]


class _JsonLine(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    data: dict[str, object]


def add_options(parser: argparse.ArgumentParser) -> None:
    add_watch(parser)
    add_target(parser)


def run(options: argparse.Namespace) -> int:
    types = _types(options.types)
    since = _since(options.since)
    target = target_of(options)
    live = on_terminal() and os.environ.get("TERM", "dumb") != "dumb" and not options.lines
    watch = _Watch(
        target, types=types, since=since, form="json" if options.json else "live" if live else "lines"
    )
    try:
        with target.naming_errors(), sole_error():
            trio.run(until_terminated, watch.run)
    except KeyboardInterrupt:
        watch.say_where_it_stopped()
        return INTERRUPTED
    except CommandFailed:
        watch.say_where_it_stopped()
        raise
    return OK


def _types(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    try:
        Subscription.of_types(text)
    except BadSubscription as wrong:
        raise Usage(f"--types: {wrong}") from None
    return frozenset(name.strip() for name in text.split(","))


def _since(text: str | None) -> Cursor | None:
    try:
        return None if text is None else parse_cursor(text)
    except ValueError as wrong:
        raise Usage(f"--since: {wrong}") from None


class _Watch:
    """Following, and one of three ways to show it: `_as_json`, `_as_lines`, `_as_screen`."""

    def __init__(self, target: Target, *, types: frozenset[str], since: Cursor | None, form: Form) -> None:
        self._target = target
        self._types = types
        self._since = since
        self._form = form
        self._earlier: list[Message] = []
        self._shown: Cursor | None = None
        """Up to here all was shown. The client is ahead of that while an item is being written."""

    async def run(self) -> None:
        """Show items until following ends."""
        show = {"json": self._as_json, "lines": self._as_lines, "live": self._as_screen}[self._form]
        # The live view's header shows the status, whatever is asked for.
        topics = self._types | {"status"} if self._types and self._form == "live" else self._types
        if self._form == "live" and self._since is None:
            await self._fetch_earlier()
        async with open_client(
            self._target.url,
            self._target.credentials,
            subscription=dict.fromkeys(sorted(topics), True) or None,
            since=self._since,
            notices=True,
            longest_wait=LONGEST_WAIT_SECONDS,
            steady_seconds=0.0,
        ) as client:
            await show(client, standard_output())

    async def _fetch_earlier(self) -> None:
        """The newest events of before, so that the screen does not begin empty; following goes on from the last.
        Without the right to read them, and without an answer, it begins empty."""
        names = sorted(self._types & {"state_changes", "peer_changes", "snapshot", "custom_metrics"})
        if self._types and not names:
            return
        types = ",".join(names) or None
        with suppress(AccessRefused, ErrorAnswer, NotUnderstood, Unreachable):
            async with open_rest(self._target.url, self._target.credentials) as rest:
                heads = await rest.get(HISTORY, limit=1)
                epoch, after = heads["epoch"], max(heads["oldest_seq"] - 1, heads["seq"] - EARLIER_EVENTS, 0)
                page = await rest.get(HISTORY, epoch=epoch, after=after, limit=EARLIER_EVENTS, types=types)
                self._earlier = [
                    Message(each["type"], each["seq"], each["timestamp"], each["data"], "")
                    for each in page["events"]
                ]
                # Up to here all of these types were in the page.
                last = max((each.seq or 0 for each in self._earlier), default=0)
                self._since = Cursor(epoch, last if page["more"] else max(page["seq"], last))

    async def _as_json(self, client: Client, output: StandardOutput) -> None:
        async for item in client:
            await output.write(json_line(item, rfc3339(time.time())))

    async def _as_lines(self, client: Client, output: StandardOutput) -> None:
        formatter = EventFormatter(self._types, colour=coloured(sys.stdout))
        lost: str | None = None
        async for item in client:
            match item:
                case Connected():
                    print_error(f"connected to {item.url}" + (" again" if lost is not None else ""))
                    lost = None
                case Disconnected():
                    # Each attempt that fails as the one before says nothing new.
                    if item.reason != lost:
                        print_error(f"{printable(item.reason)}; trying again in {item.retry_in:.1f} s")
                    lost = item.reason
                case _:
                    lines = formatter.lines(item, rfc3339(time.time()))
                    if text := "".join(f"{line}\n" for line in lines):
                        await output.write(text)
            self._shown = client.cursor

    async def _as_screen(self, client: Client, output: StandardOutput) -> None:
        target = self._target
        view = LiveView(target.url, target.user, self._types, colour=coloured(sys.stdout))
        async with open_screen(
            output, lambda width, height: view.lines(width, height, time.time())
        ) as screen:
            for earlier in self._earlier:
                view.take(earlier, time.time())
            async for item in client:
                view.take(item, time.time())
                screen.changed()
                self._shown = client.cursor

    def say_where_it_stopped(self) -> None:
        if self._shown is not None and self._form != "json":
            print_error(f"stopped; --since {cursor_text(self._shown)} goes on from here")


def json_line(item: Item, now: str) -> str:
    """One item as one line of JSON, with its end. `now` is RFC 3339."""
    match item:
        case Connected():
            line = _JsonLine("connected", now, {"url": item.url})
        case Disconnected():
            line = _JsonLine(
                "disconnected",
                now,
                {"reason": item.reason, "code": item.code, "retry_in": round(item.retry_in, 3)},
            )
        case Gap(raw=None):
            data: dict[str, object] = {
                "from_seq": item.from_seq,
                "to_seq": item.to_seq,
                "reason": item.reason,
            }
            data |= {"epoch": item.epoch, "previous_epoch": item.previous_epoch}
            line = _JsonLine("gap", now, data)
        case _:
            raw = item.raw or ""
            # In a JSON text, line ends stand only between tokens, where a space is the same.
            return raw.replace("\n", " ").replace("\r", " ") + "\n"
    return msgspec.json.encode(line).decode() + "\n"
