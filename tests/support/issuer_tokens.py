"""An outside issuer for tests: keys of its own, the document that it publishes, and tokens that it signs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://issuer.example/"
NOW = 1_700_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "olga",
    "iat": 1_700_000_000,
    "exp": 1_700_000_900,
    "jti": "o1",
    "roles": ["viewer"],
}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@cache
def key(kind: str, serial: int = 0) -> PrivateKey:
    """A private key, made once a run. `serial` distinguishes keys of one kind."""
    match kind:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        case "weak":
            return rsa.generate_private_key(public_exponent=65_537, key_size=1024)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def jwk(private: PrivateKey, kid: str, **more: object) -> dict[str, Any]:
    """The public half of a key as its issuer publishes it."""
    public = private.public_key()
    match public:
        case rsa.RSAPublicKey():
            found = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        case ec.EllipticCurvePublicKey():
            found = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
        case _:
            found = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)
    return {**found, "kid": kid, "use": "sig", **more}


def document(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def signed(
    private: PrivateKey,
    kid: str | None,
    *,
    alg: str = "RS256",
    header: Mapping[str, object] | None = None,
    payload: bytes | None = None,
    **changes: Any,
) -> str:
    """A token whose signature is right; claims changed to None are left out."""
    head: dict[str, object] = {
        "alg": alg,
        "typ": "JWT",
        **({} if kid is None else {"kid": kid}),
        **(header or {}),
    }
    body = payload or json.dumps({n: v for n, v in (CLAIMS | changes).items() if v is not None}).encode()
    text = f"{b64(json.dumps(head).encode())}.{b64(body)}"
    return f"{text}.{b64(_signature(private, text.encode()))}"


def _signature(private: PrivateKey, data: bytes) -> bytes:
    match private:
        case rsa.RSAPrivateKey():
            return private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            size = (private.curve.key_size + 7) // 8
            r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        case _:
            return private.sign(data)
