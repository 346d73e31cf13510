"""Tokens of an outside issuer: which of its published keys may sign them, and their claims.

Only public keys, and one algorithm for each type of key: RSA is RS256, EC P-256 is ES256, Ed25519 is EdDSA. A token
chooses nothing but a key, by its `kid`, among those that were fetched from the configured URL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import jwt
from jwt import PyJWK

from . import tokens
from .issuer_keys import ALGORITHM_OF, MAX_KID, IssuerKeys, kid_of
from .tokens import Claims

MIN_RSA_BYTES = 256
"""RFC 7518 section 3.3: 2048 bits."""
MAX_KEYS = 100

_TYPES = frozenset({"JWT", "AT+JWT", "APPLICATION/AT+JWT"})
"""RFC 9068 section 2.1 gives access tokens a type of their own."""
_JWS = jwt.PyJWS(algorithms=sorted(ALGORITHM_OF.values()))


@dataclass(frozen=True, slots=True)
class FetchedKeys(IssuerKeys):
    """Keys that were found under `url`, by `kid`."""

    by_kid: Mapping[str, PyJWK] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: str, keys: Iterable[PyJWK]) -> FetchedKeys:
        """Those of `keys` that may sign tokens. Of two with the same `kid` the first counts."""
        found: dict[str, PyJWK] = {}
        for key in keys:
            kid = key.key_id
            if isinstance(kid, str) and 0 < len(kid) <= MAX_KID and len(found) < MAX_KEYS and _usable(key):
                found.setdefault(kid, key)
        return cls(url, found)

    def verify(self, token: str, *, issuer: str, now: float, audience: str, roles_claim: str) -> Claims:
        """As the base class. `iss`, `sub` and `exp` are required, `aud` may be a list that has `audience` in it. A
        token without `jti` gets a digest in its place, so that it can be revoked."""
        header = tokens.read_header(token)
        key = self.by_kid.get(kid_of(token))
        if (
            key is None
            or header["alg"] != key.algorithm_name
            or str(header.get("typ", "JWT")).upper() not in _TYPES
        ):
            tokens.refuse()
        try:
            opened = _JWS.decode_complete(token, key, algorithms=[key.algorithm_name])
            body = tokens.strict_json(opened["payload"])
        except (jwt.PyJWTError, ValueError, RecursionError):
            tokens.refuse()
        claims = Claims(
            subject=tokens.name(body.get("sub")),
            jti=tokens.name(body.get("jti", _digest(token))),
            issued_at=tokens.time(body.get("iat", 0)),
            expires_at=tokens.time(body.get("exp")),
            key=str(key.key_id),
            roles=_roles(_claim(body, roles_claim)),
        )
        audiences = body.get("aud")
        if audience and isinstance(audiences, list) and audience in audiences:  # RFC 7519 section 4.1.3
            body = {**body, "aud": audience}
        tokens.check_holds(body, claims, issuer=issuer, audience=audience, now=now)
        return claims


def _digest(token: str) -> str:
    # Without the signature: ECDSA has two for each, and both would verify.
    return "sha256:" + hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


def _claim(body: Mapping[str, object], path: str) -> object:
    """The claim of that name, or else the one that the dotted `path` leads to."""
    if path in body:
        return body[path]
    found: object = body
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _roles(claim: object) -> tuple[str, ...]:
    """A list of names; anything else gives no role at all."""
    if not isinstance(claim, list) or not all(isinstance(role, str) for role in claim):
        return ()
    return tuple(dict.fromkeys(claim))


def _usable(key: PyJWK) -> bool:
    try:
        # Built from the key itself, not from what the issuer says about it.
        form = key.Algorithm.to_jwk(key.key, as_dict=True)
        kind: tuple[str, str | None] = (form["kty"], form.get("crv"))
        sound = ALGORITHM_OF.get(kind) == key.algorithm_name and "d" not in form
        return sound and (kind[0] != "RSA" or len(jwt.utils.base64url_decode(form["n"])) >= MIN_RSA_BYTES)
    except (jwt.PyJWTError, TypeError, ValueError, KeyError):
        return False
