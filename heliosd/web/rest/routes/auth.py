"""Login, refresh, logout, tickets, and the rights of a token."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import trio
from msgspec import UNSET, Meta, Struct, UnsetType

from heliosd.auth.identity import Issued
from heliosd.auth.passwords import MAX_PASSWORD_BYTES
from heliosd.auth.tokens import MAX_TIME
from heliosd.clock import rfc3339
from heliosd.config.permissions import EVERYTHING
from heliosd.errors import Invalid, Unauthenticated
from heliosd.web import session_cookie
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
    checked = await call.password_check.check(name, password, address=call.address.host)
    # A reload meanwhile may have changed the password: the old one gets no token for the new one.
    return Answer(body=_session(call.services.access.issue(name, call.now.wall, password_hash=checked)))


async def refresh(call: Call[Nothing, Nothing]) -> Answer:
    """Where the caller's token is in the session cookie, the new one takes its place there."""
    assert call.credentials is not None
    issued = call.services.access.renew(call.who, call.now.wall)
    in_cookie = not call.credentials.tokens.isdisjoint(session_cookie.tokens_in(call.cookies))
    headers = _cookie(call, issued.token, issued.identity.expires_at) if in_cookie else {}
    return Answer(body=_session(issued), headers=headers)


async def begin_session(call: Call[Nothing, Nothing]) -> Answer:
    """Put the caller's token into the session cookie, until it ends."""
    assert call.credentials is not None
    (token,) = call.credentials.tokens
    if len(token) > session_cookie.MAX_TOKEN_BYTES:
        raise Invalid("The token is too long for a cookie")
    return Answer(body=_me(call), headers=_cookie(call, token, call.who.expires_at))


async def end_session(call: Call[Nothing, Nothing]) -> Answer:
    """Revoke the token in the session cookie, and have the browser forget the cookie."""
    await _revoke(call, _in_cookies(call))
    return Answer(body=LogoutDone(), headers=_no_cookie(call))


async def log_out(call: Call[Nothing, Logout]) -> Answer:
    """Revoke the caller's token and end its session, or with `admin:*` revoke the token whose `jti` the body names.

    The expiry of that one is not known here, so its revocation is kept for as long as any token can live.
    """
    who = call.who
    if call.body.jti not in {UNSET, who.jti}:
        require(who, EVERYTHING)
        await _revoke(call, {str(call.body.jti): MAX_TIME})
        return Answer(body=LogoutDone())
    await _revoke(call, {who.jti: who.expires_at} | _in_cookies(call))
    return Answer(body=LogoutDone(), headers=_no_cookie(call) if call.cookies else {})


def _in_cookies(call: Call[Nothing, Any]) -> dict[str, float]:
    """The tokens in the session cookie that still hold: `jti` -> expiry."""
    held = {}
    for token in session_cookie.tokens_in(call.cookies):
        with suppress(Unauthenticated):
            identity = call.services.access.identify(token, call.now.wall)
            held[identity.jti] = identity.expires_at
    return held


async def _revoke(call: Call[Nothing, Any], tokens: Mapping[str, float]) -> None:
    """These tokens (`jti` -> expiry) hold no more, also if this raises `StoreFull`: then they are stored later."""
    services = call.services
    for jti, expires_at in tokens.items():
        services.revoked_tokens.revoke(jti, expires_at)
    # A browser may log out and close the connection at once, which cancels this request.
    with trio.fail_after(SAVE_SECONDS, shield=True):
        # The other daemons first: they hear of it also if this one's disk is full.
        for jti, expires_at in tokens.items():
            await services.backend.share_revocation(jti, expires_at)
        await services.revoked_tokens.store()


async def issue_ticket(call: Call[Nothing, Nothing]) -> Answer:
    ticket = call.services.tickets.issue(call.who, call.now)
    return Answer(status=201, body=TicketIssued(ticket.text, rfc3339(ticket.expires_at)))


async def show_me(call: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=_me(call))


def _me(call: Call[Nothing, Nothing]) -> Me:
    who = call.who
    return Me(who.user_id, who.roles, tuple(sorted(who.permissions)), rfc3339(who.expires_at))


def _no_cookie(call: Call[Nothing, Any]) -> dict[str, str]:
    return _cookie(call, "", call.now.wall)


def _cookie(call: Call[Nothing, Any], token: str, ends_at: float) -> dict[str, str]:
    seconds = max(0.0, ends_at - call.now.wall)
    return {"Set-Cookie": session_cookie.set_cookie(token, seconds, path=call.base_path, secure=call.secure)}


def _session(issued: Issued) -> SessionBody:
    who = issued.identity
    return SessionBody(issued.token, who.user_id, rfc3339(who.expires_at), who.roles)
