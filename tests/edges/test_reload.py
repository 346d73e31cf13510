"""Each key of the configuration: whether SIGHUP takes it, or a restart is needed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct, structs

from heliosd.config.loader import parse
from heliosd.config.model import Config
from heliosd.daemon.reload import NEEDS_RESTART, in_force
from tests.support.passwords import cheap_hash

ROOT = Path(__file__).parents[2]
HASH = cheap_hash("correct horse")
USER = {"name": "admin", "password_hash": HASH, "roles": ["admin"]}

NOW: dict[str, Any] = {
    "server.allowed_origins": ["https://ops.example"],
    "server.shutdown_grace": 1.0,
    "websocket.send_buffer": 7,
    "websocket.status_interval": 1.0,
    "websocket.latency_interval": 1.0,
    "websocket.uptime_interval": 1.0,
    "websocket.metrics_interval": 1.0,
    "websocket.ping_interval": 1.0,
    "websocket.read_timeout": 90.0,
    "websocket.write_timeout": 1.0,
    "websocket.max_clients": 7,
    "websocket.max_clients_per_user": 7,
    "websocket.max_message_size": 4096,
    "websocket.max_status_bytes": 4096,
    "websocket.compression": False,
    "websocket.messages_per_second": 7.0,
    "websocket.messages_burst": 7,
    "websocket.slow_consumer": "disconnect",
    "auth.token_ttl": 60.0,
    "auth.session_ttl": 60.0,
    "auth.jwt_secret_file": "key",
    "auth.issuer": "another",
    "auth.jwks_url": "https://login.example/keys",
    "auth.jwks_issuer": "https://login.example",
    "auth.audience": "heliosd",
    "auth.roles_claim": "groups",
    "auth.login_attempts_per_minute": 7,
    "auth.roles": {"admin": ["admin:*"], "reader": ["cluster:read"]},
    "auth.users": [USER, {**USER, "name": "anna"}],
    "metrics.enabled": False,
    "metrics.public": True,
    "log.level": "debug",
    "log.format": "console",
    "alert": [{"name": "a", "when": "leader_lost", "url": "https://ops.example/hook"}],
}
"""Keys that SIGHUP takes, with a value to change them to."""

LATER: dict[str, Any] = {
    "node.id": "another",
    "node.data_dir": "another",
    "server.listen": "127.0.0.1:8081",
    "server.reuse_port": True,
    "server.base_path": "/helios",
    "server.trusted_proxies": ["10.0.0.0/8"],
    "server.tls_cert": "cert.pem",
    "server.tls_key": "key.pem",
    "websocket.fanout": "uring",
    "websocket.fanout_threads": 2,
    "websocket.broadcast_buffer": 7,
    "history.max_events": 7,
    "history.max_age": 7.0,
    "cluster.backend": "etcd",
    "cluster.simulated.address": "127.0.0.1:7100",
    "cluster.simulated.peers": [{"id": "node-2", "address": "127.0.0.1:7001"}],
    "cluster.simulated.heartbeat_interval": 0.05,
    "cluster.simulated.election_timeout": 0.7,
    "cluster.simulated.latency_ms": 2.0,
    "cluster.simulated.loss": 0.1,
    "cluster.simulated.snapshot_threshold": 7,
    "cluster.simulated.snapshot_interval": 7.0,
    "cluster.simulated.seed": 7,
    "cluster.etcd.endpoints": ["http://127.0.0.1:4001"],
    "cluster.etcd.prefix": "/another/",
    "cluster.etcd.poll_interval": 0.5,
    "cluster.etcd.ca_cert": "cert.pem",
    "cluster.etcd.client_cert": "cert.pem",
    "cluster.etcd.client_key": "key.pem",
    "cluster.etcd.username": "heliosd",
    "cluster.etcd.password_file": "password",
    "cluster.etcd.dashboard_url": "https://node-1.example/",
}
"""Keys that a restart takes."""

TOGETHER = [
    {"server.tls_cert", "server.tls_key"},
    {"cluster.etcd.client_cert", "cluster.etcd.client_key", "cluster.etcd.ca_cert"},
    {"cluster.etcd.username", "cluster.etcd.password_file"},
    {"auth.jwks_url", "auth.jwks_issuer", "auth.audience"},
]
"""Keys that are refused one without the other."""


def keys_of(config: Struct, path: str = "") -> Iterator[str]:
    """Every key of the configuration; a list of tables is one."""
    for each in structs.fields(config):
        value, key = getattr(config, each.name), f"{path}{each.name}"
        if isinstance(value, Struct):
            yield from keys_of(value, f"{key}.")
        else:
            yield key


def toml(value: Any) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f'"{name}" = {toml(inner)}' for name, inner in value.items()) + " }"
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case _:
            return repr(value)


def value_of(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def test_each_key_is_in_one_of_the_two_tables() -> None:
    assert sorted([*NOW, *LATER]) == sorted(keys_of(Config()))


@pytest.mark.parametrize("key", [*NOW, *LATER])
def test_a_reload_takes_the_key_or_says_that_it_needs_a_restart(key: str) -> None:
    values = NOW | LATER
    changed = next((group for group in TOGETHER if key in group), {key})
    before = parse(f"auth.users = {toml([USER])}\n")
    lines = {"auth.users": [USER]} | {each: values[each] for each in changed}
    after = parse("".join(f"{each} = {toml(value)}\n" for each, value in lines.items()))
    wanted = value_of(after, key)
    assert wanted != value_of(before, key)
    current = before
    for _ in range(2):  # a second reload says so, too
        current, later = in_force(after, current)
        assert (value_of(current, key) == wanted) == (key in NOW)
        assert bool(later) == (key in LATER)
        assert all(any(each.startswith(name) for each in changed) for name in later)


def test_what_a_start_keeps_of_the_configuration_needs_a_restart() -> None:
    """Elsewhere `settings.current` is read at the moment of use."""
    for module in ("tree", "backends"):
        code = (ROOT / "heliosd" / "daemon" / f"{module}.py").read_text()
        for chain in map(ast.unparse, ast.walk(ast.parse(code))):
            kept = re.fullmatch(r"config\.([a-z_]+(?:\.[a-z_]+)*)", chain)
            if kept and "." in kept[1]:
                assert any(kept[1].startswith(key) for key in NEEDS_RESTART), chain


def test_the_documentation_names_what_needs_a_restart() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    sentence = page[page.index("These keys hold from the next start on") :].partition(". Everything else")[0]
    assert re.findall(r"`([a-z_.]+)`", sentence.replace("`needs_restart`", "")) == list(NEEDS_RESTART)
