"""Login, refresh, logout, tickets, and the rights of a token."""

from __future__ import annotations

from typing import Annotated

import trio
from msgspec import UNSET, Meta, Struct, UnsetType

from heliosd.auth.identity import Issued
from heliosd.auth.passwords import MAX_PASSWORD_BYTES
from heliosd.auth.tokens import MAX_TIME
from heliosd.clock import rfc3339
from heliosd.config.permissions import EVERYTHING
from heliosd.web.authentication import require
from heliosd.web.rest.route import Answer, Call, Nothing

SAVE_SECONDS = 4.0


class Credentials(Struct, frozen=True):
    """Other fields are ignored: Helios' clients send some."""

    username: Annotated[str, Meta(max_length=256)]
    password: Annotated[str, Meta(max_length=MAX_PASSWORD_BYTES)]

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


class SessionBody(Struct, frozen=True):
    """`user_id` is the user's name; `expires_at` RFC 3339 in UTC."""

    token: str
    user_id: str
    expires_at: str
    roles: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Session(user_id={self.user_id!r})"


class Logout(Struct, frozen=True, forbid_unknown_fields=True):
    jti: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET


class LogoutDone(Struct, frozen=True):
    ok: bool = True


class TicketIssued(Struct, frozen=True):
    ticket: str
    expires_at: str

    def __repr__(self) -> str:
        return f"TicketIssued(expires_at={self.expires_at!r})"


class Me(Struct, frozen=True):
    user_id: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    expires_at: str


async def log_in(call: Call[Nothing, Credentials]) -> Answer:
    name, password = call.body.username, call.body.password
    await call.password_check.check(name, password, address=call.address.host)
    return Answer(body=_session(call.services.access.issue(name, call.now.wall)))


async def refresh(call: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=_session(call.services.access.renew(call.who, call.now.wall)))


async def log_out(call: Call[Nothing, Logout]) -> Answer:
    """Revoke the caller's token, or with `admin:*` the one whose `jti` the body names.

    The expiry of that one is not known here, so its revocation is kept for as long as any token can live.
    """
    access, who = call.services.access, call.who
    jti = who.jti if call.body.jti is UNSET else call.body.jti
    if jti == who.jti:
        expires_at = who.expires_at
    else:
        require(who, EVERYTHING)
        expires_at = MAX_TIME
    revoked = access.revoke(jti, expires_at, call.now.wall)
    call.services.roster.token_revoked(jti)
    # A browser may log out and close the connection at once, which cancels this request.
    with trio.fail_after(SAVE_SECONDS, shield=True):
        await call.services.save(revoked)
        await call.services.backend.share_revocation(jti, expires_at)
    return Answer(body=LogoutDone())


async def issue_ticket(call: Call[Nothing, Nothing]) -> Answer:
    ticket = call.services.tickets.issue(call.who, call.now)
    return Answer(status=201, body=TicketIssued(ticket.text, rfc3339(ticket.expires_at)))


async def show_me(call: Call[Nothing, Nothing]) -> Answer:
    who = call.who
    return Answer(body=Me(who.user_id, who.roles, tuple(sorted(who.permissions)), rfc3339(who.expires_at)))


def _session(issued: Issued) -> SessionBody:
    who = issued.identity
    return SessionBody(issued.token, who.user_id, rfc3339(who.expires_at), who.roles)
