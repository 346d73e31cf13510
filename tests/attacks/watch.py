"""What an attack must not change, seen from a process of its own: `/healthz`, memory, and a rightful login.

`python -m tests.attacks.watch HOST PORT PID USER` reads the password from the first line of standard input. For
each further line it looks once more and prints, as a line of JSON, what it saw since the one before. The first
answer comes once the rightful user has logged in, and each has a login, done or under way.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from .target import Target

PAUSE_SECONDS = 0.05
LOGIN_PAUSE_SECONDS = 0.5
RIGHTFUL = "127.0.0.2"
"""Where the rightful user comes from: no attack does."""


@dataclass
class Seen:
    """While one attack went on. Times in seconds."""

    healthz: list[float] = field(default_factory=list)
    logins: list[float] = field(default_factory=list)
    """Until the token came, by a client that obeys Retry-After. One that is under way counts as it stands."""
    memory_bytes: int = 0
    """At its highest."""
    faults: list[str] = field(default_factory=list)


class _Watch:
    def __init__(self, target: Target, pid: int) -> None:
        self._target = target
        self._pid = pid
        self._seen = Seen(memory_bytes=_rss(pid))
        self._login_since: float | None = None
        self._logged_in = trio.Event()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask)
            nursery.start_soon(self._log_in)
            await self._logged_in.wait()
            while await trio.to_thread.run_sync(sys.stdin.readline):
                await self._look()
                if self._login_since is None and not self._seen.logins:
                    await self._logged_in.wait()
                self._report()
            nursery.cancel_scope.cancel()

    def _report(self) -> None:
        seen, self._seen = self._seen, Seen(memory_bytes=_rss(self._pid))
        self._logged_in = trio.Event()
        if self._login_since is not None:
            seen.logins.append(trio.current_time() - self._login_since)
        seen.faults += self._target.faults
        self._target.faults.clear()
        print(msgspec.json.encode(seen).decode(), flush=True)

    async def _ask(self) -> None:
        while True:
            await self._look()
            await trio.sleep(PAUSE_SECONDS)

    async def _look(self) -> None:
        began = trio.current_time()
        async with self._target.connected(RIGHTFUL) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join([piece async for piece in stream])
        self._seen.healthz.append(trio.current_time() - began)
        if not answer.startswith(b"HTTP/1.1 200 "):
            self._seen.faults.append(f"/healthz: {answer[:60]!r}")
        self._seen.memory_bytes = max(self._seen.memory_bytes, _rss(self._pid))

    async def _log_in(self) -> None:
        while True:
            self._login_since = began = trio.current_time()
            await self._target.new_token(RIGHTFUL)
            self._login_since = None
            self._seen.logins.append(trio.current_time() - began)
            self._logged_in.set()
            await trio.sleep(LOGIN_PAUSE_SECONDS)


def _rss(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def main() -> None:
    host, port, pid, user = sys.argv[1:]
    password = sys.stdin.readline().rstrip("\n")
    trio.run(_Watch(Target(host, int(port), user, password), int(pid)).run)


if __name__ == "__main__":
    main()
