"""`/ws/cluster`: from an upgrade request to a client of the hub, and its read pump until it leaves.

Whoever may not come in is told so before the upgrade, in HTTP. After it the task of the connection is the
client's read pump, under a cancel scope that the hub owns; everything that is sent goes through the hub.
"""

from __future__ import annotations

import socket as stdlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import assert_never
from urllib.parse import parse_qs

import structlog
import trio

from ..auth import rbac
from ..auth.access import Access
from ..auth.identity import Identity
from ..auth.tickets import Tickets
from ..clock import Instant
from ..commands import Authenticate, BadCommand, parse
from ..config import Settings
from ..errors import Forbidden, Invalid, IssuerUnreachable, Unauthenticated
from ..history import Cursor
from ..hub.client import Client
from ..hub.goodbye import BUG, SILENT, Goodbye
from ..hub.hub import Hub
from ..subscription import Subscription
from ..websocket.connection import (
    CloseReceived,
    Inbound,
    PingReceived,
    PongReceived,
    TextReceived,
    Violation,
    accept_response,
)
from ..websocket.deflate import agree
from ..websocket.tls import ClientStream
from .guard import authenticate, require, tokens_carried
from .head import Head, websocket_key
from .jwks import OutsideIssuer
from .listeners import Address
from .origin import origin_allowed
from .problems import TryLater
from .reception import Reception
from .refusal import linger, refuse
from .resume import Query, cursor_of, subscription_of

SUBPROTOCOL = "heliosd.v1"
RECEIVE_BYTES = 4096
"""Read at once from a client: so little that a flood of one-byte frames holds nobody else up for long."""

log = structlog.get_logger(__name__)


