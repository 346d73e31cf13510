"""Who makes a request: the one call for REST, event streams and WebSocket upgrades."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.auth.issuer_keys import kid_of
from heliosd.auth.tickets import Tickets
from heliosd.clock import Instant
from heliosd.errors import Forbidden, Invalid, Unauthenticated

from .session_cookie import tokens_in

BEARER_PROTOCOL = "bearer."
TWO_TOKENS = "Two different tokens in one request"


class RequestCredentials(NamedTuple):
    """What a request brings to prove who makes it."""

    tokens: frozenset[str]
    """The distinct bearer tokens."""
    redeemed: tuple[Identity | None, ...] = ()
    """Whose its tickets were; None for one that does not count."""
    by_header: bool = False
    """One of the tokens is in an Authorization header."""
    by_cookie: bool = False
    """The session cookie is all that there is."""


class Authenticator:
    """`fetch_key` makes the outside issuer's key of that `kid` known, or raises `IssuerUnreachable`. `tickets` are
    those that `POST /api/auth/ticket` issues."""

    def __init__(
        self,
        access: Access,
        tickets: Tickets,
        fetch_key: Callable[[str], Awaitable[None]],
        now: Callable[[], Instant],
    ) -> None:
        self._access = access
        self._tickets = tickets
        self._fetch_key = fetch_key
        self._now = now

    def read(
        self,
        authorization: Sequence[str],
        query: Mapping[str, Sequence[str]] = MappingProxyType({}),
        subprotocols: Sequence[str] = (),
        cookies: Sequence[str] = (),
    ) -> RequestCredentials:
        """The credentials in the Authorization headers (any case of `Bearer`, RFC 9110 section 11.1; other schemes
        do not count), in `token` and `ticket` of the query, and in subprotocols `bearer.<jwt>`; without any of
        these the one in the session cookie.

        Tickets are used up by this, whatever becomes of the request.
        """
        if (
            not (authorization or subprotocols or "ticket" in query)
            and len(given := query.get("token", ())) == 1
        ):
            token = given[0]  # as most clients do, and thousands at once after a node is lost
            if token:
                return RequestCredentials(frozenset((token,)))
        tokens: set[str] = set()
        for value in authorization:
            scheme, _, token = value.strip().partition(" ")
            if scheme.lower() == "bearer":
                tokens.add(token.strip())
        by_header = bool(tokens - {""})
        tokens.update(query.get("token", ()))
        tokens.update(p.removeprefix(BEARER_PROTOCOL) for p in subprotocols if p.startswith(BEARER_PROTOCOL))
        now = self._now().mono
        redeemed = tuple(self._tickets.redeem(text, now) for text in query.get("ticket", ()) if text)
        tokens.discard("")
        by_cookie = not tokens and not redeemed and bool(cookies)
        if by_cookie:
            tokens = tokens_in(cookies)
        return RequestCredentials(frozenset(tokens), redeemed, by_header, by_cookie and bool(tokens))

    async def authenticate(self, credentials: RequestCredentials) -> Identity:
        """Who makes the request, with the rights of this moment.

        Raises `Unauthenticated` without a token or with one that does not hold; `Invalid` for two different tokens,
        or a token and a ticket of another (a proxy and heliosd could look at different ones); `Forbidden` if a
        ticket's user may not watch any more; `IssuerUnreachable` if the issuer's key cannot be fetched now.
        """
        tokens, redeemed = credentials.tokens, credentials.redeemed
        if not tokens and not redeemed:
            raise Unauthenticated("Authentication required")
        if len(tokens) > 1 or len(redeemed) > 1:
            raise Invalid(TWO_TOKENS)
        found: list[Identity] = []
        for token in tokens:
            if self._access.is_outside(token):  # thousands of ours at once need no coroutine each
                await self.prepare(token)
            found.append(self._access.identify(token, self._now().wall))
        for identity in redeemed:
            if identity is None:
                raise Unauthenticated("Invalid token")
            found.append(self._access.refreshed(identity, self._now().wall))
        if len(found) == 2 and (found[0].jti, found[0].user_id) != (found[1].jti, found[1].user_id):
            raise Invalid(TWO_TOKENS)
        return found[0]

    async def prepare(self, token: str) -> None:
        """Make the key known that verifies `token`, if it is one of the outside issuer. Nothing is verified here.

        Raises `IssuerUnreachable`. Does not yield for any other token.
        """
        if self._access.is_outside(token):
            with suppress(Unauthenticated):
                await self._fetch_key(kid_of(token))


def require(identity: Identity, permission: str) -> None:
    """Raise `Forbidden` unless `identity` has `permission` (or `admin:*`)."""
    if not identity.may(permission):
        raise Forbidden(permission)
