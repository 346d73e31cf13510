"""`heliosd reset-password`: another password for a user, in force at once also where a daemon runs."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from heliosd import atomic_file
from heliosd.auth.first_start import kept_admin, replace_admin_password
from heliosd.auth.passwords import hash_password
from heliosd.config.loader import data_directory, load
from heliosd.config.model import Config
from heliosd.config.password_edit import with_password_hash
from heliosd.daemon.referenced_files import problems_with_files
from heliosd.store.integrity import lock_holder

from .exits import FAILED, OK, CommandFailed, Usage, print_error
from .password_input import read_password


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")
    parser.add_argument(
        "name", metavar="USER", help="a user of the configuration, or the first start's admin"
    )


def run(options: argparse.Namespace) -> int:
    config = load(options.config)
    data_dir = data_directory(config)
    users = config.auth.users or tuple(filter(None, [kept_admin(data_dir)]))
    if options.name not in {user.name for user in users}:
        raise Usage(f"there is no user {options.name!r} in {options.config} or {data_dir}")
    try:
        password_hash = hash_password(read_password())
    except ValueError as error:
        raise Usage(str(error)) from None
    changed = data_dir
    if config.auth.users:
        changed = options.config.resolve()
        _edit(changed, options.name, password_hash)
    else:
        replace_admin_password(data_dir, password_hash)
    print(f"{options.name}: the password is changed in {changed}")
    return _reload(data_dir, config)


def _edit(file: Path, user: str, password_hash: str) -> None:
    """Write the hash into the configuration, which keeps its owner and mode."""
    try:
        before = file.stat()
        text = with_password_hash(file.read_bytes().decode(), user, password_hash)
        atomic_file.write(file, text.encode())
        if os.geteuid() == 0:
            os.chown(file, before.st_uid, before.st_gid)
        file.chmod(before.st_mode & 0o7777)
    except ValueError as error:
        raise CommandFailed(
            f'{file} is unchanged: {error}. Write there for {user!r}: password_hash = "{password_hash}"'
        ) from None
    except OSError as error:
        raise CommandFailed(f"cannot write {file}: {error.strerror}") from None


def _reload(data_dir: Path, config: Config) -> int:
    """Have a daemon that runs there read it. It then ends the user's sessions. Returns the exit code."""
    running, process = lock_holder(data_dir)
    if not running:
        # Its data directory may be named by its own STATE_DIRECTORY.
        print_error(
            f"no heliosd runs on {data_dir}: one that runs elsewhere keeps the old password until a reload"
        )
        return OK
    if problems := problems_with_files(config):
        for problem in problems:
            print_error(str(problem))
        print_error("so the running heliosd cannot reload, and the old password holds: mend it, then reload")
        return FAILED
    try:
        if process is None:
            raise ProcessLookupError
        os.kill(process, signal.SIGHUP)
    except OSError:
        print_error(
            "the running heliosd still uses the old password: reload it (SIGHUP, systemctl reload heliosd)"
        )
    else:
        print(f"the running heliosd (process {process}) reloads its configuration")
    return OK
