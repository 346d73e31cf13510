"""SIGHUP: the configuration read anew, taken whole or not at all."""

from __future__ import annotations

from pathlib import Path

import structlog

from . import config_file, logs
from .auth.access import Access
from .auth.accounts import kept_admin
from .config import Config, Settings
from .config_file import data_directory
from .errors import HeliosError

log = structlog.get_logger("heliosd")

NEEDS_RESTART = (
    "node",
    "server.listen",
    "server.tls_cert",
    "server.tls_key",
    "websocket.broadcast_buffer",
    "history",
    "auth.jwt_secret_file",
    "cluster",
)
"""Keys that are read at the start only; a change of one is reported and takes effect with the next start."""


def reload(path: Path, settings: Settings, access: Access) -> bool:
    """Put the file's configuration in force. False: it cannot be used, nothing changed, and the log says why."""
    try:
        config = config_file.load(path)
        admin = None if config.auth.users else kept_admin(data_directory(settings.current))
    except HeliosError as error:
        log.error("configuration not reloaded; the old one stays in force", path=str(path), reason=str(error))
        return False
    later = [key for key in NEEDS_RESTART if _value(config, key) != _value(settings.current, key)]
    access.admin = admin
    settings.current = config
    logs.configure(config.log.level, config.log.format)
    log.info("configuration reloaded", path=str(path), needs_restart=later)
    return True


def _value(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
