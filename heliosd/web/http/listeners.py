"""Listening sockets: our own, or one that systemd passed to us; and accepting on them."""

from __future__ import annotations

import errno
import os
import socket as stdlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import structlog
import trio

from heliosd.config.addresses import Listen, joined
from heliosd.errors import HeliosError
from heliosd.websocket.plain import prepare

BACKLOG = 4096
UNIX_SOCKET_MODE = 0o660
ACCEPTED_AT_ONCE = 32
SCARCITY_PAUSE_SECONDS = 0.1
WARNING_SECONDS = 1.0

# accept(2): errors of one connection or of the network; the next connection may be fine.
_TRANSIENT = {
    errno.EPERM,
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ETIMEDOUT,
}
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = structlog.get_logger("heliosd.web")


class Address(NamedTuple):
    """The other end of a connection."""

    host: str
    """An IP address, IPv4 in its own form also when accepted on an IPv6 socket; or `unix`."""
    port: int
    """0 if it is not known."""

    @classmethod
    def of(cls, sockaddr: Any) -> Self:
        """From the result of `accept` or `getpeername` of any family."""
        if not isinstance(sockaddr, tuple):
            return cls("unix", 0)
        host = str(sockaddr[0])
        mapped = host.removeprefix("::ffff:")  # an IPv4 peer of an IPv6 socket
        return cls(host if ":" in mapped else mapped, int(sockaddr[1]))

    def __str__(self) -> str:
        return joined(self.host, self.port) if self.port else self.host


class ListenError(HeliosError):
    """The configured address cannot be listened on; the text gives the reason."""


async def open_listeners(*places: Listen, reuse_port: bool = False) -> list[trio.SocketListener]:
    """Listening sockets: one for each address of a host, an inherited descriptor, a Unix socket of mode 0660.

    `::` takes IPv4 as well. With port 0 all addresses of a host get the same free port. Raises ListenError.
    """
    listeners: list[trio.SocketListener] = []
    for place in places:
        try:
            listeners += [_inherited(place.fd)] if place.fd is not None else await _bound(place, reuse_port)
        except (OSError, ListenError) as error:
            for listener in listeners:
                listener.socket.close()
            if isinstance(error, ListenError):
                raise
            raise ListenError(f"cannot listen on {place}: {error.strerror}") from error
    return listeners


async def accept_each(
    listener: trio.SocketListener,
    take: Callable[[stdlib.socket, Address], None],
    wait_for_room: Callable[[], Awaitable[None]],
    make_room: Callable[[], None],
) -> None:
    """Passes every new connection, non-blocking, and its peer's address to `take`, until cancelled.

    At most `ACCEPTED_AT_ONCE` are accepted between two checkpoints, each time after `wait_for_room`. Without
    descriptors or memory it calls `make_room`, waits a little and tries again, with at most one log line a second.
    """
    warned = -WARNING_SECONDS
    # A duplicate of the descriptor, so that accepting needs no Trio socket object for each connection.
    with stdlib.socket(fileno=os.dup(listener.socket.fileno())) as waiting:
        waiting.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(listener.socket)
            await wait_for_room()
            try:
                for _ in range(ACCEPTED_AT_ONCE):
                    socket, address = waiting.accept()
                    socket.setblocking(False)
                    take(socket, Address.of(address))
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno in _SCARCE:
                    make_room()
                    now = trio.current_time()
                    if now - warned >= WARNING_SECONDS:
                        warned = now
                        log.warning("cannot accept connections", reason=os.strerror(error.errno))
                    await trio.sleep(SCARCITY_PAUSE_SECONDS)
                elif error.errno not in _TRANSIENT:
                    raise


async def _bound(place: Listen, reuse_port: bool) -> list[trio.SocketListener]:
    if place.path:
        return [_unix(Path(place.path))]
    listeners: list[trio.SocketListener] = []
    absent: OSError | None = None
    for family, *_, address in await trio.socket.getaddrinfo(
        place.host, place.port, type=stdlib.SOCK_STREAM, flags=stdlib.AI_PASSIVE
    ):
        port = place.port or (listeners[0].socket.getsockname()[1] if listeners else 0)
        try:
            listeners.append(await _listening(family, (address[0], port, *address[2:]), reuse_port))
        except OSError as error:
            # `localhost` has an IPv6 address by name also where the machine has no IPv6.
            if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                for listener in listeners:
                    listener.socket.close()
                raise
            absent = error
    if not listeners and absent is not None:
        raise absent
    return listeners


async def _listening(family: int, address: tuple[Any, ...], reuse_port: bool) -> trio.SocketListener:
    socket = trio.socket.socket(family, stdlib.SOCK_STREAM)
    try:
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEPORT, reuse_port)
        if family == stdlib.AF_INET6:
            socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, address[0] != "::")
        prepare(socket)
        await socket.bind(address)
        socket.listen(BACKLOG)
        return trio.SocketListener(socket)
    except BaseException:
        socket.close()
        raise


def _unix(path: Path) -> trio.SocketListener:
    _remove_stale(path)
    socket = stdlib.socket(stdlib.AF_UNIX)
    try:
        socket.bind(str(path))
        path.chmod(UNIX_SOCKET_MODE)
        socket.listen(BACKLOG)
        return trio.SocketListener(trio.socket.from_stdlib_socket(socket))
    except BaseException:
        socket.close()
        raise


def _remove_stale(path: Path) -> None:
    """Removes a socket on which no process listens any more. Other files stay, and `bind` refuses them."""
    with suppress(FileNotFoundError), stdlib.socket(stdlib.AF_UNIX) as probe:
        if path.is_socket():
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            except BlockingIOError:  # its queue is full
                pass


def _inherited(fd: int) -> trio.SocketListener:
    try:
        socket = stdlib.socket(fileno=fd)
    except OSError as error:
        raise ListenError(f"fd:{fd}: no socket was passed ({error.strerror})") from error
    listening = socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN)
    if (
        socket.type != stdlib.SOCK_STREAM
        or socket.family not in {stdlib.AF_INET, stdlib.AF_INET6, stdlib.AF_UNIX}
        or not listening
    ):
        socket.detach()  # we do not own it
        raise ListenError(f"fd:{fd}: not a listening stream socket")
    os.set_inheritable(fd, False)
    prepare(socket)
    return trio.SocketListener(trio.socket.from_stdlib_socket(socket))
