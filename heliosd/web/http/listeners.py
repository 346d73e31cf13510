"""Listening sockets: our own, or one that systemd passed to us; and accepting on them."""

from __future__ import annotations

import errno
import os
import socket as stdlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

import structlog
import trio

from heliosd.config.addresses import Listen, joined
from heliosd.errors import HeliosError
from heliosd.websocket.plain import prepare

BACKLOG = 4096
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
    """An IP address; IPv4 in its own form, also when accepted on an IPv6 socket."""
    port: int

    @classmethod
    def of(cls, sockaddr: tuple[Any, ...]) -> Self:
        """From the result of `accept` or `getpeername` of either family."""
        host = str(sockaddr[0])
        mapped = host.removeprefix("::ffff:")  # an IPv4 peer of an IPv6 socket
        return cls(host if ":" in mapped else mapped, int(sockaddr[1]))

    def __str__(self) -> str:
        return joined(self.host, self.port)


class ListenError(HeliosError):
    """The configured address cannot be listened on; the text gives the reason."""


async def open_listeners(listen: Listen) -> list[trio.SocketListener]:
    """Listening sockets for `listen`: one for each address its host has, or the inherited descriptor.

    `::` takes IPv4 as well. With port 0 all get the same free port. Raises ListenError.
    """
    if listen.fd is not None:
        return [_inherited(listen.fd)]
    listeners: list[trio.SocketListener] = []
    absent: OSError | None = None
    try:
        for family, *_, address in await trio.socket.getaddrinfo(
            listen.host, listen.port, type=stdlib.SOCK_STREAM, flags=stdlib.AI_PASSIVE
        ):
            port = listen.port or (listeners[0].socket.getsockname()[1] if listeners else 0)
            try:
                listeners.append(await _bound(family, (address[0], port, *address[2:])))
            except OSError as error:
                # `localhost` has an IPv6 address by name also where the machine has no IPv6.
                if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                    raise
                absent = error
        if not listeners and absent is not None:
            raise absent
    except OSError as error:
        for listener in listeners:
            listener.socket.close()
        raise ListenError(f"cannot listen on {listen}: {error.strerror}") from error
    return listeners


async def accept_each(
    listener: trio.SocketListener,
    take: Callable[[stdlib.socket, Address], None],
    wait_for_room: Callable[[], Awaitable[None]],
) -> None:
    """Passes every new connection, non-blocking, and its peer's address to `take`, until cancelled.

    At most `ACCEPTED_AT_ONCE` are accepted between two checkpoints, each time after `wait_for_room`. Without
    descriptors or memory it waits a little and tries again, with at most one log line a second.
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
                    now = trio.current_time()
                    if now - warned >= WARNING_SECONDS:
                        warned = now
                        log.warning("cannot accept connections", reason=os.strerror(error.errno))
                    await trio.sleep(SCARCITY_PAUSE_SECONDS)
                elif error.errno not in _TRANSIENT:
                    raise


async def _bound(family: int, address: tuple[object, ...]) -> trio.SocketListener:
    socket = trio.socket.socket(family, stdlib.SOCK_STREAM)
    try:
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        if family == stdlib.AF_INET6:
            socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, address[0] != "::")
        prepare(socket)
        await socket.bind(address)
        socket.listen(BACKLOG)
        return trio.SocketListener(socket)
    except BaseException:
        socket.close()
        raise


def _inherited(fd: int) -> trio.SocketListener:
    try:
        socket = stdlib.socket(fileno=fd)
    except OSError as error:
        raise ListenError(f"fd:{fd}: no socket was passed ({error.strerror})") from error
    listening = socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN)
    if (
        socket.type != stdlib.SOCK_STREAM
        or socket.family not in {stdlib.AF_INET, stdlib.AF_INET6}
        or not listening
    ):
        socket.detach()  # we do not own it
        raise ListenError(f"fd:{fd}: not a listening TCP socket")
    os.set_inheritable(fd, False)
    prepare(socket)
    return trio.SocketListener(trio.socket.from_stdlib_socket(socket))
