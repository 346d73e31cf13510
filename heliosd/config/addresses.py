"""What a member of the cluster may be called and where it may live: the same rules for the file and the API."""

from __future__ import annotations

import ipaddress
import re

_MEMBER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


def member_id(text: str) -> str:
    """`text` if it can be a member's id. Raises ValueError saying what an id looks like."""
    if not _MEMBER_ID.fullmatch(text):
        raise ValueError(
            "must be 1 to 64 ASCII letters, digits, '.', '_' or '-', and start with a letter or digit"
        )
    return text


def host_port(text: str, *, lowest_port: int = 1) -> tuple[str, int]:
    """The parts of HOST:PORT or [v6]:PORT, the brackets removed. Raises ValueError saying what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port):
        raise ValueError("must be HOST:PORT or [IPv6]:PORT")
    if not lowest_port <= int(port) <= 65_535:
        raise ValueError(f"the port must be from {lowest_port} to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            raise ValueError(f"{host} is no IPv6 address") from None
    if not host:
        raise ValueError(f'the host is missing; for every interface write "0.0.0.0:{port}" or "[::]:{port}"')
    if ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets: [{host}]:{port}")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("the host is neither a name nor an address")
    return host, int(port)


def member_address(text: str) -> str:
    """`text` if it is HOST:PORT or [v6]:PORT with a port from 1 on. Raises ValueError saying what is wrong."""
    host_port(text)
    return text
