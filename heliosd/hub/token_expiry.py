"""What a token's end, a newer token, and a reload of the configuration mean for an open connection."""

from __future__ import annotations

from math import inf

import trio
from msgspec.structs import replace

from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.config import permissions
from heliosd.errors import AuthError, Forbidden, Unauthenticated
from heliosd.protocol import server_messages
from heliosd.protocol.client_commands import Authenticate
from heliosd.protocol.close_codes import EXPIRED, NOT_ALLOWED, REVOKED

from . import delivery
from .client import HubClient
from .connections import Connections
from .schedule import Schedule
from .time_slice import TimeSlice

WARNING_SECONDS = 60.0
"""So long before its token's end a client is warned, or after half of the token's life where that is later."""
CLOCK_SECONDS = 1.0
"""Between looks at the wall clock, which was set if it is off by more than this from what was expected."""
GRACE_SECONDS = 25.0
"""From its token's end a client has so long to present a newer one."""


class TokenExpiry:
    """Watches the tokens of the connections.

    Deadlines are monotonic, so that a wall clock that is set back does not prolong a connection. One that is set
    forward makes them earlier.
    """

    def __init__(self, access: Access, connections: Connections) -> None:
        self._access = access
        self._connections = connections
        self._now = connections.now
        self._deadlines: Schedule[HubClient] = Schedule()
        self._next_due_seen = 0.0
        """The earliest deadline when `run` looked last: for one before it, it has to wake sooner."""
        self._sooner = trio.Event()
        self._reloaded = False
        """All are to be looked at again."""
        self._offset = self._clock_offset()
        """Of the wall clock from the monotonic one, when it was last seen to have been set."""

    def __len__(self) -> int:
        """Deadlines in memory, those included that do not hold any more."""
        return len(self._deadlines)

    def watch(self, client: HubClient) -> None:
        """Watch the token that `client` has now."""
        client.warned = False
        self._schedule(self._next_due(client), client)

    def forget(self, client: HubClient) -> None:
        """Watch it no longer."""
        self._deadlines.cancel(client.next_due)

    def present(self, client: HubClient, command: Authenticate) -> None:
        """A client presents a newer token. Another user's ends the connection; an invalid one is an error and
        changes nothing."""
        now = self._now()
        try:
            identity = self._access.identify(command.token, now.wall)
        except Unauthenticated as invalid:
            error = server_messages.of_error(
                str(invalid), "expired", now.wall, field="data.token", client_id=command.id
            )
            self._connections.send(client, error)
            return
        if identity.user != client.identity.user or not identity.may(permissions.WATCH):
            self._connections.end(client, NOT_ALLOWED)
            return
        client.identity = identity
        self.watch(client)
        self._connections.send(
            client, server_messages.of_authenticated(identity.expires_at, now.wall, command.id)
        )
        if client.held:
            delivery.release(client)
            self._connections.settle(client)

    def recheck(self, client: HubClient) -> None:
        """The configuration may have changed: close a client that is no longer allowed, or renew its rights."""
        try:
            client.identity = self._refreshed(client, self._now().wall)
        except Forbidden:
            self._connections.end(client, NOT_ALLOWED)
        except AuthError:
            self._connections.end(client, REVOKED)

    def recheck_all(self) -> None:
        """The configuration has changed: have `run` do that to all."""
        self._reloaded = True
        self._sooner.set()

    def _refreshed(self, client: HubClient, now: float) -> Identity:
        if not client.held and client.identity.expires_at > now:
            return self._access.refreshed(client.identity, now)
        # It has expired (it is held, or will be in a moment) and may yet be renewed; what counts here is whether
        # the user may still watch.
        lasting = replace(client.identity, expires_at=now + 1)
        renewed = self._access.refreshed(lasting, now)
        return replace(renewed, expires_at=client.identity.expires_at)

    async def run(self) -> None:
        """Warn, hold and close on time, until cancelled."""
        while True:
            if not self._reloaded:
                self._sooner = trio.Event()
                self._next_due_seen = due = self._deadlines.next_due
                with trio.move_on_at(due if due == inf else min(due, trio.current_time() + CLOCK_SECONDS)):
                    await self._sooner.wait()
            if self._reloaded:
                self._reloaded = False
                async for client in self._connections.in_turns():
                    if client.close_reason is None:
                        self.recheck(client)
            self._follow_wall_clock()
            await self._see_to_due()

    async def _see_to_due(self) -> None:
        """With pauses: thousands may have the same token."""
        time_slice = TimeSlice()
        while (due := self._deadlines.pop(trio.current_time())) is not None:
            if due.close_reason is None:
                self._come_due(due)
            if time_slice.over:
                await time_slice.pause()

    def _come_due(self, client: HubClient) -> None:
        now = self._now()
        identity = client.identity
        # On an event stream no newer token can be presented.
        if client.held or (client.warned and client.stream_kind == "sse"):
            self._connections.end(client, EXPIRED)
        elif client.warned:
            client.hold()
            # By the monotonic clock; so the wall clock, set back, does not let the same token in once more.
            self._access.expire(identity.jti)
            self._schedule(now.mono + GRACE_SECONDS, client)
        else:
            client.warned = True
            self._connections.send(client, server_messages.of_token_expiring(identity.expires_at, now.wall))
            self._schedule(min(self._next_due(client), now.mono + _warning_seconds(identity)), client)

    def _next_due(self, client: HubClient) -> float:
        """When to warn a client, or, once it has been warned, when its token ends."""
        now, identity = self._now(), client.identity
        left = identity.expires_at - now.wall
        if not client.warned:
            left -= _warning_seconds(identity)
        return now.mono + max(0.0, left)

    def _clock_offset(self) -> float:
        now = self._now()
        return now.wall - now.mono

    def _follow_wall_clock(self) -> None:
        """Make deadlines earlier if the wall clock was set forward."""
        offset = self._clock_offset()
        if abs(offset - self._offset) <= CLOCK_SECONDS:
            return
        self._offset = offset
        for due, client in self._deadlines.pending():
            if not client.held and self._next_due(client) < due:
                self._schedule(self._next_due(client), client)

    def _schedule(self, due: float, client: HubClient) -> None:
        self.forget(client)
        if due < self._next_due_seen:
            self._sooner.set()
        client.next_due = self._deadlines.schedule(due, client)


def _warning_seconds(identity: Identity) -> float:
    half = (identity.expires_at - identity.issued_at) / 2
    # An issuer may name a time of issue behind the token's end.
    return WARNING_SECONDS if half > WARNING_SECONDS else max(0.0, half)
