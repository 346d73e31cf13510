"""`heliosd hash-password`: a password in, its argon2id hash out."""

from __future__ import annotations

import argparse

from heliosd.auth.passwords import hash_password

from .exits import OK, Usage
from .password_input import read_password


def add_options(_: argparse.ArgumentParser) -> None:
    """It has none."""


def run(_: argparse.Namespace) -> int:
    password = read_password()
    try:
        print(hash_password(password), flush=True)
    except ValueError as error:
        raise Usage(str(error)) from None
    return OK
