"""What heliosd and systemd say to each other: sd_notify(3), the watchdog, sockets passed in.

All of it is plain environment variables and one datagram socket. Outside systemd everything here does nothing, and
no failure here ever rises: a daemon that cannot report still serves.
"""

from __future__ import annotations

import logging
import os
import socket
import time

FIRST_INHERITED_FD = 3
SEND_SECONDS = 0.2
"""A notification is dropped rather than hold up the loop any longer; systemd reads its socket at once."""

log = logging.getLogger(__name__)


class Notifier:
    """Tells systemd how the service is doing, where $NOTIFY_SOCKET names its socket; else does nothing."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self._complained = False

    def ready(self) -> None:
        """Started, or done with reloading."""
        self._send("READY=1")

    def stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1")

    def reloading(self) -> None:
        """Reading the configuration again; `ready` ends it."""
        # From systemd 253 on, a reload needs the time at which it began; older ones ignore the second line.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> None:
        """Alive. Due every `watchdog_interval()` seconds."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            if self._socket is None:
                self._socket = _connected(self._address)
            self._socket.send(state.encode(errors="replace"))
        except OSError as error:
            if not self._complained:
                log.warning("cannot notify systemd at %s: %s", self._address, error)
            self._complained = True
            if self._socket is not None:  # systemd may have come back with a new socket of the same name
                self._socket.close()
                self._socket = None


def watchdog_interval() -> float | None:
    """Seconds between two `Notifier.watchdog()`: half of what systemd allows. None where it does not watch us."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    allowed = _number("WATCHDOG_USEC")
    return allowed / 2_000_000 if allowed else None


def inherited_sockets() -> range:
    """The descriptors that socket activation passed to this process, from 3 on (sd_listen_fds(3))."""
    meant_for_us = os.environ.get("LISTEN_PID") == str(os.getpid())
    count = _number("LISTEN_FDS") if meant_for_us else 0
    return range(FIRST_INHERITED_FD, FIRST_INHERITED_FD + count)


def _connected(address: str) -> socket.socket:
    if not address.startswith(("/", "@")):
        raise OSError("not a path and not an abstract socket")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        notify.settimeout(SEND_SECONDS)
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
    except BaseException:
        notify.close()
        raise
    return notify


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else 0
