"""TOML -> `Config`: all mistakes at once, each with the path of its key.

A relative path starts at the folder of the file, so that the file means the same under systemd and in a shell; `~`
is the home directory, "" means "not set".
"""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from heliosd.errors import ConfigError, ConfigProblem, StoreError, store_error

from .lines import KeyLines
from .model import Config
from .reader import ConfigReader
from .schema import read_config

Also = Callable[[Config], Iterable[ConfigProblem]]
"""Finds more problems. It is given the configuration with defaults in place of what is wrong."""


def load(file: Path, *, also: Also = lambda _: ()) -> Config:
    """The configuration in that file. Raises `ConfigError`, also if the file cannot be read."""
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        raise ConfigError((ConfigProblem("", f"cannot read {file}: {error.strerror}"),)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((ConfigProblem("", f"{file} is not UTF-8 text (byte {error.start})"),)) from error
    return parse(text, folder=file.absolute().parent, also=also)


def parse(text: str, *, folder: Path = Path(), also: Also = lambda _: ()) -> Config:
    """The configuration in `text`; relative paths in it start at `folder`. Raises `ConfigError`."""
    # TOML allows CRLF; a file written on another system may begin with a byte order mark.
    text = text.removeprefix("\ufeff")
    try:
        whole = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = "tables are nested too deeply" if isinstance(error, RecursionError) else str(error)
        doubles = [
            ConfigProblem(key, f"stands twice, first on line {first}", line=second)
            for key, first, second in KeyLines(text).twice
        ]
        raise ConfigError(tuple(doubles) or (ConfigProblem("", f"not TOML: {message}"),)) from error
    root = ConfigReader("", whole, folder)
    config = read_config(root)
    problems = [*root.problems, *also(config)]
    if problems:
        lines = KeyLines(text)
        raise ConfigError(tuple(replace(problem, line=lines.find(problem.key)) for problem in problems))
    return config


def data_directory(config: Config) -> Path:
    """`node.data_dir`, else systemd's $STATE_DIRECTORY, else $XDG_STATE_HOME/heliosd or ~/.local/state/heliosd.

    Raises `StoreError` if there is no home directory.
    """
    if config.node.data_dir is not None:
        return config.node.data_dir
    if given := os.environ.get("STATE_DIRECTORY"):
        # systemd joins several directories with colons; the first is the service's own.
        return Path(given.partition(":")[0])
    state_home = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path there is ignored.
    if state_home.startswith("/"):
        return Path(state_home) / "heliosd"
    try:
        return Path.home() / ".local" / "state" / "heliosd"
    except RuntimeError:
        raise StoreError("this user has no home directory: set node.data_dir") from None


def ensure_data_directory(directory: Path) -> None:
    """Make `directory`, with mode 0700 and writable by this process. Raises `StoreError` if it cannot, `StoreFull`
    if that is the disk's trouble."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(directory.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            directory.chmod(0o700)
    except OSError as error:
        raise store_error(f"cannot use the data directory {directory}", error) from error
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise store_error(f"cannot use the data directory {directory}", OSError(number, os.strerror(number)))
