"""Who is asking, and may they: the one door for REST requests and WebSocket upgrades.

Pure: it is handed what the request carried. REST passes only the Authorization header; `/ws/cluster` and event
streams also pass `?token=` and the tickets that were spent on them, the former the offered subprotocols as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.errors import Forbidden, Invalid, Unauthenticated

BEARER_PROTOCOL = "bearer."


def tokens_carried(
    authorization: Sequence[str], query_tokens: Sequence[str] = (), subprotocols: Sequence[str] = ()
) -> frozenset[str]:
    """The distinct bearer tokens in these Authorization headers (any case of `Bearer`, RFC 9110 section 11.1;
    other schemes are not ours), `token` query parameters, and subprotocols `bearer.<jwt>`."""
    found = set()
    for value in authorization:
        scheme, _, credentials = value.strip().partition(" ")
        if scheme.lower() == "bearer":
            found.add(credentials.strip())
    found.update(query_tokens)
    found.update(p.removeprefix(BEARER_PROTOCOL) for p in subprotocols if p.startswith(BEARER_PROTOCOL))
    return frozenset(found - {""})


def authenticate(
    access: Access,
    now: float,
    authorization: Sequence[str],
    query_tokens: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
    *,
    tickets: Sequence[Identity | None] = (),
) -> Identity:
    """Whose request this is at `now` (Unix seconds). `tickets`: what `Tickets.spend` said of each.

    Raises `Unauthenticated` without a token or with one that does not hold, and `Invalid` for two different
    tokens, or a token and a ticket of another: which of them counts must not depend on where a proxy or a bug
    looks first. `Forbidden` if a ticket's user may not watch (any more): for more than that nobody needs one.
    """
    if len(query_tokens) == 1 and not authorization and not subprotocols and not tickets and query_tokens[0]:
        return access.identify(query_tokens[0], now)  # as most clients come, and thousands at once
    tokens = tokens_carried(authorization, query_tokens, subprotocols)
    if not tokens and not tickets:
        raise Unauthenticated("Authentication required")
    if len(tokens) > 1 or len(tickets) > 1:
        raise Invalid("Two different tokens in one request")
    found = [access.identify(token, now) for token in tokens]
    found += [_of_ticket(access, ticket, now) for ticket in tickets]
    if len({(identity.jti, identity.user_id) for identity in found}) > 1:
        raise Invalid("Two different tokens in one request")
    return found[0]


def _of_ticket(access: Access, ticket: Identity | None, now: float) -> Identity:
    if ticket is None:
        raise Unauthenticated("Invalid token")
    return access.refreshed(ticket, now)


def require(identity: Identity, permission: str) -> None:
    """Raise `Forbidden` unless `identity` has `permission` (or `admin:*`)."""
    if not identity.may(permission):
        raise Forbidden(permission)
