"""What a route is: paths, a method, the permission it needs, the shapes it reads, and the view that answers.

Views are plain async functions from a `Call` to an `Answer`; only `app.py` knows the web framework.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct, field

from heliosd.auth.identity import Identity
from heliosd.clock import Instant
from heliosd.cluster.idempotency import WriteKey
from heliosd.config.model import Config
from heliosd.web.authentication import RequestCredentials
from heliosd.web.http.listeners import Address

from .description.documents import Documents
from .password_check import PasswordCheck
from .request_data import MAX_BODY_BYTES
from .services import Services
from .static_files import Pages

Q = TypeVar("Q", bound=Struct)
B = TypeVar("B", bound=Struct)

Method = Literal["GET", "POST", "PUT", "DELETE"]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """A query string or a body without fields."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Q, B]):
    """One request whose token, query string and body have been checked."""

    services: Services
    password_check: PasswordCheck
    pages: Pages
    documents: Documents
    now: Instant
    query: Q
    body: B
    identity: Identity | None
    """None only on a route that needs no token."""
    credentials: RequestCredentials | None = dataclasses.field(repr=False)
    """What `identity` was authenticated by."""
    cookies: Sequence[str] = dataclasses.field(repr=False)
    """The Cookie headers, as sent."""
    base_path: str
    """Below which the browser finds this API."""
    secure: bool
    """The browser uses HTTPS."""
    address: Address
    """The peer of the socket; forwarding headers are ignored."""
    host: str
    """The Host header, as sent."""
    name: str = ""
    """The last part of the path, where the route's path ends in `{name}`."""
    accept: str = ""
    if_none_match: str = ""
    key: WriteKey | None = None
    """Of a write with an `Idempotency-Key`."""
    repeated: bool = False
    """This write was begun before with the same key, and what became of it is not known."""
    last_event_id: str = ""
    """`Last-Event-ID`: the last event that a client of an event stream has got."""

    @property
    def who(self) -> Identity:
        assert self.identity is not None, "only routes that need a token use this"
        return self.identity


class Answer(Struct, frozen=True, kw_only=True):
    """`body` is sent as it is if it is bytes, piece by piece if it is a generator, else as JSON."""

    body: Struct | Mapping[str, object] | bytes | AsyncGenerator[bytes, None]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_body(body: Struct | Mapping[str, object]) -> bytes:
    """As it is sent: with a newline at the end, so that a terminal's prompt begins a line of its own."""
    return msgspec.json.encode(body) + b"\n"


def always(_: Config) -> bool:
    return True


def never(_: Config) -> bool:
    return False


class Route(Struct, frozen=True, kw_only=True):
    """`paths[0]` is the one to document, the others are aliases. GET also answers HEAD.

    The view's `Call` has `query` and `body` as its parameters.
    """

    paths: tuple[str, ...]
    method: Method
    view: Callable[[Call[Any, Any]], Awaitable[Answer]]
    summary: str
    answer: Any
    """What a success answers: the type of its JSON, a tuple if there are several, or a media type if it is none."""
    other_answers: Mapping[int, Any] = field(default_factory=dict)
    """The same by status, of those that are neither a success nor `{"error", "field"?}`."""
    permission: str | None = None
    """None: any valid token is enough."""
    needs_token: Callable[[Config], bool] = always
    token_in_query: bool = False
    """`?token=` and `?ticket=` authenticate, too: a browser's EventSource cannot send headers."""
    query: type[Struct] = Nothing
    body: type[Struct] = Nothing
    """Read only for methods other than GET."""
    audited: bool = False
    """Each request is a line in the log, who and from where; always so where `cluster:admin` is needed."""
    max_body_bytes: int = MAX_BODY_BYTES
    costly: bool = False
    """Its view takes milliseconds and awaits nothing: one request is answered at a time, and others run between."""
    status: int = 200
    """Of the answer on success."""
    writes: bool = True
    """For methods other than GET. Without, the view itself limits its time, and its outcome is never unknown."""
    keyed: Literal["", "log", "here"] = ""
    """What an `Idempotency-Key` does: nothing; the key goes through the cluster's log; this daemon remembers."""
