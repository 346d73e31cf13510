"""What a first start makes in the data directory: the key that signs tokens, and a user who can log in.

Both are files of mode 0600 that appear under their names complete.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from pathlib import Path
from typing import TextIO

from heliosd import atomic_file
from heliosd.config.model import Config, UserConfig
from heliosd.config.password_hashes import is_argon2id
from heliosd.errors import KeyUnusable, StoreDamaged, StoreFull, store_error

from . import passwords
from .signing_keys import MAX_KEYS, KeyRing, SigningKey

KEY_FILE = "jwt_secret"
HASH_FILE = "admin_password_hash"
PASSWORD_FILE = "admin_password"  # noqa: S105
BACKED_UP = (KEY_FILE, HASH_FILE)
"""What a backup has beside the database."""
ADMIN = "admin"

_log = logging.getLogger(__name__)
_MAX_FILE_BYTES = 65_536


def load_signing_keys(config: Config, data_dir: Path, *, make: bool) -> KeyRing:
    """The keys: `auth.jwt_secret_file`, else systemd's credential `jwt_secret`, else the data directory's own.

    Only the last is made, and only with `make`. Raises `KeyUnusable`, which names the missing or wrong file, and
    `StoreFull` if the disk does not take a new one now.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    configured = config.auth.jwt_secret_file
    if configured is not None:
        keys = read_keys(configured)
        # systemd protects credentials by the directory and an ACL, whatever their mode is.
        guarded = credentials and configured.is_relative_to(credentials)
        if not guarded and _mode(configured) & (stat.S_IRWXG | stat.S_IRWXO):
            _log.warning("others than the owner may read the signing key %s; chmod 600 it", configured)
        return keys
    if credentials and _exists(credential := Path(credentials) / KEY_FILE):
        return read_keys(credential)
    own = data_dir / KEY_FILE
    if _exists(own):
        return read_keys(own)
    if not make:
        raise KeyUnusable(f"there is no signing key yet: {own} does not exist; `heliosd serve` makes it")
    try:
        _create(own, secrets.token_hex(32))
    except FileExistsError:
        pass  # another process was first; its key is as good
    except OSError as error:
        failed = store_error(f"cannot make the signing key {own}", error)
        raise (failed if isinstance(failed, StoreFull) else KeyUnusable(str(failed))) from error
    return read_keys(own)


def read_keys(path: Path) -> KeyRing:
    """The keys in that file, of which the first signs: one a line without the white space around it, or one that is
    not text. Raises `KeyUnusable` if there is none, or any of them cannot be used."""
    try:
        content = _read(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    is_text = content.isascii() and all(line.decode().isprintable() for line in lines)
    found = lines if is_text else [content]
    if len(found) > MAX_KEYS:
        raise KeyUnusable(f"{path}: {len(found)} keys; at most {MAX_KEYS} may stand there")
    keys = []
    for number, secret in enumerate(found, 1):
        try:
            keys.append(SigningKey(secret))
        except KeyUnusable as error:
            where = f"{path}, key {number}" if len(found) > 1 else path
            raise KeyUnusable(f"{where}: {error}") from None
    if not keys:
        raise KeyUnusable(f"{path}: there is no signing key in it")
    return KeyRing(*keys)


def ensure_admin(config: Config, data_dir: Path) -> tuple[UserConfig | None, str | None]:
    """The user `admin` that heliosd makes for itself while no user is configured.

    (None, None) when users are configured; (user, None) when an earlier start made it; (user, password) when
    it is new: then nothing is stored yet, and the caller passes both to `hand_over`. Raises `StoreError`.
    """
    if config.auth.users:
        return None, None
    kept = kept_admin(data_dir)
    if kept is not None:
        return kept, None
    password = secrets.token_urlsafe(18)
    return _admin(passwords.hash_password(password)), password


def kept_admin(data_dir: Path) -> UserConfig | None:
    """The user that an earlier start made, if any. Raises `StoreError` if its file cannot be read or used."""
    path = data_dir / HASH_FILE
    try:
        password_hash = _read(path).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
    if not is_argon2id(password_hash):
        raise StoreDamaged(
            f"{path} holds no argon2id hash; remove it, and the next start makes a new password"
        )
    return _admin(password_hash)


def hand_over(user: UserConfig, password: str, data_dir: Path, terminal: TextIO | None) -> Path | None:
    """Publish the new password, once, and then store its hash: the start after one that was killed in between makes
    another password.

    With a terminal it is printed there and None is returned; else it is in the file (mode 0600) whose path is
    returned, for the log. Raises `StoreError`.
    """
    password_file = None
    hash_file = data_dir / HASH_FILE
    try:
        # A password is not published again and again while the disk takes no files.
        trial = hash_file.with_suffix(".trial")
        atomic_file.write(trial, user.password_hash.encode("ascii"))
        atomic_file.remove(trial)
        if terminal is not None:
            print(
                f"\n  First start: log in as {user.name!r} with the password  {password}\n",
                file=terminal,
                flush=True,
            )
        else:
            password_file = data_dir / PASSWORD_FILE
            password_file.unlink(missing_ok=True)
            _create(password_file, password)
        _create(hash_file, user.password_hash)
    except OSError as error:
        raise store_error(f"cannot keep the password of {user.name!r} in {data_dir}", error) from error
    return password_file


def replace_admin_password(data_dir: Path, password_hash: str) -> None:
    """Give the user of the first start another password. Raises `StoreError`.

    A daemon applies it at its next reload. What root writes belongs to the directory's owner.
    """
    hash_file = data_dir / HASH_FILE
    try:
        atomic_file.write(hash_file, password_hash.encode("ascii") + b"\n")
        if os.geteuid() == 0:
            owner = data_dir.stat()
            os.chown(hash_file, owner.st_uid, owner.st_gid)
        (data_dir / PASSWORD_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise store_error(f"cannot write {hash_file}", error) from error


def _admin(password_hash: str) -> UserConfig:
    return UserConfig(name=ADMIN, password_hash=password_hash, roles=(ADMIN,))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # it cannot be seen whether it does
        raise _unreadable(path, error) from error


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(key_file: Path, error: OSError) -> KeyUnusable:
    return KeyUnusable(f"cannot read the signing key {key_file}: {error.strerror}")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES)


def _create(path: Path, line: str) -> None:
    """A new file of one line. Raises FileExistsError if it is there, or another OSError."""
    atomic_file.write(path, line.encode("ascii") + b"\n", replace=False)
