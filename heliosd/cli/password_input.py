"""A password from a terminal, or from standard input."""

from __future__ import annotations

import getpass
import sys

from heliosd.auth.passwords import MAX_PASSWORD_BYTES

from .exits import Usage


def read_password() -> str:
    """Asked for twice on a terminal, else the one line of standard input. Raises `Usage`."""
    return _asked() if sys.stdin.isatty() else _piped()


def _asked() -> str:
    try:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise Usage("the two passwords differ")
    except EOFError:
        raise Usage("no password was given") from None
    return password


def _piped() -> str:
    # One line; `echo` and editors end it with a newline that is not meant.
    given = sys.stdin.buffer.read(MAX_PASSWORD_BYTES + 3)
    line = given.removesuffix(b"\n").removesuffix(b"\r")
    try:
        password = line.decode()
    except UnicodeDecodeError:
        raise Usage("the password is not UTF-8 text") from None
    if "\n" in password or "\r" in password:
        raise Usage("the password has more than one line")
    return password
