"""The certificate of the listening ports, read again when its files change."""

from __future__ import annotations

import errno
import ssl
import stat
import threading
from pathlib import Path
from typing import TypeAlias

import structlog
import trio

from heliosd.websocket.tls import server_context

CHECK_SECONDS = 1.0

_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]

log = structlog.get_logger("heliosd")


class ServerCertificate:
    """A certificate and its key as PEM files. `context` is for the next connection.

    Raises OSError when they cannot be used at the start. Later, files that cannot be used change nothing.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert, key)
        self._reading = threading.Lock()
        self._loaded = self._failed = self._reported = self._stamp()
        self._require_files()
        self.context: ssl.SSLContext = server_context(cert, key)

    async def refresh(self) -> None:
        """Use the files if they are not those in use.

        They are read in a thread: a disk or a share that hangs holds up nobody else. While an earlier call reads
        them, this one returns at once.

        A pair that fails is logged once, and not before the next call: the two files may be replaced one after the
        other. It is tried again at each call: owner, mode or a lack of descriptors may have been in the way, which
        leave the stamp as it is.
        """
        await trio.to_thread.run_sync(self._refresh_alone, abandon_on_cancel=True)

    def _refresh_alone(self) -> None:
        if self._reading.acquire(blocking=False):
            try:
                self._refresh()
            finally:
                self._reading.release()

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._loaded:
            return
        try:
            self._require_files()
            self.context = server_context(*self._files)
        except OSError as error:
            if stamp == self._failed and stamp != self._reported:
                log.error(
                    "certificate not usable; the old one stays in use",
                    cert=str(self._files[0]),
                    reason=str(error),
                )
                self._reported = stamp
            self._failed = stamp
        else:
            self._loaded = self._failed = self._reported = stamp
            log.info("certificate renewed", cert=str(self._files[0]))

    async def watch(self) -> None:
        """Refresh once a second, until cancelled."""
        while True:
            await trio.sleep(CHECK_SECONDS)
            await self.refresh()

    def _require_files(self) -> None:
        """Reading a pipe would wait for a writer."""
        for file in self._files:
            if not stat.S_ISREG(file.stat().st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(file))

    def _stamp(self) -> _Stamp:
        return tuple(map(_stamp_of, self._files))


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
