"""The daemon and the credentials of a client command: from options, the environment, a file, or a prompt.

No option takes a secret, since every user of the machine can read the options of a process. Of the four places the
first that names credentials counts, and the URL is looked for in each of them by itself.
"""

from __future__ import annotations

import argparse
import getpass
import os
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import trio
from msgspec import Struct

from heliosd.client.http_api import Credentials, Password, TokenSource, parse_server_url
from heliosd.errors import AccessRefused, ErrorAnswer, FollowingEnded, Unreachable

from .environment import variable
from .exits import CANNOT_CONNECT, FAILED, REFUSED, WRONG, CommandFailed, Usage
from .options import DEFAULT_URL


class Target(Struct, frozen=True):
    url: str
    credentials: Credentials
    user: str
    """Who is asking, in words."""

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Errors of a client become a `CommandFailed` that names the user and the URL."""
        try:
            yield
        except Unreachable as error:
            raise CommandFailed(f"{error} (as {self.user})", CANNOT_CONNECT) from error
        except AccessRefused as error:
            raise CommandFailed(f"{error} ({self.user} at {self.url})", REFUSED) from error
        except ErrorAnswer as error:
            code = WRONG if error.status == 400 else FAILED
            raise CommandFailed(f"{error} ({self.user} at {self.url})", code) from error
        except FollowingEnded as error:
            raise CommandFailed(f"{error} ({self.user} at {self.url})", FAILED) from error


class ClientConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`~/.config/heliosd/client.toml`, or another file that `--client-config` names."""

    url: str | None = None
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    token: str | None = None
    token_file: str | None = None


def target_of(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Target:
    """The daemon and the user. Raises `Usage`."""
    kept = _client_config(options, environment)
    url = options.url or variable(environment, "URL") or kept.url or DEFAULT_URL
    try:
        url = parse_server_url(url).url
    except ValueError as wrong:
        raise Usage(f"--url: {wrong}") from None
    return Target(url, *_credentials(options, environment, kept))


def _credentials(
    options: argparse.Namespace, environment: Mapping[str, str], kept: ClientConfig
) -> tuple[Credentials, str]:
    named = options.user is not None or options.password_file is not None
    if options.token_file is not None:
        if named:
            raise Usage("give --token-file, or --user and --password-file, not both")
        return _from_file(options.token_file)
    if not named:
        if token := variable(environment, "TOKEN"):
            return token, "the token of HELIOSD_TOKEN"
        if token_file := variable(environment, "TOKEN_FILE"):
            return _from_file(Path(token_file))
        if variable(environment, "USER") is None:
            if kept.token:
                return kept.token, "the token of the client configuration"
            if kept.token_file:
                return _from_file(Path(kept.token_file).expanduser())
    user = options.user or variable(environment, "USER") or kept.user
    if user is None:
        user = _ask("User: ", "--user or HELIOSD_USER", secret=False)
    return Password(user, _password(options, environment, kept, user)), user


def _password(
    options: argparse.Namespace, environment: Mapping[str, str], kept: ClientConfig, user: str
) -> str:
    if options.password_file is not None:
        return _read(options.password_file)
    if password := variable(environment, "PASSWORD"):
        return password
    if password_file := variable(environment, "PASSWORD_FILE"):
        return _read(Path(password_file))
    if user == kept.user:
        if kept.password:
            return kept.password
        if kept.password_file:
            return _read(Path(kept.password_file).expanduser())
    return _ask("Password: ", "--password-file or HELIOSD_PASSWORD", secret=True)


def _client_config(options: argparse.Namespace, environment: Mapping[str, str]) -> ClientConfig:
    """The client's configuration file; an empty one if the default file cannot be read."""
    asked = options.client_config or variable(environment, "CLIENT_CONFIG")
    home = environment.get("XDG_CONFIG_HOME") or "~/.config"
    path = Path(asked or Path(home) / "heliosd" / "client.toml")
    try:
        path = path.expanduser()
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            read = msgspec.convert(tomllib.load(file), ClientConfig)
    except (OSError, RuntimeError) as error:
        if not asked:
            # As another user, HOME may still be a folder of the first, or there is none at all.
            return ClientConfig()
        if isinstance(error, FileNotFoundError):
            raise Usage(f"{path} is not there") from None
        raise Usage(f"{path}: {error}") from None
    except ValueError as error:
        raise Usage(f"{path}: {error}") from None
    if mode & 0o077 and (read.password or read.token):
        raise Usage(f"{path} holds a secret and others may read it: chmod 600 {path}")
    return read


def _from_file(path: Path) -> tuple[TokenSource, str]:
    first = [_read(path).strip()]  # a pipe gives it once

    async def token() -> str:
        if first:
            return first.pop()
        # Read each time, since the token in it may be rotated. While it is written anew the file is empty.
        newer = (await trio.Path(path).read_text(encoding="utf-8", errors="replace")).strip()
        if not newer:
            raise OSError(f"{path} is empty")
        return newer

    return token, f"the token of {path}"


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
            if sys.stderr is not None:
                print(prompt, end="", file=sys.stderr, flush=True)
            answer = input()
    except EOFError:
        raise Usage(f"give {instead}") from None
    if not answer:
        raise Usage(f"give {instead}")
    return answer
