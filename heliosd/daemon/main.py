"""The daemon as a process: what is prepared before the first task, the run, and the exit code."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import structlog
import trio
from msgspec.structs import replace

from heliosd.auth.access import Access
from heliosd.auth.first_start import ensure_admin, hand_over, load_signing_keys
from heliosd.config.loader import data_directory, ensure_data_directory
from heliosd.config.model import Config, Settings
from heliosd.errors import ConfigError, ConfigProblem, HeliosError, StoreFull
from heliosd.store.epoch_file import EpochFile
from heliosd.store.store import Store

from . import garbage, logs
from .certificate import ServerCertificate
from .disk_wait import open_when_possible
from .malloc import return_large_blocks
from .signals import keep_signals
from .tree import Daemon

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

log = structlog.get_logger("heliosd")


def serve(config_path: Path, config: Config) -> int:
    """Run the daemon until a signal stops it. Returns the process's exit code; a failure is logged."""
    signals = keep_signals()
    logs.configure(config.log.level, config.log.format)
    code = EXIT_OK
    try:
        prepared = _prepare_when_possible(config_path, config, signals)
    except HeliosError as error:
        log.error("cannot start", reason=str(error))
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    if prepared is None:
        log.info("stopped", exit_code=code)
        return code
    garbage.keep_all_so_far()
    return_large_blocks()
    try:
        trio.run(prepared.run)
    except* HeliosError as failed:
        code = EXIT_FAILED
        for reason in _leaves(failed):
            log.error("stopped by an error", reason=str(reason))
    except* Exception as bug:
        code = EXIT_FAILED
        log.error("stopped by a bug", exc_info=bug)
    finally:
        prepared.store.close()
    logs.sum_up()
    log.info("stopped", exit_code=code)
    return code


def _prepare_when_possible(config_path: Path, config: Config, signals: list[int]) -> Daemon | None:
    """As `prepare`; while the disk takes no writes it waits and answers. None: stopped meanwhile."""
    try:
        return replace(prepare(config_path, config), signals=signals)
    except StoreFull as full:
        opened = trio.run(
            open_when_possible,
            partial(prepare, config_path, config),
            full,
            config,
            _certificate(config),
            signals,
        )
    if opened is None:
        return None
    return replace(opened.value, sockets=opened.sockets, signals=signals)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def prepare(config_path: Path, config: Config) -> Daemon:
    """Open and check all that is needed before the first task. Raises `HeliosError`: `StoreFull` if only the disk
    stands in the way, now."""
    directory = data_directory(config)
    ensure_data_directory(directory)
    store = Store.open(directory)
    try:
        keys = load_signing_keys(config, directory, make=True)
        admin, password = ensure_admin(config, directory)
        if admin is not None and password is not None:
            terminal = sys.stderr if sys.stderr.isatty() else None
            written = hand_over(admin, password, directory, terminal)
            if written is not None:
                log.info("made the user admin; its password is in a file", user=admin.name, path=str(written))
        certificate = _certificate(config)
        saved = store.load()
        settings = Settings(config)
        access = Access(settings, keys, saved.revoked, admin)
    except BaseException:
        store.close()
        raise
    return Daemon(config_path, settings, directory, store, saved, access, EpochFile(directory), certificate)


def _certificate(config: Config) -> ServerCertificate | None:
    cert, key = config.server.tls_cert, config.server.tls_key
    if cert is None or key is None:
        return None
    try:
        return ServerCertificate(cert, key)
    except OSError as error:
        raise ConfigError(
            (ConfigProblem("server.tls_cert", f"cannot use {cert} with {key}: {error}"),)
        ) from error
