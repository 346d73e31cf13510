"""Who is asking, and may they: the one door for REST requests and WebSocket upgrades.

Pure: it is handed what the request carried. REST passes only the Authorization header; `/ws/cluster` and event
streams also pass `?token=` and the offered subprotocols.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..auth.access import Access, Identity
from ..errors import Forbidden, Invalid, Unauthenticated

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
    *,
    authorization: Sequence[str],
    query_tokens: Sequence[str] = (),
    subprotocols: Sequence[str] = (),
) -> Identity:
    """Whose request this is at `now` (Unix seconds).

    Raises `Unauthenticated` without a token or with one that does not hold, and `Invalid` for two different
    tokens: which of them counts must not depend on where a proxy or a bug looks first.
    """
    tokens = tokens_carried(authorization, query_tokens, subprotocols)
    if not tokens:
        raise Unauthenticated("Authentication required")
    if len(tokens) > 1:
        raise Invalid("Two different tokens in one request")
    (token,) = tokens
    return access.identify(token, now)


def require(identity: Identity, permission: str) -> None:
    """Raise `Forbidden` unless `identity` has `permission` (or `admin:*`)."""
    if not identity.may(permission):
        raise Forbidden(permission)
