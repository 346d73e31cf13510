"""Follows a heliosd with several clients that are cut at random, and checks that no event is lost without a word.

    HELIOSD_PASSWORD=… python -m tests.support.sequence_checker http://127.0.0.1:8080 --user admin \
        --clients 4 --cuts 200

Exit code 0: every promise held. 1: one was broken; standard error says which, with what was received. 2: it could
not be checked. The daemon may be restarted or killed meanwhile: the clients come back. What is checked stands in
`sequence_rules.py`; the WebSocket client is the library `websockets`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket as stdlib
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from .sequence_rules import Follower, Ledger, Seen, Violation, check_page

CATCH_UP_SECONDS = 60.0
"""How long every client may take at the end to receive all events. Longer counts as lost."""
AWAY_SECONDS = 60.0
"""How long the daemon may be unreachable before the check is given up."""
PAGE = 500


class CannotCheck(Exception):
    """The daemon cannot be reached, or refuses every login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a check does. It ends when all of `cuts`, `seconds` and `deliveries` are reached."""

    clients: int = 4
    cuts: int = 0
    """Cuts of all clients together."""
    seconds: float = 0.0
    deliveries: int = 0
    """Events × clients."""
    pause: float = 0.5
    """Mean seconds between two cuts of one client."""
    slow: int = 0
    """So many of the clients stop reading now and then, with a small receive buffer."""
    seed: int | None = None


@dataclass
class Check:
    """A running check. What it counts may be read from any thread."""

    url: str
    token: str
    plan: Plan
    others: tuple[str, ...] = ()
    """URLs of more daemons of the same cluster: each connection goes to any of them."""
    ledger: Ledger = field(default_factory=Ledger)
    followers: list[Follower] = field(default_factory=list)
    cuts: int = 0
    losses: int = 0
    """Connections that the daemon ended, or that could not be made."""
    stalls: int = 0
    pages: int = 0
    stopping: bool = False
    """Set it to end before the plan does."""
    last_cut_made: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def seen(self) -> Seen:
        return reduce(add, (follower.seen for follower in self.followers), Seen())

    @property
    def fulfilled(self) -> bool:
        return self.stopping or (
            self.cuts >= self.plan.cuts
            and time.monotonic() - self.began >= self.plan.seconds
            and self.seen.deliveries >= self.plan.deliveries
        )

    async def run(self) -> None:
        """Follow, cut, resume; then receive all that is left, and compare it with the history. Raises `Violation`
        or `CannotCheck`."""
        rng = random.Random(self.plan.seed)
        self.followers = [
            Follower(f"client {number}", self.ledger, hops=bool(self.others))
            for number in range(self.plan.clients)
        ]
        try:
            async with asyncio.TaskGroup() as tasks:
                followings = [
                    tasks.create_task(
                        self._watcher(follower, random.Random(rng.random()), number < self.plan.slow)
                    )
                    for number, follower in enumerate(self.followers)
                ]
                while not self.fulfilled:  # noqa: ASYNC110, what is waited for is counted in many places
                    await asyncio.sleep(0.05)
                self.last_cut_made = True
                await self._all_caught_up()
                for following in followings:
                    following.cancel()
        except* (Violation, CannotCheck) as failed:
            raise _first(failed) from None
        await self._compare_with_history()

    def summary(self) -> str:
        seen = self.seen
        lines = [
            f"{seen.deliveries} deliveries of {len(self.ledger)} events to {len(self.followers)} clients "
            f"in {time.monotonic() - self.began:.0f} s",
            f"{self.cuts} cuts, {self.losses} connections lost, {self.stalls} times not read for a while",
            f"{seen.resumes} resumes recovered with {seen.replayed} events replayed, "
            f"{seen.refusals.total()} refused to resume {dict(seen.refusals)}",
            f"{seen.gaps} gaps; {seen.named} events known to be missing; {self.pages} pages of history compared",
        ]
        return "\n".join(lines)

    # -- one client --------------------------------------------------------------------------------------------

    async def _watcher(self, follower: Follower, rng: random.Random, slow: bool) -> None:
        away_since = time.monotonic()
        while True:
            try:
                url = rng.choice((self.url, *self.others))
                connection = await self._connect(url, follower.dial(), small=slow, deflate=rng.random() < 0.5)
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as lost:
                if isinstance(lost, InvalidStatus) and lost.response.status_code in {400, 401, 403, 404}:
                    raise CannotCheck(f"refused with {lost.response.status_code}") from lost
                if time.monotonic() - away_since > AWAY_SECONDS:
                    raise CannotCheck(f"cannot connect: {lost}") from lost
                self.losses += 1
                await asyncio.sleep(rng.uniform(0.02, 0.1))
                continue
            try:
                await self._until_cut(connection, follower, rng, slow)
            finally:
                connection.transport.abort()
            away_since = time.monotonic()

    async def _connect(
        self, url: str, query: dict[str, str], *, small: bool = False, deflate: bool = False
    ) -> ClientConnection:
        address = f"ws{url.removeprefix('http')}/ws/cluster?{urlencode(query)}"
        options: dict[str, Any] = {}
        if small:
            options["sock"] = await small_socket(url)
        return await connect(
            address,
            additional_headers={"Authorization": f"Bearer {self.token}"},
            compression="deflate" if deflate else None,
            open_timeout=15,
            ping_interval=None,
            max_queue=64,
            max_size=None,
            proxy=None,
            **options,
        )

    async def _until_cut(
        self, connection: ClientConnection, follower: Follower, rng: random.Random, slow: bool
    ) -> None:
        """Hear what comes until this connection is cut, by us or by the daemon."""
        ends = time.monotonic() + rng.expovariate(1 / self.plan.pause)
        stalls = time.monotonic() + rng.uniform(1.0, 6.0) if slow else float("inf")
        while True:
            now = time.monotonic()
            if now >= ends and not self.last_cut_made:
                await self._cut(connection, rng)
                return
            if now >= stalls and not self.last_cut_made:
                self.stalls += 1
                await asyncio.sleep(rng.uniform(3.0, 8.0))
                stalls = time.monotonic() + rng.uniform(2.0, 8.0)
            try:
                async with asyncio.timeout(min(1.0, max(0.0, ends - now) if not self.last_cut_made else 1.0)):
                    raw = await connection.recv(decode=False)
                    while True:
                        _take(follower, raw)
                        # What has arrived already needs no timer of its own.
                        if time.monotonic() >= min(ends, stalls):
                            break
                        raw = await connection.recv(decode=False)
            except TimeoutError:
                continue
            except ConnectionClosed:
                self.losses += 1
                return

    async def _cut(self, connection: ClientConnection, rng: random.Random) -> None:
        match rng.randrange(3):
            case 0:
                pass  # aborted as it stands
            case 1:
                await connection.close()
            case _:  # something has come and was not read
                connection.transport.pause_reading()
                await asyncio.sleep(rng.uniform(0.0, 0.2))
        self.cuts += 1

    # -- the end -----------------------------------------------------------------------------------------------

    async def _all_caught_up(self) -> None:
        """Until every client has received all events that were published before this call."""
        epoch, newest = await self._where_things_stand()
        deadline = time.monotonic() + CATCH_UP_SECONDS
        for follower in self.followers:
            while follower.epoch != epoch or (follower.position or 0) < newest:
                if time.monotonic() > deadline:
                    raise Violation(
                        "hole",
                        f"{follower.name} has heard up to {follower.position}, and {newest} never came",
                    )
                await asyncio.sleep(0.02)

    async def _where_things_stand(self) -> tuple[str, int]:
        for attempt in range(600):
            try:
                connection = await self._connect(self._any_url(attempt), {"after": "now"})
            except (OSError, InvalidHandshake, TimeoutError) as lost:
                if attempt == 599:
                    raise CannotCheck(f"cannot connect: {lost}") from lost
                await asyncio.sleep(0.1)
                continue
            async with connection:
                welcome = json.loads(await connection.recv())
                return welcome["data"]["epoch"], welcome["data"]["seq"]
        raise AssertionError("not reached")

    def _any_url(self, attempt: int) -> str:
        urls = (self.url, *self.others)
        return urls[attempt % len(urls)]

    async def _compare_with_history(self) -> None:
        """Page through all that the daemon keeps of the newest epoch."""
        first = await asyncio.to_thread(self._page, {"limit": "1"})
        epoch, at = first["epoch"], first["oldest_seq"] - 1
        while True:
            query = {"epoch": epoch, "after": str(at), "limit": str(PAGE)}
            page = await asyncio.to_thread(self._page, query)
            at = check_page(self.ledger, page, epoch, at)
            self.pages += 1
            if not page["more"]:
                return

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        request = Request(
            f"{self.url}/api/cluster/history?{urlencode(query)}",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        try:
            with urlopen(request, timeout=30) as answer:
                page: dict[str, Any] = json.load(answer)
                return page
        except HTTPError as refused:
            raise Violation("wrong history", f"{query} is answered with {refused.code}") from refused


async def small_socket(url: str) -> stdlib.socket:
    """A connected socket with a receive buffer that is soon full."""
    host, _, port = url.partition("://")[2].rpartition(":")
    socket = stdlib.socket(stdlib.AF_INET6 if host.startswith("[") else stdlib.AF_INET)
    socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 8192)
    socket.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(socket, (host.strip("[]"), int(port)))
    except BaseException:
        socket.close()
        raise
    return socket


def _take(follower: Follower, raw: bytes) -> None:
    try:
        follower.take(raw)
    except (KeyError, TypeError, ValueError) as wrong:
        raise Violation("malformed", f"{follower.name} cannot read {raw[:500]!r}: {wrong!r}") from wrong


def _first(group: BaseExceptionGroup[Violation | CannotCheck]) -> Violation | CannotCheck:
    """A broken promise rather than what came of it."""
    leaves: list[Violation | CannotCheck] = []
    for error in group.exceptions:
        leaves += [_first(error)] if isinstance(error, BaseExceptionGroup) else [error]
    return next((leaf for leaf in leaves if isinstance(leaf, Violation)), leaves[0])


def log_in(url: str, user: str, password: str) -> str:
    """A token. Raises `CannotCheck`."""
    body = json.dumps({"username": user, "password": password}).encode()
    request = Request(f"{url}/api/auth/login", data=body, headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=15) as answer:
            return str(json.load(answer)["token"])
    except OSError as refused:
        raise CannotCheck(f"cannot log in: {refused}") from refused


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("url", help="http://HOST:PORT")
    options.add_argument("--user", default="admin", help="whose password is in HELIOSD_PASSWORD")
    options.add_argument("--clients", type=int, default=4)
    options.add_argument("--cuts", type=int, default=200, help="cuts of all clients together")
    options.add_argument("--seconds", type=float, default=0.0, help="go on for at least so long")
    options.add_argument(
        "--deliveries", type=int, default=0, help="go on until so many events × clients have come"
    )
    options.add_argument(
        "--pause", type=float, default=0.5, help="mean seconds between two cuts of one client"
    )
    options.add_argument("--slow", type=int, default=0, help="so many clients stop reading now and then")
    options.add_argument("--seed", type=int)
    given = options.parse_args()
    password = os.environ.get("HELIOSD_PASSWORD")
    if password is None:
        print("HELIOSD_PASSWORD is not set", file=sys.stderr)
        return 2
    url = given.url.rstrip("/")
    names = ("clients", "cuts", "seconds", "deliveries", "pause", "slow", "seed")
    plan = Plan(**{name: getattr(given, name) for name in names})
    check: Check | None = None
    try:
        check = Check(url, log_in(url, given.user, password), plan)
        asyncio.run(check.run())
    except CannotCheck as reason:
        print(reason, file=sys.stderr)
        return 2
    except Violation as broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 2
    finally:
        if check is not None:
            with suppress(BrokenPipeError):
                print(check.summary())
    print("every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
