"""The certificate files of `[cluster.etcd]`, as what a new TLS connection is made with."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import trio

from heliosd.config.model import EtcdConfig

from .no_answer import NoAnswer

READ_SECONDS = 1.0
"""Files on a share that hangs are not waited for any longer."""

log = logging.getLogger(__name__)


class ClientCertificates:
    """The files are read when they are first needed, and again when they change.

    A certificate and its key are replaced one after the other, so there is a time in which they do not fit: until
    all files can be used, what was read last stays in use.
    """

    def __init__(self, config: EtcdConfig) -> None:
        self._files = (config.ca_cert, config.client_cert, config.client_key)
        self.shown = config.client_cert is not None
        """Whether the other side is shown a certificate."""
        self._read: object = None
        self._context: ssl.SSLContext | None = None
        self._warned = ""
        # A thread behind a file that hangs lasts as long as that, so there is one at most.
        self._one_thread = trio.CapacityLimiter(1)

    async def context(self) -> ssl.SSLContext:
        """For connections made from now on. Raises `NoAnswer` as long as the files could never be used."""
        why: str | None = f"cannot read the certificate files within {READ_SECONDS:g} s"
        with trio.move_on_after(READ_SECONDS):
            # In a thread: a disk or a share that hangs holds up nobody else.
            why = await trio.to_thread.run_sync(
                self._refresh, limiter=self._one_thread, abandon_on_cancel=True
            )
        if why is not None:
            self._keep(why)
        assert self._context is not None
        return self._context

    def _refresh(self) -> str | None:
        """Why the files cannot be used now; None if they can."""
        try:
            stamp = tuple((path, path.stat().st_mtime_ns) for path in self._files if path is not None)
            if self._context is None or stamp != self._read:
                self._context, self._read = _context(*self._files), stamp
                self._warned = ""
        except ssl.SSLError as error:
            return f"the certificate files cannot be used: {error.reason or error}"
        except OSError as error:
            return f"cannot read {error.filename}: {error.strerror}"
        return None

    def _keep(self, why: str) -> None:
        if self._context is None:
            raise NoAnswer(why, sent=False) from None
        if why != self._warned:
            self._warned = why
            log.warning("%s; connections to etcd are made with those read before", why)


def _context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca)
    if cert is not None:
        context.load_cert_chain(cert, key, password="")
    return context
