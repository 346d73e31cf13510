"""Rights on an open connection: what a token's end, a newer token, and a reload mean for it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

import trio

from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.clock import Instant
from heliosd.config import permissions
from heliosd.errors import AuthError, Forbidden, Unauthenticated
from heliosd.protocol import server_messages
from heliosd.protocol.client_commands import Authenticate
from heliosd.protocol.close_codes import EXPIRED, NOT_ALLOWED, REVOKED, CloseReason
from heliosd.protocol.message import OutgoingMessage

from .client import HubClient

WARNING_SECONDS = 60.0
"""A client hears so long before its token's end that it will end."""
GRACE_SECONDS = 25.0
"""From its token's end a client has so long to bring a newer one."""

_STALE_KEPT = 64


class TokenExpiry:
    """Watches the tokens that connections stand on.

    Deadlines are monotonic: they are reckoned once, when a token is presented, so that a wall clock that is set
    back does not prolong a connection.
    """

    def __init__(
        self,
        access: Access,
        now: Callable[[], Instant],
        *,
        send: Callable[[HubClient, OutgoingMessage], None],
        end: Callable[[HubClient, CloseReason], None],
        release: Callable[[HubClient], None],
    ) -> None:
        self._access = access
        self._now = now
        self._send = send
        self._end = end
        self._release = release
        self._numbers = count(1)
        self._due: list[tuple[float, int]] = []
        """A heap of moments, each with the number of what comes due then. What is not in `_watched` is stale."""
        self._watched: dict[int, HubClient] = {}
        self._sooner = trio.Event()

    def watch(self, client: HubClient) -> None:
        """Follow the token that `client` now stands on."""
        now = self._now()
        left = client.identity.expires_at - now.wall
        client.warned = False
        self._schedule(now.mono + max(0.0, left - WARNING_SECONDS), client)

    def forget(self, client: HubClient) -> None:
        """Follow it no longer."""
        self._watched.pop(client.next_due, None)

    def present(self, client: HubClient, command: Authenticate) -> None:
        """A client brings a newer token. Another user's ends the connection; one that does not hold is an error
        and changes nothing."""
        now = self._now()
        try:
            identity = self._access.identify(command.token, now.wall)
        except Unauthenticated as invalid:
            error = server_messages.of_error(
                str(invalid), "expired", now.wall, field="data.token", client_id=command.id
            )
            self._send(client, error)
            return
        if not identity.is_same_user(client.identity) or not identity.may(permissions.WATCH):
            self._end(client, NOT_ALLOWED)
            return
        client.identity = identity
        self.watch(client)
        self._send(client, server_messages.of_authenticated(identity.expires_at, now.wall, command.id))
        if client.held:
            client.unhold()
            self._release(client)

    def recheck(self, clients: Iterable[HubClient]) -> None:
        """The configuration has changed: close whoever may no longer be here, and narrow the others."""
        now = self._now().wall
        for client in list(clients):
            try:
                client.identity = self._refreshed(client, now)
            except Forbidden:
                self._end(client, NOT_ALLOWED)
            except AuthError:
                self._end(client, REVOKED)

    def _refreshed(self, client: HubClient, now: float) -> Identity:
        if not client.held:
            return self._access.refreshed(client.identity, now)
        # It has expired and may yet be renewed; what is asked here is whether the user may still be here.
        lasting = replace(client.identity, expires_at=now + 1)
        renewed = self._access.refreshed(lasting, now)
        return replace(renewed, expires_at=client.identity.expires_at)

    async def run(self) -> None:
        """Warn, hold and close on time, until cancelled."""
        while True:
            due = self._due[0][0] if self._due else float("inf")
            self._sooner = trio.Event()
            with trio.move_on_at(due):
                await self._sooner.wait()
            while self._due and self._due[0][0] <= trio.current_time():
                _, number = heapq.heappop(self._due)
                client = self._watched.pop(number, None)
                if client is not None and client.close_reason is None:
                    self._come_due(client)

    def _come_due(self, client: HubClient) -> None:
        now = self._now()
        identity = client.identity
        left = identity.expires_at - now.wall
        # On an event stream nobody can bring a newer token.
        if client.held or (client.warned and client.stream_kind == "sse"):
            self._end(client, EXPIRED)
        elif client.warned:
            client.hold()
            # By the monotonic clock; so the wall clock, set back, does not let the same token in once more.
            self._access.expire(identity.jti)
            self._schedule(now.mono + GRACE_SECONDS, client)
        else:
            client.warned = True
            self._send(client, server_messages.of_token_expiring(identity.expires_at, now.wall))
            self._schedule(now.mono + min(max(0.0, left), WARNING_SECONDS), client)

    def _schedule(self, due: float, client: HubClient) -> None:
        self.forget(client)
        client.next_due = next(self._numbers)
        self._watched[client.next_due] = client
        heapq.heappush(self._due, (due, client.next_due))
        if len(self._due) > 2 * len(self._watched) + _STALE_KEPT:
            # Tokens may last for years, and connections for seconds.
            self._due = [entry for entry in self._due if entry[1] in self._watched]
            heapq.heapify(self._due)
        if self._due[0][1] == client.next_due:
            self._sooner.set()
