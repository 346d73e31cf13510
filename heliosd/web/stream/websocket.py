"""`/ws/cluster`: from an upgrade request to a client of the hub, and its read pump until it leaves.

Whoever may not come in is told so before the upgrade, in HTTP. After it the task of the connection is the
client's read pump, under a cancel scope that the hub owns; everything that is sent goes through the hub.
"""

from __future__ import annotations

import re
import socket as stdlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import assert_never
from urllib.parse import parse_qs

import structlog
import trio

from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.auth.tickets import Tickets
from heliosd.clock import Instant
from heliosd.config import permissions
from heliosd.config.model import Settings
from heliosd.errors import Forbidden, Invalid, IssuerUnreachable, Unauthenticated
from heliosd.hub.client import LINGER_SECONDS, HubClient
from heliosd.hub.hub import Hub
from heliosd.protocol.client_commands import Authenticate, BadCommand, parse
from heliosd.protocol.close_codes import BUG, SILENT, CloseReason
from heliosd.protocol.history import Cursor
from heliosd.protocol.subscription import TO_EVERYTHING, Subscription
from heliosd.web.authentication import authenticate, require, tokens_carried
from heliosd.web.http.early_response import linger, refuse
from heliosd.web.http.listeners import Address
from heliosd.web.http.websocket_upgrade import Upgrade
from heliosd.web.jwks import ExternalIssuer
from heliosd.web.origin import origin_allowed
from heliosd.web.problems import TryLater
from heliosd.websocket.connection import (
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
from heliosd.websocket.readiness import Readiness
from heliosd.websocket.tls import ClientStream

from .admission import Admission
from .query import Query, cursor_of, subscription_of
from .read_pump import ReadPump

SUBPROTOCOL = "heliosd.v1"
_CREDENTIALS = {"token", "ticket"}
"""The parameters that say nothing of what is wanted."""
_PLAIN_PARAMETER = re.compile(r"([a-z_]+)=([A-Za-z0-9._-]+)")

log = structlog.get_logger(__name__)


class UpgradeRefused(Exception):
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


class WebSocketEndpoint:
    """Serves every connection that asks for `/ws/cluster`."""

    def __init__(
        self,
        *,
        settings: Settings,
        access: Access,
        issuer: ExternalIssuer,
        tickets: Tickets,
        hub: Hub,
        admission: Admission,
        readiness: Readiness,
        now: Callable[[], Instant],
    ) -> None:
        self._settings = settings
        self._access = access
        self._issuer = issuer
        self._tickets = tickets
        self._hub = hub
        self._admission = admission
        self._readiness = readiness
        self._parsers: dict[tuple[bool, int], Inbound] = {}
        """The shelf: parsers between two messages, by what they were made for."""
        self._now = now
        self._machine_name = stdlib.gethostname()

    async def serve(self, upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        """Serve one connection from its valid upgrade request to its end. Returns once it is closed."""
        query = _parameters(upgrade.query)
        try:
            identity = await self._admit(upgrade, query)
            cursor, subscription = _requested_protocols(query)
            self._check_cursor(cursor)
        except UpgradeRefused as refused:
            self._hub.count_connection(refused.outcome)
            log.info("client refused", address=str(peer), status=refused.status, reason=refused.error)
            await refuse(stream, refused.status, refused.body, refused.headers)
            return
        agreed = self._agreed_extensions(upgrade)
        chosen = SUBPROTOCOL if SUBPROTOCOL in upgrade.subprotocols else None
        answer = accept_response(upgrade.key, subprotocol=chosen, extensions=agreed)
        client = self._admission.client(
            identity,
            subscription,
            stream,
            str(peer),
            stream_kind="websocket",
            deflates=agreed is not None,
        )
        # A client may stay for months: nothing of how it came is kept.
        del upgrade, query, identity, subscription, agreed, chosen, peer
        left = "connection lost"
        pump = None
        try:
            pump = ReadPump(client, stream, self._readiness)
            client.heard = trio.current_time()
            client.reader = pump
            # Where the hub has time for a new client right now, the first message goes with the answer.
            joined = cursor is None and self._hub.join_now(client, answer)
            if not joined:
                await self._accept(stream, answer)
            del answer
            self._hub.count_connection("accepted")
            self._admission.greet(client)
            if not joined:
                if cursor is not None and self._hub.log.behind(cursor):
                    await self._hub.log.reach(cursor)
                self._hub.join(client, cursor)
            del cursor
            left = await self._read(client, pump, trailing)
            await self._part(client, pump)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except trio.TooSlowError:
            left = "did not take the answer to its upgrade"
        except Exception:  # a bug: the client is told 1011 (RFC 6455 section 7.4.1), the front logs it
            left = BUG.reason
            self._hub.end(client, BUG)
            raise
        finally:
            self._admission.see_off(client, left)
            if pump is not None:
                pump.close()
            if client.behind:
                stream.abort()
            else:
                await linger(stream)

    async def _accept(self, stream: ClientStream, answer: bytes) -> None:
        """Answer the upgrade. Raises `trio.TooSlowError` where the client does not take it, and as `write_now` and
        `wait_writable` where it is gone."""
        answer = answer[stream.write_now(answer) :]
        with trio.fail_after(self._settings.current.websocket.write_timeout):
            while answer or stream.pending:
                await stream.wait_writable()
                if answer:
                    answer = answer[stream.write_now(answer) :]

    async def _admit(self, upgrade: Upgrade, query: Query) -> Identity:
        """Who is let in. Raises `Refused`, in the order: not a browser of ours, not known, not allowed, no room."""
        now = self._now()
        carried = upgrade.authorization, query.get("token", []), upgrade.subprotocols
        # Before anything else: a ticket that has been shown works no more, whatever comes of it.
        tickets = [self._tickets.redeem(ticket, now.mono) for ticket in query.get("ticket", []) if ticket]
        self._check_origin(upgrade)
        try:
            if self._settings.current.auth.jwks_url:
                await self._issuer.prepare(tokens_carried(*carried))
                now = self._now()
            identity = authenticate(self._access, now.wall, *carried, tickets=tickets)
            require(identity, permissions.WATCH)
            self._admission.check_room(identity.user_id)
        except Unauthenticated as unknown:
            raise UpgradeRefused(
                401, str(unknown), "unauthenticated", [("WWW-Authenticate", "Bearer")]
            ) from unknown
        except IssuerUnreachable as unreachable:
            later = [("Retry-After", f"{unreachable.seconds:.0f}")]
            raise UpgradeRefused(503, str(unreachable), "unauthenticated", later) from unreachable
        except Invalid as wrong:
            raise UpgradeRefused(400, wrong.message, "malformed") from wrong
        except Forbidden as forbidden:
            raise UpgradeRefused(403, "Admin permission required", "forbidden") from forbidden
        except TryLater as full:
            later = [("Retry-After", f"{full.seconds:.0f}")]
            raise UpgradeRefused(full.status, str(full), "full", later) from full
        return identity

    def _check_cursor(self, cursor: Cursor | None) -> None:
        try:
            self._admission.check_cursor(cursor)
        except TryLater as unread:
            later = [("Retry-After", f"{unread.seconds:.0f}")]
            raise UpgradeRefused(unread.status, str(unread), "unread", later) from unread

    def _check_origin(self, upgrade: Upgrade) -> None:
        if not upgrade.origins:
            return
        allowed = self._settings.current.server.allowed_origins
        origin = upgrade.origins[0]
        if len(upgrade.origins) > 1 or not origin_allowed(origin, upgrade.host, allowed, self._machine_name):
            raise UpgradeRefused(403, "Origin not allowed", "forbidden")

    def _agreed_extensions(self, upgrade: Upgrade) -> str | None:
        if not upgrade.extensions or not self._settings.current.websocket.compression:
            return None
        return agree(upgrade.extensions)

    async def _read(self, client: HubClient, pump: ReadPump, data: bytes | None) -> str:
        """Read from the client until it, or the hub, has had enough; returns why it ended."""
        while data is not None:
            if data:
                left = await self._handle(client, pump, data)
                if left:
                    return left
            data = await pump.receive()
            if data == b"":
                return client.close_reason.reason if client.close_reason else "connection lost"
        return client.close_reason.reason if client.close_reason else ""

    async def _part(self, client: HubClient, pump: ReadPump) -> None:
        """Give a client to whom goodbye is being said its time: until the close frame is on the wire, and until it
        has answered it."""
        if client.close_reason is SILENT:
            return
        with trio.move_on_after(LINGER_SECONDS):
            while client.behind or not pump.answered:
                data = await pump.receive()
                if data == b"":
                    return
                if data:
                    await self._handle(client, pump, data)

    async def _handle(self, client: HubClient, pump: ReadPump, data: bytes) -> str:
        """Do what a client's bytes say; returns why it must be the last, or ""."""
        for received in self._parsed(client, pump, data):
            match received:
                case TextReceived():
                    await self._execute(client, received.text)
                case PingReceived():
                    self._hub.pong(client, received.payload)
                case PongReceived():
                    pass
                case CloseReceived():
                    pump.answered = True
                    left = (
                        "closed by the client" if client.close_reason is None else client.close_reason.reason
                    )
                    self._hub.end(client, CloseReason(received.code, ""))
                    return left
                case Violation():
                    pump.answered = True
                    self._hub.end(client, CloseReason(received.code, received.reason))
                    return received.reason
                case _:
                    assert_never(received)
        return ""

    def _parsed(self, client: HubClient, pump: ReadPump, data: bytes) -> Iterator[Received]:
        """What `data` completes. A parser is taken from the shelf, and put back where the data ends with a whole
        message: an idle client needs none."""
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
            self._hub.execute(client, bad)
            return
        if isinstance(command, Authenticate):
            # Where the key cannot be had the token is refused like any other that does not hold.
            with suppress(IssuerUnreachable):
                await self._issuer.prepare([command.token])
        self._hub.execute(client, command)


def _parameters(query: str) -> Query:
    plain = _PLAIN_PARAMETER.fullmatch(query)  # with nothing to decode in it: a token, as a rule
    return {plain[1]: [plain[2]]} if plain else parse_qs(query, keep_blank_values=True)


def _requested_protocols(query: Query) -> tuple[Cursor | None, Subscription]:
    if query.keys() <= _CREDENTIALS:
        return None, TO_EVERYTHING
    try:
        return cursor_of(query), subscription_of(query)
    except Invalid as wrong:
        raise UpgradeRefused(400, wrong.message, "malformed", field=wrong.field) from wrong
