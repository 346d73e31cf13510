"""Recognises argon2id hashes (RFC 9106) that passwords can be checked against."""

from __future__ import annotations

import re

import argon2
from argon2.low_level import Type

_FORM = re.compile(
    r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,86}", re.ASCII
)


def is_argon2id(text: str) -> bool:
    """Whether `text` is an argon2id hash that `verify` can use."""
    if not _FORM.fullmatch(text):
        return False
    try:
        return argon2.extract_parameters(text).type is Type.ID
    except argon2.exceptions.InvalidHash:
        return False
