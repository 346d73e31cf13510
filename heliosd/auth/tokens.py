"""Tokens: JWTs (RFC 7519) signed with the daemon's own keys, read as RFC 8725 advises.

One kind of key, one algorithm: HS256. A token chooses neither, and causes no fetch. Times are Unix seconds; this
module reads no clock. Tokens of an outside issuer: `external_issuer.py`.
"""

from __future__ import annotations

import base64
import json
import math
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta, Struct

from heliosd.errors import Unauthenticated

from . import base64url
from .signing_keys import ALGORITHM, OUR_HEADER, KeyRing, SigningKey

MAX_TOKEN_BYTES = 8192
MAX_TIME = 253_402_300_799.0
"""The last second of the year 9999, which is the last that RFC 3339 can write."""

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_MAX_NAME = 256
# No critical extension is supported, and no token of ours contains a key or a place to find one.
_REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc"})


class Expired(Unauthenticated):
    """A token that was valid until its end."""

    def __init__(self, jti: str) -> None:
        super().__init__("Invalid token")
        self.jti = jti


class Claims(Struct, frozen=True, kw_only=True):
    """The claims of a token whose signature, types and times have been checked."""

    subject: str
    jti: str
    issued_at: float
    expires_at: float
    key: str
    """The name of the key that signed it."""
    password: str = ""
    """The mark of the password hash that its user had when it was made; "" in a token of another issuer."""
    roles: tuple[str, ...] = ()
    """As an outside issuer claims; those of our own users come from the configuration."""
    login_at: float = 0.0
    """When the user logged in, for our own tokens: refreshing keeps it."""


_Name = Annotated[str, Meta(min_length=1, max_length=_MAX_NAME)]
_Time = Annotated[int, Meta(ge=0, le=int(MAX_TIME))]


