"""A client's connection as the hub knows it: how to put bytes into it without waiting, and how to end it."""

from __future__ import annotations

from typing import Protocol

LINGER_SECONDS = 1.0
"""How long a client may take to answer a close frame before its connection is aborted."""


class Transport(Protocol):
    """Every method but `wait_writable` is synchronous and may be called between two
    checkpoints of the hub. One task at a time waits in `wait_writable`."""

    @property
    def direct(self) -> bool:
        """True: the hub may `os.write(transport.fileno(), …)` by itself. False: only `write_now`."""

    @property
    def encrypted(self) -> bool:
        """True (TLS): what is written to the descriptor must have gone through `encrypt`."""

    @property
    def pending(self) -> bool:
        """True: bytes that were taken have not all reached the socket, and nothing sends them until the hub
        calls `write_now` or awaits `wait_writable`. Always False where `encrypted` is False."""

    def fileno(self) -> int:
        """The descriptor at this moment, -1 once closed. Never keep it across a checkpoint: the number may by
        then be another client's."""

    def encrypt(self, data: bytes) -> bytes:
        """What to write to the descriptor so that `data` arrives, behind what is `pending`, where
        `encrypted` is True. It must be written before anything else; what the socket does not take is for `keep`.

        Raises OSError when the connection is gone.
        """

    def keep(self, rest: bytes | memoryview) -> None:
        """The end of what `encrypt` gave: it is `pending` now."""

    def begin_flight(self) -> None:
        """Another thread writes what `encrypt` gave: until `end_flight` nothing else is written to the socket, not
        even what TLS has to say by itself. Called where `encrypted` is True."""

    def end_flight(self, rest: bytes | memoryview) -> None:
        """It has written all but `rest`, which is `pending` now."""

    def write_now(self, data: bytes | memoryview) -> int:
        """Gives `data` to the socket without waiting. Returns how many bytes were taken, 0 to `len(data)`;
        the rest is the caller's to offer again. TLS takes all or nothing: 0 while `pending` bytes do not fit.

        Raises OSError when the connection is gone.
        """

    async def wait_writable(self) -> None:
        """Waits until the socket takes bytes again; over TLS, sends what is `pending` first.

        Raises `trio.BrokenResourceError` or `trio.ClosedResourceError` when the connection is gone.
        """

    def abort(self) -> None:
        """Aborts the connection now and drops what the kernel still holds. Tasks that wait on it get
        `trio.ClosedResourceError`. May be called more than once."""


class Reading(Protocol):
    """The task that reads from a client, which is its connection's own. Synchronous."""

    def hang_up(self) -> None:
        """The connection is over."""

    def linger(self) -> None:
        """The close frame is on the wire: the client has `LINGER_SECONDS` to answer it."""
