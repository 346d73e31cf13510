"""The client's requests over HTTP: tokens, and the events that are too many for a replay."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import msgspec
from msgspec import Struct

from heliosd.config.addresses import split_url
from heliosd.errors import BAD_JSON, AccessRefused, NotUnderstood

from .reconnect import ConnectionLost, TokenRefused, after_refusal, is_temporary

REQUEST_SECONDS = 10.0
PAGE_EVENTS = 1000
"""Events in one page of the history."""

_NOT_GIVEN = {403, 410}
"""The right is missing, or the events are not kept."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


@dataclass(frozen=True, slots=True)
class Password:
    """A user and password to log in with, whenever a new token is needed."""

    user: str
    password: str = field(repr=False)


TokenSource = Callable[[], Awaitable[str]]
"""Returns the token to use now. Called first and after a token has ended. OSError: another attempt follows."""

Credentials = Password | str | TokenSource
"""A password, a token, or a source of tokens."""


class ServerURL(Struct, frozen=True):
    """The address of a daemon."""

    host: str
    port: int
    tls: bool
    netloc: str
    """The value of the `Host` header."""
    prefix: str
    """The path prefix under which a proxy serves the daemon."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.netloc}{self.prefix}"


def parse_server_url(url: str) -> ServerURL:
    """The parts of `http://HOST:PORT` (or https, ws, wss). Raises ValueError; its text never repeats a password."""
    try:
        parts = split_url(url, {"http", "https", "ws", "wss"})
    except ValueError as wrong:
        raise ValueError(f"the daemon's URL {wrong}") from None
    if parts.query or parts.fragment:
        raise ValueError("the daemon's URL must not contain a query or a fragment")
    tls = parts.scheme in {"https", "wss"}
    port = parts.port or (443 if tls else 80)
    return ServerURL(parts.hostname or "", port, tls, parts.netloc.removesuffix(":"), parts.path.rstrip("/"))


class _LoginAnswer(msgspec.Struct, frozen=True):
    token: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is no success."""

    error: str = ""
    field: str | None = None


class EventsPage(msgspec.Struct, frozen=True):
    """One page of `GET /api/cluster/history`."""

    epoch: str
    events: list[msgspec.Raw]
    more: bool
    seq: int
    """Without `more` the page holds all up to this event, which may be older than one heard of elsewhere."""


class TokenManager:
    """The token of one client: logs in when one is needed, and renews it."""

    def __init__(self, http: httpx.AsyncClient, credentials: Credentials) -> None:
        self._http = http
        self._credentials = credentials
        self._token: str | None = None
        self._untried = False

    async def token(self) -> str:
        """The token to use now. Raises `ConnectionLost` and `FollowingEnded`."""
        if self._token is None:
            self._token = await self._obtain()
            self._untried = True
        return self._token

    def accepted(self) -> None:
        """The daemon accepted the token."""
        self._untried = False

    def refused(self, token: str, reason: str) -> None:
        """The daemon refused this token. Raises `AccessRefused` if it was a new one. Another request may have put a
        newer one in its place already, of which this says nothing."""
        if token != self._token:
            return
        # Not to be used again, whether or not the caller goes on.
        self.forget(token)
        if self._untried:
            raise AccessRefused(reason)

    def forget(self, token: str) -> None:
        """This token has ended."""
        if token == self._token:
            self._token = None

    async def renew(self) -> str:
        """A newer token in place of the present one. Raises `ConnectionLost` and `FollowingEnded`."""
        present = await self.token()
        answer = await self._ask("POST", "/api/auth/refresh", headers={"Authorization": f"Bearer {present}"})
        if answer.is_success:
            self._token = _session(answer)
        elif not is_temporary(answer.status_code):
            # It can no longer be renewed: log in again.
            self._token = await self._obtain()
        else:
            raise _as_connection_lost(answer)
        return self._token

    async def page(self, epoch: str, after: int, types: str | None) -> EventsPage | None:
        """Events beyond `after`; None if the daemon does not keep or give them. Raises `ConnectionLost`,
        `TokenRefused` and `FollowingEnded`."""
        asked = {"epoch": epoch, "after": str(after), "limit": str(PAGE_EVENTS)}
        token = await self.token()
        if types is not None:
            asked["types"] = types
        answer = await self._ask(
            "GET",
            "/api/cluster/history",
            params=asked,
            headers={"Authorization": f"Bearer {token}"},
        )
        if answer.status_code == 401:  # it has ended while the pages before were taken
            raise TokenRefused(error_text(answer.content, answer.status_code), token)
        if answer.status_code in _NOT_GIVEN:
            return None
        if not answer.is_success:
            raise _as_connection_lost(answer)
        try:
            return msgspec.json.decode(answer.content, type=EventsPage)
        except BAD_JSON as wrong:
            raise ConnectionLost("a page of the history was not answered as heliosd does") from wrong

    async def _obtain(self) -> str:
        if isinstance(self._credentials, Password):
            body = {"username": self._credentials.user, "password": self._credentials.password}
            answer = await self._ask("POST", "/api/auth/login", json=body)
            if not answer.is_success:
                raise _as_connection_lost(answer)
            return _session(answer)
        if isinstance(self._credentials, str):
            token = self._credentials
        else:
            try:
                token = await self._credentials()
            except OSError as error:
                raise ConnectionLost(f"no token: {error}") from error
        if not _TOKEN.fullmatch(token):
            raise AccessRefused("the token that was given is not one")
        return token

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return await self._http.request(method, path, json=json, params=params, headers=headers)
        except httpx.HTTPError as error:
            raise ConnectionLost(
                f"cannot ask {self._http.base_url.netloc.decode('ascii')}: {words_of(error)}"
            ) from error


def open_http(server: ServerURL, ssl_context: ssl.SSLContext | None) -> httpx.AsyncClient:
    """The HTTP client of a `TokenManager`. As for the WebSocket, proxies of the environment are not used."""
    return httpx.AsyncClient(
        base_url=server.url, verify=ssl_context or False, timeout=REQUEST_SECONDS, trust_env=False
    )


def words_of(error: BaseException) -> str:
    """The text of an error, or of its cause if the error has none or an OSError is behind it."""
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {REQUEST_SECONDS:g} s"
    at: BaseException | None = error
    while at is not None and (not str(at) or isinstance(at.__cause__, OSError)):
        at = at.__cause__ or at.__context__
    return str(at or type(error).__name__)


def error_of(body: bytes, status: int) -> ErrorBody:
    """The error of an answer, with a text of ours if it has none."""
    try:
        said = msgspec.json.decode(body, type=ErrorBody)
    except BAD_JSON:
        said = ErrorBody()
    return said if said.error else ErrorBody(f"the daemon answered with HTTP status {status}")


def error_text(body: bytes, status: int) -> str:
    """The error text of an answer."""
    return error_of(body, status).error


def _as_connection_lost(answer: httpx.Response) -> ConnectionLost:
    said = error_text(answer.content, answer.status_code)
    return after_refusal(answer.status_code, said, answer.headers.get("Retry-After"))


def _session(answer: httpx.Response) -> str:
    try:
        token = msgspec.json.decode(answer.content, type=_LoginAnswer).token
    except BAD_JSON as wrong:
        raise NotUnderstood(f"{answer.url.path} was not answered as heliosd does") from wrong
    if not _TOKEN.fullmatch(token):
        raise NotUnderstood(f"{answer.url.path} was not answered with a token")
    return token
