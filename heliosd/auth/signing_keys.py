"""The daemon's own keys: secrets for HS256, of which the first signs and all verify.

Two keys at a time allow a change of keys: tokens of both hold until the old one is removed.
"""

from __future__ import annotations

import hmac
import re

from heliosd.errors import KeyUnusable

from . import base64url

ALGORITHM = "HS256"
MIN_KEY_BYTES = 32
"""RFC 7518 section 3.2: a key at least as long as the hash."""
MAX_KEYS = 8
"""Every one of them is tried on a token that none of them signed."""

_MARKS_KEPT = 256
_MARK_BYTES = 16
OUR_HEADER = base64url.encode(b'{"alg":"HS256","typ":"JWT"}')
"""What every token of ours begins with."""
_RANDOM_TEXT = re.compile(rb"(?!ssh-|ecdsa-)[A-Za-z0-9+/=_-]+")
"""Secrets in hexadecimal or base64, as the daemon makes them. No other form of key consists of these alone: PEM and
JWK have other characters, and DER the tag 0x06."""


class SigningKey:
    """The secret that signs tokens; no repr shows it. Raises `KeyUnusable` if it is too weak."""

    __slots__ = ("_marks", "_secret", "name")

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_KEY_BYTES:
            raise KeyUnusable(
                f"the signing key has {len(secret)} bytes; HS256 needs at least {MIN_KEY_BYTES} random ones"
            )
        if len(set(secret)) == 1:
            raise KeyUnusable("the signing key is one byte repeated; it needs to be random")
        if not _RANDOM_TEXT.fullmatch(secret) and _is_no_secret(secret):
            raise KeyUnusable(
                "the signing key is a public or private key or a certificate; HS256 needs a random secret"
            )
        if secret.startswith(b"-----BEGIN"):
            raise KeyUnusable("the signing key is a part of a PEM file; HS256 needs a random secret")
        self._secret = secret
        self._marks: dict[tuple[str, str], str] = {}
        self.name = self.mark("name", "")
        """Identifies this key; says nothing about the secret."""

    def sign(self, payload: bytes) -> str:
        """`payload` as a signed compact token (RFC 7515 section 5.1)."""
        signed = f"{OUR_HEADER}.{base64url.encode(payload)}"
        return f"{signed}.{self._signature(signed)}"

    def signed(self, signed: str, signature: str) -> bool:
        """Whether `signature` is this key's for `signed` (RFC 7515 section 5.2), in the one form that `sign` makes.
        Takes the same time for every wrong one of that length. Both must be ASCII."""
        return hmac.compare_digest(signature, self._signature(signed))

    def _signature(self, signed: str) -> str:
        return base64url.encode(hmac.digest(self._secret, signed.encode("ascii"), "sha256"))

    def mark(self, purpose: str, text: str) -> str:
        """A short text derived from `text` that only the holder of this key can make or check."""
        known = self._marks.get((purpose, text))
        if known is not None:
            return known
        # The NUL keeps marks apart from signatures: what a token's signature covers has none.
        digest = hmac.digest(self._secret, f"{purpose}\0{text}".encode(), "sha256")
        mark = base64url.encode(digest[:_MARK_BYTES])
        # Every connection needs the mark of its user's password, of which there are few.
        if len(self._marks) < _MARKS_KEPT:
            self._marks[purpose, text] = mark
        return mark


class KeyRing:
    """The keys in force, at least one. The first signs new tokens."""

    __slots__ = ("_keys",)

    def __init__(self, signer: SigningKey, *others: SigningKey) -> None:
        self._keys = (signer, *others)

    @property
    def signer(self) -> SigningKey:
        return self._keys[0]

    def signer_of(self, signed: str, signature: str) -> SigningKey | None:
        """The key that signed this; see `SigningKey.signed`."""
        return next((key for key in self._keys if key.signed(signed, signature)), None)

    def named(self, name: str) -> SigningKey | None:
        """The key of that `SigningKey.name`, if it is still in force."""
        return next((key for key in self._keys if key.name == name), None)


def _is_no_secret(key: bytes) -> bool:
    # PyJWT knows public keys and certificates in all their forms. It takes 9 MiB, and the
    # secret of most daemons is plainly nothing of the kind.
    import jwt  # noqa: PLC0415
    from jwt.algorithms import HMACAlgorithm  # noqa: PLC0415

    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(key)
    except jwt.InvalidKeyError:
        return True
    return False
