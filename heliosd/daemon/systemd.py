"""The interface to systemd: sd_notify(3), the watchdog, inherited sockets.

It consists of environment variables and one datagram socket. Outside systemd everything here does nothing. No
failure here rises: a daemon that cannot notify systemd still serves.
"""

from __future__ import annotations

import logging
import os
import socket
import time

FIRST_INHERITED_FD = 3
SEND_SECONDS = 0.2
"""The most that a notification may block the loop; then it is dropped. systemd reads its socket at once."""

log = logging.getLogger(__name__)


class Notifier:
    """Notifies systemd of the service's state if $NOTIFY_SOCKET names its socket; else does nothing."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        self._complained = False

    def ready(self) -> None:
        """The start or a reload is finished."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The stop has begun."""
        self._send("STOPPING=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        # From systemd 253 on, a reload needs the time at which it began; older ones ignore the second line.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")

    def watchdog(self) -> None:
        """Reset the watchdog. Due every `watchdog_interval()` seconds."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; a later notification opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

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
            self.close()  # systemd may have made a new socket of the same name


def watchdog_interval() -> float | None:
    """Seconds between two calls of `Notifier.watchdog`: half of what systemd allows. None without a watchdog."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    allowed = _number("WATCHDOG_USEC")
    return allowed / 2_000_000 if allowed else None


def inherited_sockets() -> range:
    """The descriptors of socket activation, from 3 on (sd_listen_fds(3))."""
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
