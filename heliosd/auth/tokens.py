"""Tokens: JWTs (RFC 7519) signed with the daemon's own key, read as RFC 8725 advises.

One key, one algorithm: HS256. Nothing in a token chooses either of them, and no token makes anyone fetch
anything. Times are Unix seconds; this module reads no clock.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt
from jwt.algorithms import HMACAlgorithm

from ..errors import KeyUnusable, Unauthenticated

ALGORITHM = "HS256"
MIN_KEY_BYTES = 32
"""RFC 7518 section 3.2: a key at least as long as the hash."""
MAX_TOKEN_BYTES = 8192
MAX_TIME = 253_402_300_799.0
"""The last second of the year 9999, which is the last that RFC 3339 can write."""

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_MAX_NAME = 256
# We know no critical extension, and a token that brings its key or says where to find one is none of ours.
_REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc"})
_JWS = jwt.PyJWS(algorithms=[ALGORITHM])


class SigningKey:
    """The secret that signs tokens. It shows itself nowhere; raises `KeyUnusable` if it is too weak."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_KEY_BYTES:
            raise KeyUnusable(
                f"the signing key has {len(secret)} bytes; HS256 needs at least {MIN_KEY_BYTES} random ones"
            )
        if len(set(secret)) == 1:
            raise KeyUnusable("the signing key is one byte repeated; it needs to be random")
        try:
            # PyJWT knows public keys and certificates in all their forms. Anyone may have one of those.
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except jwt.InvalidKeyError:
            raise KeyUnusable(
                "the signing key is a public or private key or a certificate; HS256 needs a random secret"
            ) from None
        if secret.startswith(b"-----BEGIN"):
            raise KeyUnusable("the signing key is a part of a PEM file; HS256 needs a random secret")
        self._secret = secret

    def sign(self, payload: bytes) -> str:
        """`payload` as a signed compact token."""
        return _JWS.encode(payload, self._secret, algorithm=ALGORITHM)

    def opened(self, token: str) -> bytes:
        """The payload of a token that this key signed. Raises jwt.PyJWTError for any other."""
        payload: bytes = _JWS.decode_complete(token, self._secret, algorithms=[ALGORITHM])["payload"]
        return payload


class Expired(Unauthenticated):
    """A token of ours that held once."""

    def __init__(self, jti: str) -> None:
        super().__init__("Invalid token")
        self.jti = jti


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a token says, once its signature, types and times have been checked."""

    subject: str
    jti: str
    issued_at: float
    expires_at: float


def issue(
    key: SigningKey,
    *,
    issuer: str,
    subject: str,
    roles: tuple[str, ...],
    now: float,
    ttl: float,
    audience: str = "",
) -> tuple[str, Claims]:
    """A new token that holds for `ttl` seconds, rounded up to a whole second, with a random `jti`."""
    claims = Claims(
        subject=subject,
        jti=secrets.token_urlsafe(16),
        issued_at=math.floor(now),
        expires_at=min(math.ceil(now + ttl), int(MAX_TIME)),
    )
    body = {
        "iss": issuer,
        "sub": subject,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "jti": claims.jti,
        "roles": list(roles),
    }
    if audience:
        body["aud"] = audience
    return key.sign(json.dumps(body, separators=(",", ":")).encode()), claims


def verify(token: str, key: SigningKey, *, issuer: str, now: float, audience: str = "") -> Claims:
    """What `token` says, if `key` signed it and it holds at `now`.

    Raises `Unauthenticated` with the same text for every reason. A token that names an audience is refused
    unless it is exactly the configured one (RFC 7519 section 4.1.3). There is no leeway.
    One that is sound but has expired is `Expired`, which tells the `jti`.
    """
    if len(token) > MAX_TOKEN_BYTES or not _FORM.fullmatch(token):
        _refuse()
    try:
        header = _strict_json(jwt.utils.base64url_decode(token.partition(".")[0]))
        if header.get("alg") != ALGORITHM or not _REFUSED_HEADERS.isdisjoint(header):
            _refuse()
        if str(header.get("typ", "JWT")).upper() != "JWT":
            _refuse()
        body = _strict_json(key.opened(token))
    except (jwt.PyJWTError, ValueError, RecursionError):
        _refuse()
    claims = Claims(
        subject=_name(body.get("sub")),
        jti=_name(body.get("jti")),
        issued_at=_time(body.get("iat")),
        expires_at=_time(body.get("exp")),
    )
    if body.get("iss") != issuer or body.get("aud", "") != audience:
        _refuse()
    if _time(body.get("nbf", 0)) > now:
        _refuse()
    if claims.expires_at <= now:
        raise Expired(claims.jti)
    # An `iat` in the future is let pass: a clock set back must not log everyone out.
    return claims


def _refuse() -> NoReturn:
    raise Unauthenticated("Invalid token") from None


def _name(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        _refuse()
    return value


def _time(value: object) -> float:
    # Comparing first keeps NaN, infinities and integers too large for a float out.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        _refuse()
    return float(value)


def _strict_json(data: bytes) -> Mapping[str, Any]:
    """A JSON object in UTF-8 with each name once, and numbers that JSON has. Raises ValueError otherwise."""
    value = json.loads(data.decode(), object_pairs_hook=_each_once, parse_constant=_no_constant)
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
