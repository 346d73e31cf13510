"""`heliosd watch`: what happens in the cluster, live in the terminal.

Events go to standard output, a line each; the state of the connection to standard error. With `--json` standard
output gets every message exactly as it was received, and lines of the types `connected`, `disconnected` and `gap`
that the client adds.
"""

from __future__ import annotations

import argparse
import sys
import time

import msgspec
import trio

from heliosd.client.client import Client, Connected, Disconnected, Item, open_client
from heliosd.client.resume import Gap, cursor_text, parse_cursor
from heliosd.client.websocket import sole_error
from heliosd.clock import rfc3339
from heliosd.protocol.filters import BadSubscription
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import Subscription

from .event_format import EventFormatter
from .exits import INTERRUPTED, OK, CommandFailed, Usage, print_error
from .options import add_target, add_watch
from .output import StandardOutput, coloured, printable, standard_output
from .target import Target, target_of


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
    watch = _Watch(target, types=types, since=since, as_json=options.json)
    try:
        with target.naming_errors(), sole_error():
            trio.run(watch.run)
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
    def __init__(self, target: Target, *, types: frozenset[str], since: Cursor | None, as_json: bool) -> None:
        self._target = target
        self._types = types
        self._since = since
        self._as_json = as_json
        self._client: Client | None = None
        self._formatter = EventFormatter(types, colour=coloured(sys.stdout))
        self._lost = False

    async def run(self) -> None:
        """Show items until following ends."""
        output = standard_output()
        async with open_client(
            self._target.url,
            self._target.credentials,
            subscription=dict.fromkeys(sorted(self._types), True) or None,
            since=self._since,
            notices=True,
        ) as client:
            self._client = client
            async for item in client:
                if self._as_json:
                    await output.write(json_line(item, rfc3339(time.time())))
                else:
                    await self._show(output, item)

    async def _show(self, output: StandardOutput, item: Item) -> None:
        match item:
            case Connected():
                print_error(f"connected to {item.url} again" if self._lost else f"connected to {item.url}")
                self._lost = False
            case Disconnected():
                self._lost = True
                print_error(f"{printable(item.reason)}; trying again in {item.retry_in:.1f} s")
            case _:
                lines = self._formatter.lines(item, rfc3339(time.time()))
                if text := "".join(f"{line}\n" for line in lines):
                    await output.write(text)

    def say_where_it_stopped(self) -> None:
        cursor = None if self._client is None else self._client.cursor
        if cursor is not None and not self._as_json:
            print_error(f"stopped; --since {cursor_text(cursor)} goes on from here")


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