class _OwnBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of a token as `issue` writes it: the fields in this order, each once."""

    iss: str
    sub: _Name
    iat: _Time
    exp: _Time
    jti: _Name
    roles: tuple[str, ...]
    pwd: str
    auth_time: _Time
    aud: str = ""


_OWN = msgspec.json.Decoder(_OwnBody)
_WRITE = msgspec.json.Encoder()


def issue(
    keys: KeyRing,
    *,
    issuer: str,
    subject: str,
    roles: tuple[str, ...],
    now: float,
    ttl: float,
    audience: str = "",
    password_hash: str = "",
    login_at: float | None = None,
) -> tuple[str, Claims]:
    """A new token that holds for `ttl` seconds, rounded up to a whole second, with a random `jti`.

    `login_at`: when the user logged in (None: now).
    """
    key = keys.signer
    claims = Claims(
        subject=subject,
        jti=secrets.token_urlsafe(16),
        issued_at=math.floor(now),
        expires_at=min(math.ceil(now + ttl), int(MAX_TIME)),
        key=key.name,
        password=key.mark("password", password_hash),
        login_at=math.floor(now if login_at is None else login_at),
    )
    body = _OwnBody(
        iss=issuer,
        sub=subject,
        iat=int(claims.issued_at),
        exp=int(claims.expires_at),
        jti=claims.jti,
        roles=roles,
        pwd=claims.password,
        auth_time=int(claims.login_at),
        aud=audience,
    )
    return key.sign(_WRITE.encode(body)), claims


def verify(token: str, keys: KeyRing, *, issuer: str, now: float, audience: str = "") -> Claims:
    """The claims of `token`, if one of `keys` signed it and it holds at `now`.

    Raises `Unauthenticated` with the same text for every reason. A token that names an audience is refused unless
    it is exactly the configured one (RFC 7519 section 4.1.3). There is no leeway. A sound token that has expired
    raises `Expired`, which has its `jti`.
    """
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    as_issued = header == OUR_HEADER and token.isascii() and len(token) <= MAX_TOKEN_BYTES
    if not as_issued:
        _check_header(token)
    key = keys.signer_of(signed, signature)
    if key is None:
        refuse()
    if as_issued and (own := _own_body(payload)) is not None:
        # Thousands of these may come in a second. The general way below would find the same.
        return _own_claims(own, key, issuer=issuer, audience=audience, now=now)
    _check_header(token)
    try:
        body = strict_json(base64url.decode(payload))
    except (ValueError, RecursionError):
        refuse()
    password = body.get("pwd", "")
    claims = Claims(
        subject=name(body.get("sub")),
        jti=name(body.get("jti")),
        issued_at=time(body.get("iat")),
        expires_at=time(body.get("exp")),
        key=key.name,
        password=password if isinstance(password, str) else "",
        # A token of a version without it counts from its issue.
        login_at=time(body.get("auth_time", body.get("iat"))),
    )
    check_holds(body, claims, issuer=issuer, audience=audience, now=now)
    return claims


def _check_header(token: str) -> None:
    header = read_header(token)
    if (
        header["alg"] != ALGORITHM
        or str(header.get("typ", "JWT")).upper() != "JWT"
        or not isinstance(header.get("kid", ""), str)
    ):
        refuse()


def _own_body(payload: str) -> _OwnBody | None:
    """The payload if it is to the letter what `issue` writes of these claims, else None."""
    try:
        body = _OWN.decode(base64.urlsafe_b64decode(payload + "=="))
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return body if base64url.encode(_WRITE.encode(body)) == payload else None


def _own_claims(body: _OwnBody, key: SigningKey, *, issuer: str, audience: str, now: float) -> Claims:
    if body.iss != issuer or body.aud != audience:
        refuse()
    if body.exp <= now:
        raise Expired(body.jti)
    return Claims(
        subject=body.sub,
        jti=body.jti,
        issued_at=body.iat,
        expires_at=body.exp,
        key=key.name,
        password=body.pwd,
        login_at=body.auth_time,
    )


def read_header(token: str) -> Mapping[str, Any]:
    """The header of a token of the right form without unsupported parameters; nothing is verified yet.

    It has an `alg`, which is text. Raises `Unauthenticated`.
    """
    if len(token) > MAX_TOKEN_BYTES or not _FORM.fullmatch(token):
        refuse()
    header = _header(token.partition(".")[0])
    if not isinstance(header.get("alg"), str) or not _REFUSED_HEADERS.isdisjoint(header):
        refuse()
    return header


@lru_cache(maxsize=32)
def _header(text: str) -> Mapping[str, Any]:
    # The tokens of one issuer all begin with the same header.
    try:
        return strict_json(base64url.decode(text))
    except (ValueError, RecursionError):
        refuse()


def claimed_issuer(token: str) -> str:
    """The `iss` of a token that is not verified: only good for choosing how to verify it. "" without one."""
    if len(token) > MAX_TOKEN_BYTES or not _FORM.fullmatch(token):
        return ""
    try:
        issuer = strict_json(base64url.decode(token.split(".")[1])).get("iss")
    except (ValueError, RecursionError):
        return ""
    return issuer if isinstance(issuer, str) else ""


def check_holds(body: Mapping[str, Any], claims: Claims, *, issuer: str, audience: str, now: float) -> None:
    """Raise `Unauthenticated` unless a token is of this issuer, for this audience, and in force at `now`."""
    if body.get("iss") != issuer or body.get("aud", "") != audience:
        refuse()
    if time(body.get("nbf", 0)) > now:
        refuse()
    if claims.expires_at <= now:
        raise Expired(claims.jti)
    # An `iat` in the future is accepted: a clock that was set back must not log everyone out.


def refuse() -> NoReturn:
    """Raise the same error for every token that does not hold."""
    raise Unauthenticated("Invalid token") from None


def name(value: object) -> str:
    """A claim that is a name."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        refuse()
    # Half a surrogate pair, which JSON can escape, could be neither stored nor sent.
    try:
        value.encode()
    except UnicodeEncodeError:
        refuse()
    return value


def time(value: object) -> float:
    """A claim that is a time."""
    # Compared before the conversion, which excludes NaN, infinities and integers too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        refuse()
    return float(value)


def strict_json(data: bytes) -> Mapping[str, Any]:
    """A JSON object in UTF-8 with each name once, and numbers that JSON has. Raises ValueError otherwise."""
    value = _STRICT.decode(data.decode())
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_no_constant)
