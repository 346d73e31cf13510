"""The daemon and the credentials of a client command: from options, the environment, or a prompt.

No option takes a secret, since every user of the machine can read the options of a process.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from heliosd.client.http_api import Credentials, Password, TokenSource, parse_server_url

from .exits import Usage
from .options import DEFAULT_URL


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    credentials: Credentials


def target_of(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Target:
    """From the options, else the environment, else a prompt on the terminal. Raises `Usage`."""
    url = options.url or environment.get("HELIOSD_URL") or DEFAULT_URL
    try:
        parse_server_url(url)
    except ValueError as wrong:
        raise Usage(f"--url: {wrong}") from None
    return Target(url, _credentials(options, environment))


def _credentials(options: argparse.Namespace, environment: Mapping[str, str]) -> Credentials:
    named = options.user is not None or options.password_file is not None
    if options.token_file is not None:
        if named:
            raise Usage("give --token-file, or --user and --password-file, not both")
        _read(options.token_file)
        return _from_file(options.token_file)
    if not named and (token := environment.get("HELIOSD_TOKEN")):
        return token
    user = options.user or environment.get("HELIOSD_USER")
    if user is None:
        user = _ask("User: ", "--user or HELIOSD_USER", secret=False)
    if options.password_file is not None:
        return Password(user, _read(options.password_file))
    password = environment.get("HELIOSD_PASSWORD")
    if password is None:
        password = _ask("Password: ", "--password-file or HELIOSD_PASSWORD", secret=True)
    return Password(user, password)


def _from_file(path: Path) -> TokenSource:
    async def token() -> str:
        # Read each time, since the token in it may be rotated.
        return (await trio.Path(path).read_text(encoding="utf-8", errors="replace")).strip()

    return token


def _read(path: Path) -> str:
    """The file's one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read {path}: {error}") from None
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or "\n" in line or "\r" in line:
        raise Usage(f"{path} must hold one line")
    return line


def _ask(prompt: str, instead: str, *, secret: bool) -> str:
    if not sys.stdin.isatty():
        raise Usage(f"give {instead}")
    try:
        if secret:
            answer = getpass.getpass(prompt)
        else:
            # Not input(prompt), which writes to standard output; that may be another program's input.
            print(prompt, end="", file=sys.stderr, flush=True)
            answer = input()
    except EOFError:
        raise Usage(f"give {instead}") from None
    if not answer:
        raise Usage(f"give {instead}")
    return answer
