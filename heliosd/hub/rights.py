"""Rights on an open connection: what a token's end, a newer token, and a reload mean for it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

import trio

from .. import messages
from ..auth import rbac
from ..auth.access import Access
from ..auth.identity import Identity
from ..clock import Instant
from ..commands import Authenticate
from ..errors import AuthError, Forbidden, Unauthenticated
from .client import Client
from .goodbye import EXPIRED, NOT_ALLOWED, REVOKED, Goodbye

WARNING_SECONDS = 60.0
"""A client hears so long before its token's end that it will end."""
GRACE_SECONDS = 25.0
"""From its token's end a client has so long to bring a newer one."""


class Rights:
    """Watches the tokens that connections stand on.

    Deadlines are monotonic: they are reckoned once, when a token is presented, so that a wall clock that is set
    back does not prolong a connection.
    """

    def __init__(
        self,
        access: Access,
        now: Callable[[], Instant],
        *,
        tell: Callable[[Client, messages.Message], None],
        end: Callable[[Client, Goodbye], None],
        release: Callable[[Client], None],
    ) -> None:
        self._access = access
        self._now = now
        self._tell = tell
        self._end = end
        self._release = release
        self._order = count()
        self._due: list[tuple[float, int, Client, Identity]] = []
        self._sooner = trio.Event()

    def watch(self, client: Client) -> None:
        """Follow the token that `client` now stands on."""
        now = self._now()
        left = client.identity.expires_at - now.wall
        self._schedule(now.mono + max(0.0, left - WARNING_SECONDS), client)

    def present(self, client: Client, command: Authenticate) -> None:
        """A client brings a newer token. Another user's ends the connection; one that does not hold is an error
        and changes nothing."""
        now = self._now()
        try:
            identity = self._access.identify(command.token, now.wall)
        except Unauthenticated as invalid:
            error = messages.of_error(
                str(invalid), "expired", now.wall, field="data.token", client_id=command.id
            )
            self._tell(client, error)
            return
        if identity.user_id != client.identity.user_id or not identity.may(rbac.WATCH):
            self._end(client, NOT_ALLOWED)
            return
        client.identity = identity
        self.watch(client)
        self._tell(client, messages.of_authenticated(identity.expires_at, now.wall, command.id))
        if client.held:
            client.held = False
            self._release(client)

    def recheck(self, clients: Iterable[Client]) -> None:
        """The configuration has changed: close whoever may no longer be here, and narrow the others."""
        now = self._now().wall
        for client in list(clients):
            try:
                client.identity = self._refreshed(client, now)
            except Forbidden:
                self._end(client, NOT_ALLOWED)
            except AuthError:
                self._end(client, REVOKED)

    def _refreshed(self, client: Client, now: float) -> Identity:
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
                _, _, client, identity = heapq.heappop(self._due)
                # A client that has left, or has brought a newer token since, is followed elsewhere or not at all.
                if client.goodbye is None and client.identity.jti == identity.jti:
                    self._come_due(client)

    def _come_due(self, client: Client) -> None:
        now = self._now()
        identity = client.identity
        left = identity.expires_at - now.wall
        if client.held:
            self._end(client, EXPIRED)
        elif client.warned_of == identity.jti:
            client.held = True
            self._schedule(now.mono + GRACE_SECONDS, client)
        else:
            client.warned_of = identity.jti
            self._tell(client, messages.of_token_expiring(identity.expires_at, now.wall))
            self._schedule(now.mono + min(max(0.0, left), WARNING_SECONDS), client)

    def _schedule(self, due: float, client: Client) -> None:
        heapq.heappush(self._due, (due, next(self._order), client, client.identity))
        self._sooner.set()
