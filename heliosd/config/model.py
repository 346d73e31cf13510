"""The configuration as frozen structs: what every part may rely on once a file has been accepted.

A field is a key: its default, and in `Annotated` the reader that checks its value. `schema.py` makes the structs
from TOML; a struct that exists is valid, so nothing after it checks again. Durations are seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct, field

from . import values as value
from .addresses import Listen
from .alert_condition import AlertCondition

MILLION = 1_000_000


class NodeConfig(Struct, frozen=True, kw_only=True):
    id: Annotated[str, value.identifier] = "node-1"
    data_dir: Path | None = None
    """None: $STATE_DIRECTORY, else the user's state directory (see `loader.data_directory`)."""


class ServerConfig(Struct, frozen=True, kw_only=True):
    listen: Annotated[tuple[Listen, ...], value.listen] = (Listen(),)
    reuse_port: bool = False
    base_path: Annotated[str, value.base_path] = ""
    trusted_proxies: Annotated[tuple[str, ...], value.proxy] = ()
    """Networks, and "unix"."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """Both or neither."""
    allowed_origins: Annotated[tuple[str, ...], value.origin] = ()
    shutdown_grace: Annotated[float, value.seconds(low=0)] = 5.0


class WebSocketConfig(Struct, frozen=True, kw_only=True):
    broadcast_buffer: Annotated[int, value.whole(1, MILLION)] = 256
    send_buffer: Annotated[int, value.whole(1, MILLION)] = 256
    status_interval: Annotated[float, value.seconds()] = 5.0
    latency_interval: Annotated[float, value.seconds()] = 5.0
    uptime_interval: Annotated[float, value.seconds()] = 30.0
    metrics_interval: Annotated[float, value.seconds()] = 0.1
    ping_interval: Annotated[float, value.seconds()] = 20.0
    read_timeout: Annotated[float, value.seconds()] = 60.0
    write_timeout: Annotated[float, value.seconds()] = 10.0
    max_clients: Annotated[int, value.whole(1, MILLION)] = 10_000
    max_clients_per_user: Annotated[int, value.whole(0, MILLION)] = 0
    max_message_size: Annotated[int, value.whole(64, 64 * 1024 * 1024)] = 65_536
    max_status_bytes: Annotated[int, value.whole(1024, 64 * 1024 * 1024)] = 1_048_576
    compression: bool = True
    messages_per_second: Annotated[float, value.number(0.01, MILLION)] = 20.0
    messages_burst: Annotated[int, value.whole(1, MILLION)] = 40
    slow_consumer: Literal["gap", "disconnect"] = "gap"
    fanout: Literal["auto", "write", "uring"] = "auto"
    fanout_threads: Annotated[int | None, value.whole_or_auto(1, 64)] = None
    """None: one less than there are CPUs, at most 4."""


class HistoryConfig(Struct, frozen=True, kw_only=True):
    max_events: Annotated[int, value.whole(1, 10 * MILLION)] = 10_000
    max_age: Annotated[float, value.seconds()] = 86_400.0


class UserConfig(Struct, frozen=True, kw_only=True):
    name: str
    password_hash: str
    roles: tuple[str, ...]


DEFAULT_ROLES: Mapping[str, frozenset[str]] = {
    "admin": frozenset({"admin:*"}),
    "viewer": frozenset({"cluster:watch", "cluster:read"}),
}


class AuthConfig(Struct, frozen=True, kw_only=True):
    token_ttl: Annotated[float, value.seconds(low=1)] = 28_800.0
    session_ttl: Annotated[float, value.seconds(low=1)] = 2_592_000.0
    jwt_secret_file: Path | None = None
    """None: the systemd credential `jwt_secret`, else a file in the data directory."""
    issuer: Annotated[str, value.some_text] = "heliosd"
    jwks_url: Annotated[str, value.url_or_nothing] = ""
    jwks_issuer: Annotated[str, value.text] = ""
    audience: Annotated[str, value.text] = ""
    roles_claim: Annotated[str, value.some_text] = "roles"
    login_attempts_per_minute: Annotated[int, value.whole(1, 10_000)] = 10
    roles: Mapping[str, frozenset[str]] = field(default_factory=lambda: dict(DEFAULT_ROLES))
    users: tuple[UserConfig, ...] = ()


class PeerConfig(Struct, frozen=True):
    id: str
    address: str


class SimulatedConfig(Struct, frozen=True, kw_only=True):
    address: str = "127.0.0.1:7000"
    peers: tuple[PeerConfig, ...] = (
        PeerConfig("node-2", "127.0.0.1:7001"),
        PeerConfig("node-3", "127.0.0.1:7002"),
    )
    heartbeat_interval: Annotated[float, value.seconds()] = 0.1
    election_timeout: Annotated[float, value.seconds()] = 0.5
    latency_ms: Annotated[float, value.number(0, 60_000)] = 1.0
    loss: Annotated[float, value.number(0, 1)] = 0.0
    snapshot_threshold: Annotated[int, value.whole(1, 1_000 * MILLION)] = 10_000
    snapshot_interval: Annotated[float, value.seconds()] = 300.0
    seed: Annotated[int, value.whole(0, 2**63 - 1)] = 0


class EtcdConfig(Struct, frozen=True, kw_only=True):
    endpoints: Annotated[tuple[str, ...], value.url] = ("http://127.0.0.1:2379",)
    prefix: Annotated[str, value.some_text] = "/heliosd/"
    poll_interval: Annotated[float, value.seconds()] = 0.25
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    username: Annotated[str, value.text] = ""
    password_file: Path | None = None
    dashboard_url: Annotated[str, value.url_or_nothing] = ""


class ClusterConfig(Struct, frozen=True, kw_only=True):
    backend: Literal["simulated", "etcd"] = "simulated"
    simulated: SimulatedConfig = SimulatedConfig()
    etcd: EtcdConfig = EtcdConfig()


class MetricsConfig(Struct, frozen=True, kw_only=True):
    enabled: bool = True
    public: bool = False


class LogConfig(Struct, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AlertConfig:
    """Exactly one of `url` and `command` is given."""

    name: str
    when: AlertCondition
    hold: Annotated[float, value.seconds(low=0)] = 0.0
    """The key `for`: how long the condition must hold before the alert is sent."""
    url: Annotated[str, value.url_or_nothing] = ""
    command: Annotated[tuple[str, ...], value.for_system] = ()
    secret_file: Path | None = None
    place: int = dataclasses.field(default=0, compare=False)
    """Its number in the file, from 0."""


class Config(Struct, frozen=True, kw_only=True):
    node: NodeConfig = NodeConfig()
    server: ServerConfig = ServerConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    history: HistoryConfig = HistoryConfig()
    auth: AuthConfig = AuthConfig()
    cluster: ClusterConfig = ClusterConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()
    alert: tuple[AlertConfig, ...] = ()


class Settings:
    """The configuration in force. Code reads `settings.current` at the moment of use and keeps no copy, so that a
    reload holds everywhere at once. A task that sleeps on a value registers with `on_change`."""

    __slots__ = ("_listeners", "current")

    def __init__(self, config: Config) -> None:
        self.current = config
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change, for as long as this lives."""
        self._listeners.append(listener)

    def replace(self, config: Config) -> None:
        """Put `config` in force."""
        self.current = config
        for listener in self._listeners:
            listener()
