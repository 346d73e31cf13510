"""A daemon for the length of a block: a process of its own with a simulated cluster, in a directory of its own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from heliosd.auth.passwords import hash_password
from heliosd.client.http_api import Password

from .exits import CommandFailed
from .target import Target

USER = "admin"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
LAST_LINES = 20

_CONFIG = """\
[node]
id = "node-1"
data_dir = {directory}
[server]
listen = {listen}
[cluster.simulated]
peers = [{peers}]
election_timeout = {election}
heartbeat_interval = {heartbeat}
seed = {seed}
[log]
format = "json"
[[auth.users]]
name = "admin"
password_hash = {password_hash}
roles = ["admin"]
"""


def config_text(
    listen: str, directory: str, password_hash: str, *, members: int, seed: int, speed: float
) -> str:
    """The configuration: `members` members, whose timeouts are `speed` times shorter than the defaults."""
    peers = ", ".join(
        f'{{ id = "node-{serial}", address = "127.0.0.1:{6999 + serial}" }}'
        for serial in range(2, members + 1)
    )
    return _CONFIG.format(
        # A TOML string may be written as one of JSON.
        directory=json.dumps(directory),
        listen=json.dumps(listen),
        password_hash=json.dumps(password_hash),
        peers=peers,
        seed=seed,
        election=max(0.1, 0.5 / speed),
        heartbeat=max(0.02, 0.1 / speed),
    )


class _DaemonEnded(CommandFailed):
    """With the last lines of its log."""


def _first(group: BaseExceptionGroup[_DaemonEnded]) -> _DaemonEnded:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


@asynccontextmanager
async def own_daemon(listen: str, *, members: int, seed: int, speed: float) -> AsyncIterator[Target]:
    """A running daemon at `listen` and its user `admin`, until the block ends. Raises `CommandFailed`."""
    password = secrets.token_urlsafe(12)
    with tempfile.TemporaryDirectory(prefix="heliosd-simulate-") as folder:
        config = Path(folder) / "heliosd.toml"
        text = config_text(
            listen, f"{folder}/state", hash_password(password), members=members, seed=seed, speed=speed
        )
        config.write_text(text, encoding="utf-8")
        config.chmod(0o600)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "heliosd", "serve", "--config", str(config)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
            start_new_session=True,  # Ctrl-C is for this command, which then ends the daemon
        )
        try:
            async with trio.open_nursery() as nursery:
                address = await nursery.start(_follow_log, process)
                yield Target(f"http://{address}", Password(USER, password), USER)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            ended = group.subgroup(_DaemonEnded)
            if ended is None or group.subgroup(KeyboardInterrupt) is not None:
                raise
            raise _first(ended) from None  # a request that failed for that says less
        finally:
            process.terminate()
            with trio.move_on_after(STOP_SECONDS, shield=True) as patience:
                await process.wait()
            if patience.cancelled_caught:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()  # its directory is removed next


async def _follow_log(process: trio.Process, *, task_status: trio.TaskStatus[str]) -> None:
    """Read the log, so that the daemon never waits for us. Started with the address once the daemon is ready."""
    assert process.stderr is not None
    lines: deque[str] = deque(maxlen=LAST_LINES)
    rest = b""
    ready = False
    with trio.CancelScope(deadline=trio.current_time() + START_SECONDS) as patience:
        async for data in process.stderr:
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                lines.append(line.decode("utf-8", "replace"))
                if ready:
                    continue
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry.get("event") == "ready":
                    ready, patience.deadline = True, float("inf")
                    task_status.started(entry["address"])
    why = "\n".join(lines)
    raise _DaemonEnded(f"the daemon {'ended' if ready else 'did not start'}:\n{why}")
