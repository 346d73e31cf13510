"""One call to one given endpoint of etcd: the paths of its version, the login, and the answer's meaning."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

import trio

from heliosd.config.model import EtcdConfig

from .errors import (
    NO_USER,
    UNIMPLEMENTED,
    EtcdDenied,
    EtcdError,
    EtcdLoginRefused,
    EtcdOutcomeUnknown,
    EtcdTokenEnded,
    EtcdUnavailable,
    Failure,
    meaning,
    missing_right,
    read_failure,
    refused_error,
    unavailable,
)
from .no_answer import NoAnswer
from .progress import RequestProgress
from .requests import authenticate_body
from .responses import InStream, NotEtcd, read_token, read_version
from .short_requests import HeldConnection
from .transport import GatewayReply, GatewayRequest, GatewayTransport

LOGIN_PAUSE_SECONDS = 5.0
"""A refused password is not sent again for so long: checking one is expensive for etcd."""

Headers = tuple[tuple[str, str], ...]
NEED_A_LEADER: Headers = (("Grpc-Metadata-hasleader", "true"),)
"""A member without a leader refuses the call at once, so it is certainly not done. A watch ends when the member has
had no leader for three election timeouts. Source: etcd's `rpctypes.MetadataRequireLeaderKey`."""

T = TypeVar("T")