class Refused(Exception):
    """An upgrade that is answered with an HTTP status instead."""

    def __init__(
        self,
        status: int,
        error: str,
        outcome: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        field: str | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.outcome = outcome
        """How `/metrics` counts it."""
        self.headers = tuple(headers)
        self.body = {"error": error} if field is None else {"error": error, "field": field}


class Live:
    """Serves every connection that asks for `/ws/cluster`."""

    def __init__(
        self,
        *,
        settings: Settings,
        access: Access,
        issuer: OutsideIssuer,
        tickets: Tickets,
        hub: Hub,
        reception: Reception,
        now: Callable[[], Instant],
    ) -> None:
        self._settings = settings
        self._access = access
        self._issuer = issuer
        self._tickets = tickets
        self._hub = hub
        self._reception = reception
        self._now = now
        self._machine_name = stdlib.gethostname()

    async def serve(self, head: Head, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        """Serve one connection from its valid upgrade request to its end. Returns once it is closed."""
        key = websocket_key(head)
        assert key is not None, "the front hands over upgrade requests only"
        query = parse_qs(head.query, keep_blank_values=True)
        try:
            identity = await self._admit(head, query)
            cursor, subscription = _wishes(query)
        except Refused as refused:
            self._hub.count_connection(refused.outcome)
            log.info("client refused", address=str(peer), status=refused.status, reason=refused.error)
            await refuse(stream, refused.status, refused.body, refused.headers)
            return
        agreed = self._agreed_extensions(head)
        client = self._reception.client(
            identity,
            subscription,
            stream,
            str(peer),
            transport="websocket",
            deflates=agreed is not None,
        )
        left = "connection lost"
        try:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                offered = _offered_subprotocols(head)
                chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
                await self._accept(stream, accept_response(key, subprotocol=chosen, extensions=agreed))
                self._hub.count_connection("accepted")
                self._reception.greet(client)
                left = await self._converse(client, cursor, stream, trailing)
        except trio.TooSlowError:
            left = "did not take the answer to its upgrade"
        except Exception:
            left = BUG.reason
            self._hub.end(client, BUG)
            raise
        finally:
            self._reception.see_off(client, left)
            if client.behind:
                stream.abort()
            else:
                await linger(stream)

    async def _accept(self, stream: ClientStream, answer: bytes) -> None:
        """Answer the upgrade. Raises `trio.TooSlowError` where the client does not take it, and as `write_now` and
        `wait_writable` where it is gone."""
        taken = stream.write_now(answer)
        if taken == len(answer) and not stream.pending:
            return  # as good as always, and at half the cost of waiting for nothing
        with trio.fail_after(self._settings.current.websocket.write_timeout):
            while taken < len(answer) or stream.pending:
                await stream.wait_writable()
                if taken < len(answer):
                    taken += stream.write_now(answer[taken:])

    async def _admit(self, head: Head, query: Query) -> Identity:
        """Who is let in. Raises `Refused`, in the order: not a browser of ours, not known, not allowed, no room."""
        now = self._now()
        authorization = [value.decode("latin-1") for value in head.all(b"authorization")]
        query_tokens, subprotocols = query.get("token", []), _offered_subprotocols(head)
        # Before anything else: a ticket that has been shown works no more, whatever comes of it.
        tickets = [self._tickets.spend(ticket, now.mono) for ticket in query.get("ticket", []) if ticket]
        self._check_origin(head)
        try:
            await self._issuer.prepare(tokens_carried(authorization, query_tokens, subprotocols))
            identity = authenticate(
                self._access,
                self._now().wall,
                authorization=authorization,
                query_tokens=query_tokens,
                subprotocols=subprotocols,
                tickets=tickets,
            )
            require(identity, rbac.WATCH)
            self._reception.check_room(identity.user_id)
        except Unauthenticated as unknown:
            raise Refused(401, str(unknown), "unauthenticated", [("WWW-Authenticate", "Bearer")]) from unknown
        except IssuerUnreachable as unreachable:
            later = [("Retry-After", f"{unreachable.seconds:.0f}")]
            raise Refused(503, str(unreachable), "unauthenticated", later) from unreachable
        except Invalid as wrong:
            raise Refused(400, wrong.message, "malformed") from wrong
        except Forbidden as forbidden:
            raise Refused(403, "Admin permission required", "forbidden") from forbidden
        except TryLater as full:
            later = [("Retry-After", f"{full.seconds:.0f}")]
            raise Refused(full.status, str(full), "full", later) from full
        return identity

    def _check_origin(self, head: Head) -> None:
        origins = [value.decode("latin-1") for value in head.all(b"origin")]
        host = (head.header(b"host") or b"").decode("latin-1")
        allowed = self._settings.current.server.allowed_origins
        origin = origins[0] if origins else None
        if len(origins) > 1 or not origin_allowed(origin, host, allowed, self._machine_name):
            raise Refused(403, "Origin not allowed", "forbidden")

    def _agreed_extensions(self, head: Head) -> str | None:
        if not self._settings.current.websocket.compression:
            return None
        return agree(", ".join(value.decode("latin-1") for value in head.all(b"sec-websocket-extensions")))

    async def _converse(
        self, client: Client, cursor: Cursor | None, stream: ClientStream, trailing: bytes
    ) -> str:
        """Read from the client until it, or the hub, has had enough; returns why it ended."""
        left = "connection lost"
        with client.scope:
            client.scope.deadline = trio.current_time() + self._settings.current.websocket.read_timeout
            if cursor is not None and self._hub.log.behind(cursor):
                await self._hub.log.reach(cursor)
            self._hub.join(client, cursor)
            left = await self._read(client, stream, trailing)
        if client.scope.cancelled_caught:
            if client.goodbye is None:
                self._hub.end(client, SILENT)
            left = "connection lost" if client.goodbye is None else client.goodbye.reason
        return left

    async def _read(self, client: Client, stream: ClientStream, trailing: bytes) -> str:
        limit = self._settings.current.websocket.max_message_size
        inbound = Inbound(limit, deflate_agreed=client.deflates)
        data = trailing
        left = ""
        while True:
            for received in inbound.receive(data):
                match received:
                    case TextReceived():
                        await self._obey(client, received.text)
                    case PingReceived():
                        self._hub.pong(client, received.payload)
                    case PongReceived():
                        pass
                    case CloseReceived():
                        ended_by_us = client.goodbye is not None
                        self._hub.end(client, Goodbye(received.code, ""))
                        return (
                            client.goodbye.reason
                            if ended_by_us and client.goodbye
                            else "closed by the client"
                        )
                    case Violation():
                        self._hub.end(client, Goodbye(received.code, received.reason))
                        return received.reason
                    case _:
                        assert_never(received)
            if left and not client.behind:
                return left
            if left:
                client.linger()  # its pump has as long to bring the close frame out
            try:
                data = await stream.receive_some(RECEIVE_BYTES)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                return left or (client.goodbye.reason if client.goodbye else "connection lost")
            if client.goodbye is None:
                client.scope.deadline = trio.current_time() + self._settings.current.websocket.read_timeout

    async def _obey(self, client: Client, text: str) -> None:
        if client.goodbye is not None:
            return
        try:
            command = parse(text)
        except BadCommand as bad:
            self._hub.obey(client, bad)
            return
        if isinstance(command, Authenticate):
            # Where the key cannot be had the token is refused like any other that does not hold.
            with suppress(IssuerUnreachable):
                await self._issuer.prepare([command.token])
        self._hub.obey(client, command)


def _wishes(query: Query) -> tuple[Cursor | None, Subscription]:
    try:
        return cursor_of(query), subscription_of(query)
    except Invalid as wrong:
        raise Refused(400, wrong.message, "malformed", field=wrong.field) from wrong


def _offered_subprotocols(head: Head) -> list[str]:
    return [
        part.strip()
        for value in head.all(b"sec-websocket-protocol")
        for part in value.decode("latin-1").split(",")
    ]
