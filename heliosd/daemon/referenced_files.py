"""Checks the files that a configuration names: whether they exist, can be read and have the right content."""

from __future__ import annotations

import shutil
import ssl
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from heliosd.auth.first_start import read_keys
from heliosd.config.loader import load
from heliosd.config.model import Config
from heliosd.errors import ConfigProblem, KeyUnusable


def load_checked(file: Path) -> Config:
    """The configuration in `file`. Raises `ConfigError` with all mistakes in it and in the files that it names."""
    return load(file, also=problems_with_files)


def problems_with_files(config: Config) -> tuple[ConfigProblem, ...]:
    """Every problem with a file that this configuration uses, with the key that names the file."""
    return tuple(_problems(config))


def _problems(config: Config) -> Iterator[ConfigProblem]:
    server, etcd = config.server, config.cluster.etcd
    if server.tls_cert is not None and server.tls_key is not None:
        yield from _certificate("server", "tls", server.tls_cert, server.tls_key)
    if config.auth.jwt_secret_file is not None:
        yield from _keys(config.auth.jwt_secret_file)
    if config.cluster.backend == "etcd":
        if etcd.client_cert is not None and etcd.client_key is not None:
            yield from _certificate("cluster.etcd", "client", etcd.client_cert, etcd.client_key)
        for name, path in (("ca_cert", etcd.ca_cert), ("password_file", etcd.password_file)):
            if path is not None:
                yield from _unreadable(f"cluster.etcd.{name}", path)
    for alert in config.alert:
        if alert.secret_file is not None:
            yield from _unreadable(f"alert[{alert.place}].secret_file", alert.secret_file)
        if alert.command and shutil.which(alert.command[0]) is None:
            yield ConfigProblem(f"alert[{alert.place}].command", f"there is no program {alert.command[0]}")


def _keys(path: Path) -> Iterator[ConfigProblem]:
    name = "auth.jwt_secret_file"
    with suppress(OSError):  # `read_keys` says what it is
        if not stat.S_ISREG(path.stat().st_mode):
            yield ConfigProblem(name, f"{path} is not a regular file")
            return
    try:
        read_keys(path)
    except KeyUnusable as error:
        yield ConfigProblem(name, str(error))


def _certificate(section: str, name: str, cert: Path, key: Path) -> Iterator[ConfigProblem]:
    unreadable = [*_unreadable(f"{section}.{name}_cert", cert), *_unreadable(f"{section}.{name}_key", key)]
    yield from unreadable
    if not unreadable:
        try:
            # With an empty password OpenSSL does not ask on the terminal for that of an encrypted key.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
        except (OSError, ValueError) as error:  # `ssl.SSLError`, or one of the files has gone meanwhile
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            yield ConfigProblem(
                f"{section}.{name}_cert", f"{cert} and {key} are no pair of PEM files: {reason}"
            )


def _unreadable(key: str, path: Path) -> Iterator[ConfigProblem]:
    try:
        # It is read again and again, and opening a pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            yield ConfigProblem(key, f"{path} is not a regular file")
            return
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        yield ConfigProblem(key, f"cannot read {path}: {error.strerror}")
