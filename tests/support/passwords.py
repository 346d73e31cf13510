"""Passwords whose hashes cost next to nothing to make and to check."""

from __future__ import annotations

import argon2

_HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def cheap_hash(password: str) -> str:
    """An argon2id hash as weak as it can be made. Where the cost is the point, a test takes `hash_password`."""
    return _HASHER.hash(password.encode())
