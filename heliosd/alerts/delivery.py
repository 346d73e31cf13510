"""Sends one alert: a POST to its URL, or its command with the JSON on standard input."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import trio

from heliosd.config.model import AlertConfig
from heliosd.errors import NotDelivered
from heliosd.on_demand import OnDemand

WEBHOOK_SECONDS = 10.0
COMMAND_SECONDS = 30.0
KILL_SECONDS = 2.0
"""A killed command that has not ended after so long is left behind: it waits for a disk, or has another user's
rights."""
MAX_SECRET_BYTES = 4096
SIGNATURE = "X-Heliosd-Signature"
_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""With these variables a command could send to systemd in the daemon's name, or take its sockets."""


def signature(secret: bytes, body: bytes) -> str:
    """`sha256=` and the HMAC-SHA256 of the body in hexadecimal digits."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


class AlertSender:
    """Sends alerts, and knows the commands that could not be killed."""

    def __init__(self) -> None:
        self._left_behind: dict[str, trio.Process] = {}
        """By the name of the alert."""
        self._reading: dict[str, trio.CapacityLimiter] = {}
        """By the name of the alert: one thread, which reads its secret."""

    async def send(self, alert: AlertConfig, body: bytes) -> None:
        """Returns once the receiver has taken it: status 2xx, or exit code 0. Raises `NotDelivered`.

        While a command of this alert runs that could not be killed, no other one is started.
        """
        seconds = WEBHOOK_SECONDS if alert.url else COMMAND_SECONDS
        try:
            with trio.fail_after(seconds):
                await (self._post(alert, body) if alert.url else self._run(alert, body))
        except trio.TooSlowError:
            reason = f"no answer in {seconds:g} s" if alert.url else f"ran for {seconds:g} s"
            raise NotDelivered(reason) from None
        except OSError as error:
            raise NotDelivered(str(error) or type(error).__name__) from error

    async def _post(self, alert: AlertConfig, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "heliosd", "Accept-Encoding": "identity"}
        if alert.secret_file is not None:
            # Read each time, so that a new secret needs no reload. On a file system that does not answer the thread
            # stays behind, and the next attempt waits for it: neither holds up a stop.
            secret = await trio.to_thread.run_sync(
                _secret,
                alert.secret_file,
                abandon_on_cancel=True,
                limiter=self._reading.setdefault(alert.name, trio.CapacityLimiter(1)),
            )
            headers[SIGNATURE] = signature(secret, body)
        post = await _webhook.get()
        await post(alert.url, body, headers)

    async def _run(self, alert: AlertConfig, body: bytes) -> None:
        """Without a shell, in a process group of its own, which is killed when the time is over."""
        left_behind = self._left_behind.get(alert.name)
        if left_behind is not None and left_behind.poll() is None:
            raise NotDelivered(f"the process {left_behind.pid} of an earlier attempt cannot be killed")
        process = await trio.lowlevel.open_process(
            list(alert.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in _OWN},
        )
        try:
            await _feed(process, body)
            returncode = await process.wait()
        finally:
            if process.returncode is None:
                _kill_group(process)
                with trio.move_on_after(KILL_SECONDS, shield=True):
                    await process.wait()
            if process.returncode is None:
                self._left_behind[alert.name] = process
            else:
                self._left_behind.pop(alert.name, None)
        if returncode:
            raise NotDelivered(f"ended with {returncode}")


def _load() -> Callable[[str, bytes, Mapping[str, str]], Awaitable[None]]:
    from .webhook import post  # noqa: PLC0415

    return post


_webhook = OnDemand(_load)


def _secret(file: Path) -> bytes:
    with file.open("rb") as opened:
        secret = opened.read(MAX_SECRET_BYTES).strip()
    if not secret:
        raise NotDelivered(f"{file} is empty")
    return secret


async def _feed(process: trio.Process, body: bytes) -> None:
    """Write the body to the standard input, and end that."""
    assert process.stdin is not None
    async with process.stdin as stdin:
        with suppress(trio.BrokenResourceError):  # it reads none of it, or not all
            await stdin.send_all(body)


def _kill_group(process: trio.Process) -> None:
    # It may have ended just now; or it took another user's rights (sudo), and can only be waited for.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
