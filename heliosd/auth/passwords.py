"""Passwords, kept as argon2id hashes (RFC 9106) with parameters inside the hash.

One hash costs some 20 ms and 19 MiB on purpose: these functions do not belong on the event loop.
"""

from __future__ import annotations

import argon2
from argon2.low_level import Type

MAX_PASSWORD_BYTES = 1024
"""In UTF-8. Longer ones are refused before they cost a hash."""

# OWASP's advice for argon2id. With more than one lane two logins at once would take the event loop's core too.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)


DECOY = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmUuLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""A hash that no password is known for, as costly as those that `hash_password` makes."""


def hash_password(password: str) -> str:
    """The argon2id hash of `password` for the config file. Raises ValueError for an empty or too long one."""
    if not password:
        raise ValueError("the password is empty")
    if _too_long(password):
        raise ValueError(f"the password is longer than {MAX_PASSWORD_BYTES} bytes")
    return _HASHER.hash(password.encode())


def verify(password_hash: str, password: str) -> bool:
    """Whether `password` made `password_hash`. Never raises; a broken hash matches nothing."""
    if not password or _too_long(password):
        return False
    try:
        return _HASHER.verify(password_hash, password.encode("utf-8", "surrogatepass"))
    except (argon2.exceptions.VerificationError, ValueError):
        return False  # a broken hash is a ValueError


def _too_long(password: str) -> bool:
    # The characters first: a megabyte is not even encoded.
    return (
        len(password) > MAX_PASSWORD_BYTES
        or len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES
    )
