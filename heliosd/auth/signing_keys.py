"""The daemon's own keys: secrets for HS256, of which the first signs and all verify.

Two keys at a time allow a change of keys: tokens of both hold until the old one is removed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

import jwt
from jwt.algorithms import HMACAlgorithm

from heliosd.errors import KeyUnusable

ALGORITHM = "HS256"
MIN_KEY_BYTES = 32
"""RFC 7518 section 3.2: a key at least as long as the hash."""
MAX_KEYS = 8
"""Every one of them is tried on a token that none of them signed."""

_MARKS_KEPT = 256
_MARK_BYTES = 16
_JWS = jwt.PyJWS(algorithms=[ALGORITHM])
_OUR_HEADER = _JWS.encode(b"", b"0" * MIN_KEY_BYTES, algorithm=ALGORITHM).partition(".")[0]
"""What every token of ours begins with."""


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
        try:
            # PyJWT knows public keys and certificates, which are no secrets, in all their forms.
            HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
        except jwt.InvalidKeyError:
            raise KeyUnusable(
                "the signing key is a public or private key or a certificate; HS256 needs a random secret"
            ) from None
        if secret.startswith(b"-----BEGIN"):
            raise KeyUnusable("the signing key is a part of a PEM file; HS256 needs a random secret")
        self._secret = secret
        self._marks: dict[tuple[str, str], str] = {}
        self.name = self.mark("name", "")
        """Identifies this key; says nothing about the secret."""

    def sign(self, payload: bytes) -> str:
        """`payload` as a signed compact token."""
        return _JWS.encode(payload, self._secret, algorithm=ALGORITHM)

    def opened(self, token: str) -> bytes:
        """The payload of a token that this key signed. Raises jwt.PyJWTError for any other."""
        signed, _, signature = token.rpartition(".")
        header, _, body = signed.partition(".")
        # The fast way of RFC 7515 section 5.2 for a token exactly as `sign` makes it, of which thousands may come
        # in a second; any other goes through the library.
        if header == _OUR_HEADER and hmac.compare_digest(signature, self._signature(signed)):
            return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        payload: bytes = _JWS.decode_complete(token, self._secret, algorithms=[ALGORITHM])["payload"]
        return payload

    def _signature(self, signed: str) -> str:
        digest = hmac.digest(self._secret, signed.encode("ascii", "replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def mark(self, purpose: str, text: str) -> str:
        """A short text derived from `text` that only the holder of this key can make or check."""
        known = self._marks.get((purpose, text))
        if known is not None:
            return known
        # The NUL keeps marks apart from signatures: what a token's signature covers has none.
        digest = hmac.digest(self._secret, f"{purpose}\0{text}".encode(), hashlib.sha256)
        mark = base64.urlsafe_b64encode(digest[:_MARK_BYTES]).rstrip(b"=").decode()
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

    def opened(self, token: str) -> tuple[bytes, SigningKey]:
        """The payload of a token that one of the keys signed, and which. Raises jwt.PyJWTError for any other."""
        for key in self._keys[:-1]:
            try:
                return key.opened(token), key
            except jwt.InvalidSignatureError:
                continue
        return self._keys[-1].opened(token), self._keys[-1]

    def named(self, name: str) -> SigningKey | None:
        """The key of that `SigningKey.name`, if it is still in force."""
        return next((key for key in self._keys if key.name == name), None)
