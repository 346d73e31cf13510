"""Single requests to the REST API, with the login, token and renewal of the follower's client.

async with open_rest("http://127.0.0.1:8080", Password("admin", secret)) as rest:
    status = await rest.get("/api/cluster/status")
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from heliosd.errors import BAD_JSON, AccessRefused, ErrorAnswer, NotUnderstood, Unreachable

from .http_api import Credentials, TokenManager, error_of, open_http, parse_server_url, words_of
from .reconnect import ConnectionLost


class RestClient:
    """Asks one daemon. Every method raises `Unreachable` if no daemon answers, `AccessRefused` if the login or the
    right is refused (401, 403), `ErrorAnswer` for any other status than 2xx, and `NotUnderstood` for an answer that
    is not heliosd's. Paths are those of docs/http.md; parameters that are None are left out."""

    def __init__(self, url: str, http: httpx.AsyncClient, credentials: Credentials) -> None:
        self.url = url
        self._http = http
        self._tokens = TokenManager(http, credentials)

    async def get(self, path: str, **params: object) -> Any:
        return await self.request("GET", path, params=params)

    async def post(self, path: str, body: object = None) -> Any:
        return await self.request("POST", path, body=body)

    async def put(self, path: str, body: object = None) -> Any:
        return await self.request("PUT", path, body=body)

    async def delete(self, path: str, **params: object) -> Any:
        return await self.request("DELETE", path, params=params)

    async def request(
        self, method: str, path: str, *, params: dict[str, object] | None = None, body: object = None
    ) -> Any:
        """The decoded JSON of the answer."""
        asked = {name: str(value) for name, value in (params or {}).items() if value is not None}
        while True:
            token = await self._token()
            try:
                answer = await self._http.request(
                    method, path, params=asked, json=body, headers={"Authorization": f"Bearer {token}"}
                )
            except httpx.HTTPError as error:
                raise Unreachable(self.url, words_of(error)) from error
            if answer.status_code != 401:
                break
            # Raises if this was a new token; else the next turn gets one.
            self._tokens.refused(token, error_of(answer.content, 401).error)
        if answer.status_code == 403:
            raise AccessRefused(error_of(answer.content, 403).error)
        self._tokens.accepted()
        if not answer.is_success:
            said = error_of(answer.content, answer.status_code)
            raise ErrorAnswer(answer.status_code, said.error, said.field)
        try:
            return msgspec.json.decode(answer.content)
        except BAD_JSON as wrong:
            raise NotUnderstood(f"{path} was not answered as heliosd does") from wrong

    async def _token(self) -> str:
        try:
            return await self._tokens.token()
        except ConnectionLost as lost:
            if lost.status is not None:
                raise ErrorAnswer(lost.status, lost.reason, None) from lost
            raise Unreachable(self.url, words_of(lost.__cause__ or lost)) from lost


@asynccontextmanager
async def open_rest(
    url: str, credentials: Credentials, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[RestClient]:
    """A client of the daemon at `url` for as long as the block lasts; it logs in with its first request. Raises
    ValueError for a wrong URL. `ssl_context` is for https, None the system's certificates."""
    server = parse_server_url(url)
    if server.tls and ssl_context is None:
        ssl_context = ssl.create_default_context()
    async with open_http(server, ssl_context if server.tls else None) as http:
        yield RestClient(server.url, http, credentials)
