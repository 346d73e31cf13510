"""`/ws/cluster`: from an upgrade request to a client of the hub, and its read pump until it leaves.

Whoever may not come in is told so before the upgrade, in HTTP. After it the task of the connection is the
client's read pump, under a cancel scope that the hub owns; everything that is sent goes through the hub.
"""

from __future__ import annotations

import random
import secrets
import socket as stdlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count
from typing import assert_never
from urllib.parse import parse_qs

import structlog
import trio

from ..auth import rbac
from ..auth.access import Access
from ..auth.identity import Identity
from ..clock import Instant
from ..commands import BadCommand, parse
from ..config import Settings
from ..errors import Forbidden, Invalid, Unauthenticated
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
from ..websocket.plain import prepare
from ..websocket.tls import ClientStream
from .guard import authenticate, require
from .head import Head, websocket_key
from .listeners import Address
from .origin import origin_allowed
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

    def __init__(self, *, settings: Settings, access: Access, hub: Hub, now: Callable[[], Instant]) -> None:
        self.stopping = False
        """Set when the daemon stops: whoever comes now is sent to another node."""
        self._settings = settings
        self._access = access
        self._hub = hub
        self._now = now
        self._serials = count(1)
        self._machine_name = stdlib.gethostname()

    async def serve(self, head: Head, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        """Serve one connection from its valid upgrade request to its end. Returns once it is closed."""
        key = websocket_key(head)
        assert key is not None, "the front hands over upgrade requests only"
        query = parse_qs(head.query, keep_blank_values=True)
        try:
            identity = self._admit(head, query)
            cursor, subscription = _wishes(query)
        except Refused as refused:
            self._hub.count_connection(refused.outcome)
            log.info("client refused", address=str(peer), status=refused.status, reason=refused.error)
            await refuse(stream, refused.status, refused.body, refused.headers)
            return
        agreed = self._agreed_extensions(head)
        client = self._client(identity, subscription, stream, peer, deflates=agreed is not None)
        left = "connection lost"
        try:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                prepare(stream.socket)
                offered = _offered_subprotocols(head)
                chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
                with trio.fail_after(self._settings.current.websocket.write_timeout):
                    await stream.send_all(accept_response(key, subprotocol=chosen, extensions=agreed))
                self._hub.count_connection("accepted")
                log.info("client joined", client=client.id, user=identity.user_id, address=str(peer))
                left = await self._converse(client, cursor, stream, trailing)
        except trio.TooSlowError:
            left = "did not take the answer to its upgrade"
        except Exception:
            left = BUG.reason
            self._hub.end(client, BUG)
            raise
        finally:
            self._hub.leave(client)
            log.info(
                "client left",
                client=client.id,
                user=identity.user_id,
                address=str(peer),
                reason=left,
                code=client.goodbye.code if client.goodbye is not None else None,
                sent=client.sent,
                dropped=client.dropped,
            )
            if client.behind:
                stream.abort()
            else:
                await linger(stream)

    def _admit(self, head: Head, query: Query) -> Identity:
        """Who is let in. Raises `Refused`, in the order: not a browser of ours, not known, not allowed, no room."""
        websocket = self._settings.current.websocket
        self._check_origin(head)
        try:
            identity = authenticate(
                self._access,
                self._now().wall,
                authorization=[value.decode("latin-1") for value in head.all(b"authorization")],
                query_tokens=query.get("token", []),
                subprotocols=_offered_subprotocols(head),
            )
            require(identity, rbac.WATCH)
        except Unauthenticated as unknown:
            raise Refused(401, str(unknown), "unauthenticated", [("WWW-Authenticate", "Bearer")]) from unknown
        except Invalid as wrong:
            raise Refused(400, wrong.message, "malformed") from wrong
        except Forbidden as forbidden:
            raise Refused(403, "Admin permission required", "forbidden") from forbidden
        mine = websocket.max_clients_per_user
        if (
            self.stopping
            or self._hub.count() >= websocket.max_clients
            or (mine and self._hub.count_of(identity.user_id) >= mine)
        ):
            # Jittered, so that those who were refused together do not come back together.
            later = [("Retry-After", str(random.randint(1, 10)))]  # noqa: S311
            raise Refused(503, "Too many clients" if not self.stopping else "Stopping", "full", later)
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

    def _client(
        self,
        identity: Identity,
        subscription: Subscription,
        stream: ClientStream,
        peer: Address,
        *,
        deflates: bool,
    ) -> Client:
        return Client(
            serial=next(self._serials),
            client_id=secrets.token_hex(8),
            identity=identity,
            address=str(peer),
            since=self._now().wall,
            outlet=stream,
            send_buffer=self._settings.current.websocket.send_buffer,
            subscription=subscription,
            deflates=deflates,
        )

    async def _converse(
        self, client: Client, cursor: Cursor | None, stream: ClientStream, trailing: bytes
    ) -> str:
        """Read from the client until it, or the hub, has had enough; returns why it ended."""
        left = "connection lost"
        with client.scope:
            client.scope.deadline = trio.current_time() + self._settings.current.websocket.read_timeout
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
                        self._obey(client, received.text)
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

    def _obey(self, client: Client, text: str) -> None:
        if client.goodbye is not None:
            return
        try:
            command = parse(text)
        except BadCommand as bad:
            self._hub.obey(client, bad)
        else:
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
