"""Member ids, hosts, ports, URLs and origins: one set of rules for the file, the API, browsers and the client."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

_MEMBER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_AUTHORITY = r"(?P<host>[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
_HOST_HEADER = re.compile(_AUTHORITY, re.ASCII)
_ORIGIN = re.compile(rf"(?P<scheme>https?)://{_AUTHORITY}", re.ASCII)
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65_535


class Listen(Struct, frozen=True):
    """Where to accept: `host` and `port` (0 = any free one), the inherited descriptor `fd`, or a Unix socket."""

    host: str = "127.0.0.1"
    port: int = 8080
    fd: int | None = None
    path: str = ""

    def __str__(self) -> str:
        if self.fd is not None:
            return f"fd:{self.fd}"
        if self.path:
            return f"unix:{self.path}"
        return joined(self.host, self.port)


class Origin(NamedTuple):
    """A page's origin (RFC 6454), in lower case and with its port."""

    scheme: str
    host: str
    port: int


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
    if not lowest_port <= int(port) <= MAX_PORT:
        raise ValueError(f"the port must be from {lowest_port} to {MAX_PORT}")
    if host.startswith("[") and host.endswith("]"):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
            # A socket for IPv6 alone cannot be bound to a mapped address; it is the IPv4 address inside.
            return str(address.ipv4_mapped or address), int(port)
        except ValueError:
            raise ValueError(f"{host} is no IPv6 address") from None
    if not host:
        raise ValueError(f'the host is missing; for every interface write "0.0.0.0:{port}" or "[::]:{port}"')
    if ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets: [{host}]:{port}")
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("the host is neither a name nor an address")
    return host, int(port)


def joined(host: str, port: int) -> str:
    """HOST:PORT, or [v6]:PORT."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def member_address(text: str) -> str:
    """`text` if it is HOST:PORT or [v6]:PORT with a port from 1 on. Raises ValueError saying what is wrong."""
    host_port(text)
    return text


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address in `host`, with brackets or a zone or without; None if it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether `host` can only mean this machine."""
    address = ip_of(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback


def split_url(text: str, schemes: Collection[str] = ("http", "https")) -> SplitResult:
    """The parts of a URL with a host. Raises ValueError; the text never repeats a password."""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in schemes and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError("is not a URL") from None
    if not sound or not text.isprintable() or " " in text:
        raise ValueError("must be a URL such as http://127.0.0.1:2379")
    try:
        # As it is looked up: no part is empty or longer than 63 characters.
        (parts.hostname or "").encode("idna")
    except UnicodeError:
        raise ValueError("has a host that cannot be a name") from None
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or password")
    return parts


def parse_origin(text: str) -> Origin | None:
    """An Origin of the form `http[s]://host[:port]`; None if it is something else."""
    found = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
    if found is None:
        return None
    port = int(found["port"] or DEFAULT_PORTS[found["scheme"]])
    return Origin(found["scheme"], found["host"], port) if 1 <= port <= MAX_PORT else None


def parse_host_header(text: str) -> tuple[str, int | None] | None:
    """Host in lower case and port of a Host header (None: none is given); None if it is not HOST or HOST:PORT."""
    # RFC 3986 section 3.2.3: an empty port is none.
    found = _HOST_HEADER.fullmatch(text.lower().removesuffix(":")) if text.isascii() else None
    if found is None:
        return None
    return found["host"], int(found["port"]) if found["port"] else None
