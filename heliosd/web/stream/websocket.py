"""`/ws/cluster`: from an upgrade request to a client of the hub, and its read pump until it leaves.

A client that is not admitted is answered in HTTP, before the upgrade. After it the task of the connection is the
client's read pump, which the hub may end; everything that is sent goes through the hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import assert_never

import msgspec
import trio

from heliosd.auth.identity import Identity
from heliosd.config import permissions
from heliosd.config.model import Settings
from heliosd.errors import (
    AuthError,
    Forbidden,
    HeliosError,
    IssuerUnreachable,
    RequestRefused,
    Unauthenticated,
)
from heliosd.hub.client import HubClient
from heliosd.hub.connections import LOST
from heliosd.hub.hub import Hub
from heliosd.hub.transport import LINGER_SECONDS
from heliosd.protocol.client_commands import Authenticate, BadCommand, parse
from heliosd.protocol.close_codes import BUG, SILENT, TOO_MANY_MESSAGES, CloseReason
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import TO_EVERYTHING, Subscription
from heliosd.web.authentication import Authenticator, require
from heliosd.web.http.early_response import linger, refuse
from heliosd.web.http.listeners import Address
from heliosd.web.http.request_head import WEBSOCKET_PATH
from heliosd.web.http.websocket_upgrade import Upgrade
from heliosd.web.origin import OriginCheck, joined
from heliosd.web.problems import ForeignOrigin, NotReadYet, TryLater, problem_for
from heliosd.websocket.connection import (
    BinaryReceived,
    CloseReceived,
    Inbound,
    PingReceived,
    PongReceived,
    Received,
    TextReceived,
    Violation,
    accept_response,
)
from heliosd.websocket.deflate import agree
from heliosd.websocket.frames import ends_whole
from heliosd.websocket.plain import CONNECTION_LOST
from heliosd.websocket.readiness import Readiness
from heliosd.websocket.tls import ClientStream

from .admission import Admission
from .query import Query, cursor_of, parameters_of, subscription_of
from .read_pump import ReadPump

SUBPROTOCOL = "heliosd.v1"
_CREDENTIALS = {"token", "ticket"}
"""The parameters that say nothing of what is wanted."""


class WebSocketEndpoint:
    """Serves every connection that asks for `/ws/cluster`."""

    def __init__(
        self,
        *,
        settings: Settings,
        authenticator: Authenticator,
        hub: Hub,
        admission: Admission,
        readiness: Readiness,
    ) -> None:
        self._settings = settings
        self._authenticator = authenticator
        self._origins = OriginCheck(settings)
        self._hub = hub
        self._admission = admission
        self._readiness = readiness
        self._parsers: dict[tuple[bool, int], Inbound] = {}
        """Parsers between two messages, to be used again, by what they were made for."""

    async def serve(self, upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        """Serve one connection from its valid upgrade request to its end. Returns once it is closed.

        In this order: origin, authenticate, admit, negotiate, join, read, leave. What fails before the upgrade is
        answered in HTTP. Where a bearer token in the Authorization header authenticates, any Origin is allowed: no
        page can set that header on a WebSocket, and some client libraries send an Origin of their own making.
        """
        query = parameters_of(upgrade.query)
        try:
            credentials = self._authenticator.read(
                upgrade.authorization, query, upgrade.subprotocols, upgrade.cookies
            )
            if upgrade.origins and not credentials.by_header:
                self._origins.check(joined(upgrade.origins), upgrade.host)
            identity = await self._authenticator.authenticate(credentials)
            cursor, subscription = self._admit(identity, query)
        except (AuthError, ForeignOrigin, RequestRefused, TryLater) as error:
            await self._refuse(error, stream, peer)
            return
        answer, deflates = self._negotiate(upgrade)
        client = self._admission.client(
            identity, subscription, stream, str(peer), stream_kind="websocket", deflates=deflates
        )
        # A client may stay for months: nothing of its request is kept.
        del upgrade, query, credentials, identity, subscription, peer
        left = ""
        pump = None
        try:
            pump = ReadPump(client, stream, self._readiness)
            await self._join(client, pump, stream, answer, cursor)
            del answer, cursor
            if trailing:
                left = await self._handle(client, pump, trailing)
            while not left:
                left = await self._handle(client, pump, await pump.receive())
            await self._await_close(client, pump)
        except CONNECTION_LOST:
            pass
        except trio.TooSlowError:
            left = "did not take the answer to its upgrade"
        except Exception:  # a bug: the client gets 1011 (RFC 6455 section 7.4.1), and the front logs it
            left = BUG.reason
            self._hub.connections.end(client, BUG)
            raise
        finally:
            self._admission.left(client, left or LOST.reason)
            if pump is not None:
                pump.close()
            if client.behind:
                stream.abort()
            else:
                await linger(stream)

    def _admit(self, identity: Identity, query: Query) -> tuple[Cursor | None, Subscription]:
        """Where the client wants to start and what it wants to get, if it may watch and there is room."""
        require(identity, permissions.WATCH)
        self._admission.check_room(identity)
        if query.keys() <= _CREDENTIALS:
            return None, TO_EVERYTHING
        cursor, subscription = cursor_of(query), subscription_of(query)
        self._admission.check_cursor(cursor)
        return cursor, subscription

    async def _refuse(self, error: HeliosError, stream: ClientStream, peer: Address) -> None:
        """Answer an upgrade with the HTTP status that `error` means."""
        problem = problem_for(error, WEBSOCKET_PATH)
        body = msgspec.to_builtins(problem.body)
        if isinstance(error, Forbidden):
            body["error"] = "Admin permission required"  # as Helios words it
        self._hub.connections.count_connection(_outcome(error))
        self._admission.connection_log.refused(str(peer), problem.status, body["error"])
        await refuse(stream, problem.status, body, problem.headers.items())

    def _negotiate(self, upgrade: Upgrade) -> tuple[bytes, bool]:
        """The answer to a good upgrade request, and whether it agrees to compression."""
        compression = self._settings.current.websocket.compression
        agreed = agree(upgrade.extensions) if upgrade.extensions and compression else None
        chosen = SUBPROTOCOL if SUBPROTOCOL in upgrade.subprotocols else None
        return accept_response(upgrade.key, subprotocol=chosen, extensions=agreed), agreed is not None

    async def _join(
        self, client: HubClient, pump: ReadPump, stream: ClientStream, answer: bytes, cursor: Cursor | None
    ) -> None:
        """Answer the upgrade and make the client one of the hub's."""
        client.heard = trio.current_time()
        client.reader = pump
        # Where the hub has time for a new client right now, the first message is sent with the answer.
        at_once = cursor is None and self._hub.sessions.join_now(client, answer)
        self._hub.connections.count_connection("accepted")
        self._admission.joined(client)
        if not at_once:
            await self._accept(stream, answer)
            excerpt = await self._hub.log.missed(cursor, client.subscription)
            self._hub.sessions.join(client, cursor, excerpt)

    async def _accept(self, stream: ClientStream, answer: bytes) -> None:
        """Send the answer. Raises `trio.TooSlowError` if the client does not take it, and as `write_now` and
        `wait_writable` do if it is gone."""
        answer = answer[stream.write_now(answer) :]
        with trio.fail_after(self._settings.current.websocket.write_timeout):
            while answer or stream.pending:
                await stream.wait_writable()
                if answer:
                    answer = answer[stream.write_now(answer) :]

    async def _await_close(self, client: HubClient, pump: ReadPump) -> None:
        """Wait, a moment at most, until the hub's close frame is on the wire and the client has answered it."""
        if client.close_reason is SILENT:
            return
        with trio.move_on_after(LINGER_SECONDS):
            while client.behind or not pump.answered:
                data = await pump.receive()
                if data == b"":
                    return
                if data:
                    await self._handle(client, pump, data)

    async def _handle(self, client: HubClient, pump: ReadPump, data: bytes | None) -> str:
        """Do what a client's bytes say; returns why nothing more is to be read, or "". `data` is as from
        `ReadPump.receive`."""
        if not data:
            return (client.close_reason and client.close_reason.reason) or LOST.reason
        for received in self._parsed(client, pump, data):
            match received:
                case TextReceived():
                    await self._execute(client, received.text)
                case PingReceived() | PongReceived() if not client.takes_control(trio.current_time()):
                    self._hub.connections.end(client, TOO_MANY_MESSAGES)
                case PingReceived():
                    self._hub.connections.pong(client, received.payload)
                case PongReceived():
                    pass
                case BinaryReceived():
                    raise AssertionError("the daemon's parsers take none")
                case CloseReceived():
                    pump.answered = True
                    left = (
                        "closed by the client" if client.close_reason is None else client.close_reason.reason
                    )
                    self._hub.connections.end(client, CloseReason(received.code, ""))
                    return left
                case Violation():
                    pump.answered = True
                    self._hub.connections.end(client, CloseReason(received.code, received.reason))
                    return received.reason
                case _:
                    assert_never(received)
            if client.close_reason is TOO_MANY_MESSAGES and pump.inbound is not None:
                # Whoever floods goes on for a while, and to parse that would delay others.
                pump.inbound.ended = pump.answered = True
                return client.close_reason.reason
        return ""

    def _parsed(self, client: HubClient, pump: ReadPump, data: bytes) -> Iterator[Received]:
        """What `data` completes. A kept parser is used, and kept again if the data ends with a whole message, since
        an idle client needs none."""
        inbound = pump.inbound
        whole = inbound is None and ends_whole(data)
        if inbound is None:
            limit = self._settings.current.websocket.max_message_size
            key = client.deflates, limit
            inbound = self._parsers.pop(key, None) or Inbound(limit, deflate_agreed=client.deflates)
            pump.inbound = inbound
        yield from inbound.receive(data)
        if whole and not inbound.ended:
            pump.inbound = None
            self._parsers[key] = inbound

    async def _execute(self, client: HubClient, text: str) -> None:
        if client.close_reason is not None:
            return
        try:
            command = parse(text)
        except BadCommand as bad:
            self._hub.sessions.execute(client, bad)
            return
        if isinstance(command, Authenticate):
            # If the key cannot be fetched, the token is refused like any other that does not hold.
            with suppress(IssuerUnreachable):
                await self._authenticator.prepare(command.token)
        self._hub.sessions.execute(client, command)


def _outcome(error: HeliosError) -> str:
    """How `/metrics` counts a refused upgrade."""
    match error:
        case Unauthenticated() | IssuerUnreachable():
            return "unauthenticated"
        case Forbidden() | ForeignOrigin():
            return "forbidden"
        case NotReadYet():
            return "unread"
        case TryLater():
            return "full"
        case _:
            return "malformed"
