"""The configuration as frozen structs: what every part may rely on once a file has been accepted.

The defaults of the keys stand here. `loader.py` makes the structs from TOML and reports mistakes; a struct that
exists is valid, so nothing after it checks again. Durations are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .addresses import joined


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to accept: `host` and `port` (0 = any free one), or the inherited descriptor `fd`."""

    host: str = "127.0.0.1"
    port: int = 8080
    fd: int | None = None

    def __str__(self) -> str:
        if self.fd is not None:
            return f"fd:{self.fd}"
        return joined(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    id: str = "node-1"
    data_dir: Path | None = None
    """None: $STATE_DIRECTORY, else the user's state directory (see `loader.data_directory`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    listen: Listen = Listen()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """Both or neither."""
    allowed_origins: tuple[str, ...] = ()
    shutdown_grace: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketConfig:
    broadcast_buffer: int = 256
    send_buffer: int = 256
    status_interval: float = 5.0
    latency_interval: float = 5.0
    uptime_interval: float = 30.0
    metrics_interval: float = 0.1
    ping_interval: float = 30.0
    read_timeout: float = 60.0
    write_timeout: float = 10.0
    max_clients: int = 10_000
    max_clients_per_user: int = 0
    max_message_size: int = 65_536
    compression: bool = True
    messages_per_second: float = 20.0
    messages_burst: int = 40
    slow_consumer: Literal["gap", "disconnect"] = "gap"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    max_events: int = 10_000
    max_age: float = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UserConfig:
    name: str
    password_hash: str
    roles: tuple[str, ...]


DEFAULT_ROLES: Mapping[str, frozenset[str]] = {
    "admin": frozenset({"admin:*"}),
    "viewer": frozenset({"cluster:watch", "cluster:read"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    token_ttl: float = 28_800.0
    jwt_secret_file: Path | None = None
    """None: the systemd credential `jwt_secret`, else a file in the data directory."""
    issuer: str = "heliosd"
    jwks_url: str = ""
    jwks_issuer: str = ""
    audience: str = ""
    roles_claim: str = "roles"
    login_attempts_per_minute: int = 10
    roles: Mapping[str, frozenset[str]] = field(default_factory=lambda: dict(DEFAULT_ROLES))
    users: tuple[UserConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerConfig:
    id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedConfig:
    address: str = "127.0.0.1:7000"
    peers: tuple[PeerConfig, ...] = (
        PeerConfig("node-2", "127.0.0.1:7001"),
        PeerConfig("node-3", "127.0.0.1:7002"),
    )
    heartbeat_interval: float = 0.1
    election_timeout: float = 0.5
    latency_ms: float = 1.0
    loss: float = 0.0
    snapshot_threshold: int = 10_000
    snapshot_interval: float = 300.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    prefix: str = "/heliosd/"
    poll_interval: float = 0.25
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    username: str = ""
    password_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    backend: Literal["simulated", "etcd"] = "simulated"
    simulated: SimulatedConfig = SimulatedConfig()
    etcd: EtcdConfig = EtcdConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    enabled: bool = True
    public: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    node: NodeConfig = NodeConfig()
    server: ServerConfig = ServerConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    history: HistoryConfig = HistoryConfig()
    auth: AuthConfig = AuthConfig()
    cluster: ClusterConfig = ClusterConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()


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