class EndpointCalls:
    """Calls to a given endpoint each; the caller chooses the endpoint.

    All raise `EtcdUnavailable` (nothing was done), `EtcdOutcomeUnknown` (only for writes) or `EtcdRefused`.
    """

    def __init__(
        self, config: EtcdConfig, transport: GatewayTransport, logins: Callable[[str], Sequence[str]]
    ) -> None:
        """`logins`: see `ClusterIdentity`."""
        self._config = config
        self._transport = transport
        self._logins = logins
        self._gateways: dict[str, str] = {}
        self._token = ""
        self._logged_in = not config.username
        self._logged_in_at = float("-inf")
        self._login = trio.Lock()
        self._refused: tuple[str, float, EtcdLoginRefused] | None = None

    async def get(self, endpoint: str, path: str) -> bytes:
        """A plain page such as /metrics."""
        status, content = await self._exchange(GatewayRequest(endpoint, path))
        if status != 200:
            raise EtcdUnavailable(endpoint, f"answered {path} with status {status}")
        return content

    @asynccontextmanager
    async def held(self, endpoint: str, path: str) -> AsyncGenerator[HeldConnection, None]:
        """A plain page, over a connection that stays open for the block."""
        try:
            async with self._transport.held(GatewayRequest(endpoint, path), RequestProgress()) as held:
                yield held
        except NoAnswer as error:
            raise EtcdUnavailable(endpoint, error.reason) from None

    async def call(
        self,
        endpoint: str,
        path: str,
        body: bytes,
        read: Callable[[bytes], T],
        progress: RequestProgress,
        *,
        write: bool,
        open_to_all: bool = False,
        headers: Headers = NEED_A_LEADER,
    ) -> T:
        """One call of the gateway. A token that has ended is renewed once. `open_to_all`: needs no login.

        `progress` shows, also after a cancellation, whether etcd may have acted on the request.
        """
        again = bool(self._config.username)
        while True:
            logins = self._logins(endpoint)
            token = await self._shown(logins, login=not open_to_all)
            ask = GatewayRequest(endpoint, await self._path(endpoint, path), body, token, headers)
            status, content = await self._exchange(ask, progress, write=write)
            try:
                if status == 200:
                    return read(content)
                failure = read_failure(status, content)
            except InStream as translated_errors:
                failure = translated_errors.failure
            except NotEtcd as fault:
                raise (EtcdOutcomeUnknown if write else EtcdUnavailable)(endpoint, str(fault)) from None
            error = self._error(endpoint, path, failure, write=write)
            if not (again and logins and isinstance(error, EtcdTokenEnded)):
                try:
                    raise error
                finally:
                    del error  # it holds this frame
            again, progress.sent = False, False
            await self._renew(logins, token)

    def answers_the_same(self, endpoint: str, path: str, body: bytes, last: bytes) -> Awaitable[bool]:
        """Whether a call that is open to all, and reads, is answered by `last` again. False also if it is not
        answered, or there is no open connection."""
        token = self._token if self._logins(endpoint) else ""
        # Where the path is not known, it is answered by 404.
        ask = GatewayRequest(endpoint, self._gateways.get(endpoint, "") + path, body, token)
        return self._transport.answers_the_same(ask, last)

    @asynccontextmanager
    async def stream(
        self, endpoint: str, path: str, body: bytes, headers: Headers
    ) -> AsyncGenerator[GatewayReply, None]:
        """A streaming call with status 200; read it under `translated_errors`."""
        token = await self._shown(self._logins(endpoint), login=True)
        ask = GatewayRequest(endpoint, await self._path(endpoint, path), body, token, headers)
        with self.translated_errors(endpoint, path):
            async with self._transport.reply(ask, RequestProgress()) as reply:
                if reply.status != 200:
                    failure = read_failure(reply.status, await reply.content())
                    raise self._error(endpoint, path, failure, write=False)
                yield reply

    @contextmanager
    def translated_errors(self, endpoint: str, path: str) -> Iterator[None]:
        """Errors while a stream is read, as `EtcdUnavailable` or `EtcdRefused`."""
        try:
            yield
        except NoAnswer as error:
            raise EtcdUnavailable(endpoint, error.reason) from None
        except InStream as translated_errors:
            raise self._error(endpoint, path, translated_errors.failure, write=False) from None
        except NotEtcd as error:
            raise EtcdUnavailable(endpoint, str(error)) from None

    async def renew(self, endpoint: str) -> None:
        """The present token is not accepted: log in again. Raises `EtcdLoginRefused` if that is refused."""
        if logins := self._logins(endpoint):
            await self._renew(logins, self._token)

    @property
    def token_seconds(self) -> float:
        """The age of the present token."""
        return trio.current_time() - self._logged_in_at

    @property
    def can_log_in(self) -> bool:
        """A user is configured."""
        return bool(self._config.username)

    async def _exchange(
        self, ask: GatewayRequest, progress: RequestProgress | None = None, *, write: bool = False
    ) -> tuple[int, bytes]:
        try:
            return await self._transport.answer(ask, progress or RequestProgress())
        except NoAnswer as error:
            if error.sent and write:
                raise EtcdOutcomeUnknown(
                    ask.endpoint, f"the write was sent and not answered: {error.reason}"
                ) from None
            raise EtcdUnavailable(ask.endpoint, error.reason) from None

    def _error(self, endpoint: str, path: str, failure: Failure, *, write: bool) -> EtcdError:
        if failure.code == UNIMPLEMENTED:
            self._gateways.pop(endpoint, None)  # it may run another version now
            return EtcdUnavailable(endpoint, failure.message)
        match meaning(failure, write=write):
            case "refused":
                error = refused_error(endpoint, failure)
                if not isinstance(error, EtcdDenied):
                    return error
                if not self._config.username:
                    # A watch of etcd 3.5 says so where others say that the user name is empty.
                    return EtcdTokenEnded(endpoint, NO_USER, failure.code)
                grant = missing_right(path, self._config.username, self._config.prefix)
                return EtcdDenied(endpoint, f"{failure.message}; {grant}", failure.code)
            case "elsewhere":
                return unavailable(endpoint, failure)
            case "unknown":
                return EtcdOutcomeUnknown(endpoint, failure.message)

    async def _path(self, endpoint: str, path: str) -> str:
        if endpoint not in self._gateways:
            try:
                self._gateways[endpoint] = read_version(await self.get(endpoint, "/version")).gateway
            except NotEtcd as error:
                raise EtcdUnavailable(endpoint, str(error)) from None
        return self._gateways[endpoint] + path

    async def _shown(self, logins: Sequence[str], *, login: bool) -> str:
        """The token for a call, after a login there if none was made; "" if there is nowhere to log in."""
        if logins and login and not self._logged_in:
            await self._renew(logins, self._token)
        return self._token if logins else ""

    async def _renew(self, logins: Sequence[str], ended: str) -> None:
        """Log in at the first of these that answers."""
        for endpoint in logins[:-1]:
            with suppress(EtcdUnavailable):
                return await self._log_in(endpoint, ended)
        return await self._log_in(logins[-1], ended)

    async def _log_in(self, endpoint: str, ended: str) -> None:
        async with self._login:
            if self._logged_in and self._token != ended:
                return  # another call has done it meanwhile
            password = await self._password(endpoint)
            if self._refused and self._refused[0] == password and trio.current_time() < self._refused[1]:
                raise EtcdLoginRefused(endpoint, self._refused[2].reason, self._refused[2].code)
            path = await self._path(endpoint, "/auth/authenticate")
            body = authenticate_body(self._config.username, password)
            status, content = await self._exchange(GatewayRequest(endpoint, path, body))
            if status == 200:
                with self.translated_errors(endpoint, path):
                    self._token = read_token(content)
            else:
                failure = read_failure(status, content)
                if "authentication is not enabled" not in failure.message:
                    raise self._not_let_in(endpoint, failure, password)
                self._token = ""
            self._logged_in, self._refused = True, None
            self._logged_in_at = trio.current_time()

    def _not_let_in(self, endpoint: str, failure: Failure, password: str) -> EtcdError:
        error = self._error(endpoint, "/auth/authenticate", failure, write=False)
        if isinstance(error, EtcdLoginRefused):
            user = self._config.username
            mend = f"etcdctl user add {user}, or etcdctl user passwd {user}"
            reason = f"{error.reason}; the user {user} needs the password in password_file: {mend}"
            error = EtcdLoginRefused(endpoint, reason, error.code)
            self._refused = password, trio.current_time() + LOGIN_PAUSE_SECONDS, error
        return error

    async def _password(self, endpoint: str) -> str:
        file = self._config.password_file
        try:
            return (await trio.Path(file or "").read_text(encoding="utf-8")).rstrip("\r\n")
        except UnicodeDecodeError:
            raise EtcdUnavailable(endpoint, f"password_file {file} is not UTF-8") from None
        except OSError as error:
            raise EtcdUnavailable(endpoint, f"cannot read password_file {file}: {error.strerror}") from None
