"""What a route is: a path, a method, who may use it, what it reads, and the view that answers.

Views are plain async functions from a `Call` to an `Answer`; only `app.py` knows the web framework.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from heliosd.auth.identity import Identity
from heliosd.clock import Instant
from heliosd.config.model import Config
from heliosd.web.http.listeners import Address

from .password_check import PasswordCheck
from .services import Services
from .static_files import Pages

Q = TypeVar("Q", bound=Struct)
B = TypeVar("B", bound=Struct)

Method = Literal["GET", "POST", "PUT", "DELETE"]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """A query string or a body in which nothing is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Q, B]):
    """One request after its token, its query string and its body were found good."""

    services: Services
    password_check: PasswordCheck
    pages: Pages
    now: Instant
    query: Q
    body: B
    identity: Identity | None
    """None only on a route that needs no token."""
    address: Address
    """The peer as the socket knows it; forwarding headers are not believed."""
    host: str
    """The Host header, as sent."""
    name: str = ""
    """The last part of the path, where the route's path ends in `{name}`."""
    if_none_match: str = ""
    last_event_id: str = ""
    """Where an event stream that broke off had come to (`Last-Event-ID`)."""

    @property
    def who(self) -> Identity:
        assert self.identity is not None, "only routes that need a token ask who"
        return self.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`body` is sent as it is if it is bytes, piece by piece for as long as it goes on if it is a generator, else
    as JSON."""

    body: Struct | Mapping[str, object] | bytes | AsyncGenerator[bytes, None]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def always(_: Config) -> bool:
    return True


def never(_: Config) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`paths[0]` is the one to document, the others are aliases. GET also answers HEAD.

    The view's `Call` has `query` and `body` as its parameters.
    """

    paths: tuple[str, ...]
    method: Method
    view: Callable[[Call[Any, Any]], Awaitable[Answer]]
    summary: str
    permission: str | None = None
    """None: any valid token will do."""
    needs_token: Callable[[Config], bool] = always
    token_in_query: bool = False
    """`?token=` and `?ticket=` count as well: for a browser's EventSource, which cannot send headers."""
    query: type[Struct] = Nothing
    body: type[Struct] = Nothing
    """Read only for methods other than GET."""
    status: int = 200
    """What it answers when all went well."""
