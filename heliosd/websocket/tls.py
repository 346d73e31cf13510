"""TLS as a Trio stream that can also write synchronously.

An `ssl.SSLObject` between two memory BIOs returns what it encrypts, so that a frame is encrypted and written
between two checkpoints; `trio.SSLStream` cannot do that. Ciphertext that the socket did not take is sent
before all else.
"""

from __future__ import annotations

import os
import socket as stdlib
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import trio

from .plain import PIECE_BYTES, PlainStream, abort_socket, close, receive, wait_until_writable
from .tls_records import MAX_CIPHERTEXT_BYTES, RecordCount

RECEIVE_BYTES = 4096
"""Given to OpenSSL at once, beside the rest of a record: it goes through all of it without a checkpoint."""
RECORD_BYTES = 16 * 1024
"""Encrypted at once: the longest record. The memory that OpenSSL encrypts into never shrinks while the connection
lasts."""
MAX_WITHOUT_DATA = 32
"""Records without application data that a peer may send in a row, as many as OpenSSL allows of empty ones."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, HTTP/1.1 only, no renegotiation, no session tickets (they cost a third of a handshake).

    Raises OSError (`ssl.SSLError` is one) when the PEM files cannot be read, do not belong together, or the key
    needs a passphrase.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0
    # Without a password OpenSSL would ask for one on the terminal and wait for it.
    context.load_cert_chain(certificate, key, password=b"")
    return context


class TLSStream(trio.abc.HalfCloseableStream):
    """The server's side of a TLS connection, with the methods and the rules of `PlainStream`. Call `do_handshake`
    first. An end without `close_notify` reads as an end: HTTP and WebSocket carry their own lengths."""

    __slots__ = (
        "_ended",
        "_in_flight",
        "_incoming",
        "_outgoing",
        "_records",
        "_sending",
        "_ssl",
        "_unsent",
        "socket",
    )

    direct = encrypted = True

    def __init__(self, socket: stdlib.socket, context: ssl.SSLContext) -> None:
        self.socket = socket
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._records = RecordCount()
        self._unsent = b""
        self._sending = False
        self._ended = False
        self._in_flight = False

    async def do_handshake(self) -> None:
        """Raises `trio.BrokenResourceError` when it fails or the peer left."""
        while True:
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self._drain()
                if not await self._feed():
                    raise trio.BrokenResourceError("the peer left during the TLS handshake") from None
            except ssl.SSLError as error:
                self._flush_quietly()  # the alert that says why
                raise trio.BrokenResourceError("TLS handshake failed") from error
            else:
                await self._drain()
                return

    def selected_alpn_protocol(self) -> str | None:
        return self._ssl.selected_alpn_protocol()

    @property
    def pending(self) -> bool:
        return bool(self._unsent) or self._outgoing.pending > 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this connection")
        if self._ended:
            raise trio.ClosedResourceError("this direction was closed")
        self._sending = True
        try:
            with memoryview(data) as view:
                for start in range(0, len(view), PIECE_BYTES):
                    try:
                        self._unsent += self._encrypt_by_pieces(view[start : start + PIECE_BYTES])
                    except ssl.SSLError as error:
                        raise trio.BrokenResourceError("TLS connection is over") from error
                    await self._drain()
        finally:
            self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if self.socket.fileno() < 0:
                raise trio.ClosedResourceError("this connection was closed")
            return await self._receive(PIECE_BYTES if max_bytes is None else max_bytes)
        finally:
            # Not cancellable, or what was read from the BIO would be lost.
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _receive(self, max_bytes: int) -> bytes:
        while True:
            try:
                return self._read(max_bytes)
            except ssl.SSLWantReadError:
                self._flush_quietly()  # an answer of TLS itself, such as a key update's
                if not await self._feed():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                self._flush_quietly()
                if self._ended:
                    # Behind our close_notify OpenSSL reads nothing where a record was unread then. What comes is
                    # of no use any more, but left unread it would make the kernel send a reset.
                    while await receive(self.socket, RECEIVE_BYTES):
                        pass
                    return b""
                raise trio.BrokenResourceError("TLS connection is broken") from error

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._drain()
        with suppress(OSError):
            self.half_close()

    def half_close(self) -> None:
        """Sends `close_notify` and ends our direction without a checkpoint. Raises OSError when the connection is
        gone."""
        self._send_close_notify()
        self._flush()
        self.socket.shutdown(stdlib.SHUT_WR)

    async def aclose(self) -> None:
        self._send_close_notify()
        self._flush_quietly()
        close(self.socket)
        await trio.lowlevel.checkpoint()

    def fileno(self) -> int:
        return self.socket.fileno()

    def read_now(self, max_bytes: int) -> bytes | None:
        """As `PlainStream.read_now`, but fewer bytes than `max_bytes` may not be all: read until None."""
        while True:
            try:
                return self._read(max_bytes)
            except ssl.SSLWantReadError:
                self._flush()
                try:
                    data = self.socket.recv(self._room())
                except BlockingIOError:
                    return None
                if not data:
                    return b""
                self._take(data)
            except ssl.SSLZeroReturnError:
                return b""

    def encrypt(self, data: bytes) -> bytes:
        if len(data) <= RECORD_BYTES:
            self._ssl.write(data)
            ciphertext = self._outgoing.read()
        else:
            ciphertext = self._encrypt_by_pieces(data)
        unsent, self._unsent = self._unsent, b""
        return unsent + ciphertext

    def keep(self, rest: bytes | memoryview) -> None:
        self._unsent = bytes(rest)

    def begin_flight(self) -> None:
        self._in_flight = True

    def end_flight(self, rest: bytes | memoryview) -> None:
        self._in_flight = False
        self._unsent = bytes(rest)

    def write_now(self, data: bytes | memoryview) -> int:
        if not self._flush():
            return 0
        self._unsent = self._encrypt_by_pieces(data)
        self._flush()
        return len(data)

    async def wait_writable(self) -> None:
        await wait_until_writable(self.socket)
        await self._drain()

    wait_send_all_might_not_block = wait_writable

    def abort(self) -> None:
        abort_socket(self.socket)

    def _encrypt_by_pieces(self, data: bytes | memoryview) -> bytes:
        """Whatever the length, OpenSSL holds one record at a time. Raises `ssl.SSLError`."""
        records: list[bytes] = []
        for start in range(0, len(data), RECORD_BYTES):
            self._ssl.write(data[start : start + RECORD_BYTES])
            records.append(self._outgoing.read())
        return b"".join(records)

    def _send_close_notify(self) -> None:
        if not self._ended:
            self._ended = True
            # unwrap() also wants the peer's close_notify; ours has been written by then.
            with suppress(ssl.SSLError):
                self._ssl.unwrap()

    def _flush(self) -> bool:
        """Gives the socket what ciphertext it takes now; True when none is left. Raises OSError."""
        if self._in_flight:
            return False
        while True:
            if not self._unsent:
                if not self._outgoing.pending:
                    return True
                self._unsent = self._outgoing.read()
            try:
                written = os.write(self.socket.fileno(), self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[written:]

    def _flush_quietly(self) -> None:
        with suppress(OSError):
            self._flush()

    async def _drain(self) -> None:
        while True:
            try:
                if self._flush():
                    return
            except OSError as error:
                if self.socket.fileno() < 0:
                    raise trio.ClosedResourceError("this connection was closed") from None
                raise trio.BrokenResourceError("the peer is gone") from error
            await wait_until_writable(self.socket)

    async def _feed(self) -> bool:
        """False at the end of what the peer sends. OpenSSL is not shown that end: it would refuse to write then."""
        try:
            room = self._room()
        except OSError as error:
            raise trio.BrokenResourceError("TLS connection is broken") from error
        data = await receive(self.socket, room)
        self._take(data)
        return bool(data)

    def _read(self, max_bytes: int) -> bytes:
        data = self._ssl.read(max_bytes)
        self._records.data_read()
        return data

    def _room(self) -> int:
        """How much to receive, once OpenSSL has gone through all that came so far. Raises OSError when the peer has
        sent too much in which there was nothing for us."""
        if self._records.without_data > MAX_WITHOUT_DATA:
            raise ssl.SSLError("too many TLS records without data")
        return RECEIVE_BYTES + min(self._records.lacking, MAX_CIPHERTEXT_BYTES)

    def _take(self, data: bytes) -> None:
        self._records.add(data)
        self._incoming.write(data)


ClientStream: TypeAlias = PlainStream | TLSStream
"""A connection to this daemon, encrypted or not: a Trio stream and a `hub.transport.Transport`."""
