"""SIGHUP: the configuration is read again and applied as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
import trio
from msgspec.structs import replace

from heliosd.auth.access import Access
from heliosd.auth.first_start import kept_admin, load_signing_keys
from heliosd.auth.signing_keys import KeyRing
from heliosd.config.loader import data_directory, load
from heliosd.config.model import Config, Settings, UserConfig
from heliosd.errors import ConfigProblem, HeliosError

from . import logs
from .referenced_files import problems_with_files

log = structlog.get_logger("heliosd")

NEEDS_RESTART = (
    "node",
    "server.listen",
    "server.reuse_port",
    "server.base_path",
    "server.trusted_proxies",
    "server.tls_cert",
    "server.tls_key",
    "websocket.broadcast_buffer",
    "websocket.fanout",
    "websocket.fanout_threads",
    "history",
    "cluster",
)
"""Keys that are read at the start only. The log names those that changed; they hold from the next start."""


async def reload(path: Path, settings: Settings, access: Access) -> bool:
    """Apply the file's configuration. False if it cannot be used: nothing changed, and the log has the reason.

    Cancelled while a file hangs, it leaves that file to its thread, which only reads."""
    data_dir = data_directory(settings.current)
    try:
        config, admin, keys = await trio.to_thread.run_sync(_read, path, data_dir, abandon_on_cancel=True)
    except HeliosError as error:
        log.error("configuration not reloaded; the old one stays in force", path=str(path), reason=str(error))
        return False
    config, later = in_force(config, settings.current)
    access.admin, access.keys = admin, keys
    settings.replace(config)
    logs.configure(config.log.level, config.log.format)
    log.info("configuration reloaded", path=str(path), needs_restart=later)
    return True


def _read(path: Path, data_dir: Path) -> tuple[Config, UserConfig | None, KeyRing]:
    """The file's configuration, the user of the first start if it has no other, and the present signing keys.
    Raises `HeliosError` if any of them cannot be used."""

    def also(config: Config) -> Iterator[ConfigProblem]:
        yield from problems_with_files(config)
        # Only a start makes a user, since it can show the password.
        if not config.auth.users and kept_admin(data_dir) is None:
            yield ConfigProblem("auth.users", "no user is left, and the first start made none")

    config = load(path, also=also)
    admin = None if config.auth.users else kept_admin(data_dir)
    return config, admin, load_signing_keys(config, data_dir, make=False)


def in_force(config: Config, current: Config) -> tuple[Config, list[str]]:
    """What holds of `config` without a restart, and the keys that wait for one: they keep their present values, so
    that nothing shows or uses a value that is not in force."""
    later = []
    for key in NEEDS_RESTART:
        names = key.split(".")
        if _value(config, names) != _value(current, names):
            later.append(key)
            config = _with_value(config, names, _value(current, names))
    return config, later


def _value(config: object, names: list[str]) -> object:
    for name in names:
        config = getattr(config, name)
    return config


def _with_value(config: Any, names: list[str], value: object) -> Any:
    first, *rest = names
    return replace(config, **{first: _with_value(getattr(config, first), rest, value) if rest else value})
