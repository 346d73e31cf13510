"""Every key of the configuration file, with what it may hold. The defaults stand in `model.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import values as value
from .model import (
    DEFAULT_ROLES,
    AuthConfig,
    ClusterConfig,
    Config,
    EtcdConfig,
    HistoryConfig,
    LogConfig,
    MetricsConfig,
    NodeConfig,
    PeerConfig,
    ServerConfig,
    SimulatedConfig,
    UserConfig,
    WebSocketConfig,
)
from .permissions import PERMISSIONS
from .reader import ConfigReader, Read, path, plain

_MILLION = 1_000_000

_NODE: Mapping[str, Read] = {"id": plain(value.identifier), "data_dir": path}

_SERVER: Mapping[str, Read] = {
    "listen": plain(value.listen),
    "tls_cert": path,
    "tls_key": path,
    "allowed_origins": lambda here: here.items(plain(value.origin)),
    "shutdown_grace": plain(value.seconds(low=0)),
}

_WEBSOCKET: Mapping[str, Read] = {
    "broadcast_buffer": plain(value.whole(1, _MILLION)),
    "send_buffer": plain(value.whole(1, _MILLION)),
    "status_interval": plain(value.seconds()),
    "latency_interval": plain(value.seconds()),
    "uptime_interval": plain(value.seconds()),
    "metrics_interval": plain(value.seconds()),
    "ping_interval": plain(value.seconds()),
    "read_timeout": plain(value.seconds()),
    "write_timeout": plain(value.seconds()),
    "max_clients": plain(value.whole(1, _MILLION)),
    "max_clients_per_user": plain(value.whole(0, _MILLION)),
    "max_message_size": plain(value.whole(64, 64 * 1024 * 1024)),
    "compression": plain(value.flag),
    "messages_per_second": plain(value.number(0.01, _MILLION)),
    "messages_burst": plain(value.whole(1, _MILLION)),
    "slow_consumer": plain(value.one_of("gap", "disconnect")),
}

_HISTORY: Mapping[str, Read] = {
    "max_events": plain(value.whole(1, 10 * _MILLION)),
    "max_age": plain(value.seconds()),
}

_ETCD: Mapping[str, Read] = {
    "endpoints": lambda here: _at_least_one(here.items(plain(value.url))),
    "prefix": plain(value.some_text),
    "poll_interval": plain(value.seconds()),
    "ca_cert": path,
    "client_cert": path,
    "client_key": path,
    "username": plain(value.text),
    "password_file": path,
}

_METRICS: Mapping[str, Read] = {"enabled": plain(value.flag), "public": plain(value.flag)}

_LOG: Mapping[str, Read] = {
    "level": plain(value.one_of("debug", "info", "warning", "error")),
    "format": plain(value.one_of("auto", "console", "json")),
}


def read_config(root: ConfigReader) -> Config:
    """The whole file. The result is valid only if `root.problems` is empty afterwards."""
    ids: set[str] = set()

    def node(here: ConfigReader) -> NodeConfig:
        found = NodeConfig(**here.table(_NODE))
        ids.add(found.id)
        return found

    # Read even if the file leaves it out: its defaults are compared with this node's id.
    found = replace(root, value={"cluster": {}} | root.given()).table(
        {
            "node": node,
            "server": _server,
            "websocket": lambda here: WebSocketConfig(**here.table(_WEBSOCKET)),
            "history": lambda here: HistoryConfig(**here.table(_HISTORY)),
            "auth": _auth,
            "metrics": lambda here: MetricsConfig(**here.table(_METRICS)),
            "log": lambda here: LogConfig(**here.table(_LOG)),
            "cluster": lambda here: _cluster(here, ids or {NodeConfig().id}),
        }
    )
    return Config(**found)


def _server(here: ConfigReader) -> ServerConfig:
    _together(here, "tls_cert", "tls_key")
    return ServerConfig(**here.table(_SERVER))


def _auth(here: ConfigReader) -> AuthConfig:
    roles: set[str] = set(DEFAULT_ROLES)
    names: set[str] = set()

    def read_roles(place: ConfigReader) -> dict[str, Any]:
        # The file's roles replace the defaults: a role that it does not name does not exist.
        found = place.free_table(plain(value.name), lambda role: frozenset(role.items(plain(permission))))
        roles.clear()
        roles.update(found)
        return found

    def read_user(place: ConfigReader) -> UserConfig | None:
        found = place.table(user, required=user)
        return UserConfig(**found) if len(found) == len(user) else None

    permission = value.known(PERMISSIONS, "permission")
    user: Mapping[str, Read] = {
        "name": plain(value.unlike(names, "the user", value.name)),
        "password_hash": plain(value.password_hash),
        "roles": lambda place: place.items(plain(value.known(roles, "role of auth.roles"))),
    }
    found = here.table(
        {
            "token_ttl": plain(value.seconds(low=1)),
            "jwt_secret_file": path,
            "issuer": plain(value.some_text),
            "jwks_url": plain(value.url_or_nothing),
            "jwks_issuer": plain(value.text),
            "audience": plain(value.text),
            "roles_claim": plain(value.some_text),
            "login_attempts_per_minute": plain(value.whole(1, 10_000)),
            "roles": read_roles,
            "users": lambda place: place.items(read_user),
        }
    )
    auth = AuthConfig(**found)
    if auth.jwks_url and not here.given().get("jwks_issuer"):
        here.at("jwks_issuer", None).add_problem("is needed with jwks_url")
    if auth.jwks_issuer == auth.issuer:
        here.at("jwks_issuer", None).add_problem(
            "must differ from auth.issuer, whose tokens have another key"
        )
    if not here.given().get("users") and "admin" not in roles:
        here.at("roles", None).add_problem(
            "without auth.users the first start makes a user with the role admin"
        )
    return auth


def _cluster(here: ConfigReader, ids: set[str]) -> ClusterConfig:
    if here.given().get("backend") == "etcd":
        ids = set()  # there are no simulated peers whose id could be this node's
    return ClusterConfig(
        **replace(here, value={"simulated": {}} | here.given()).table(
            {
                "backend": plain(value.one_of("simulated", "etcd")),
                "simulated": lambda place: _simulated(place, ids),
                "etcd": _etcd,
            }
        )
    )


def _simulated(here: ConfigReader, ids: set[str]) -> SimulatedConfig:
    # The defaults are read as if they stood in the file.
    usual = SimulatedConfig()
    whole: dict[str, object] = {
        "address": usual.address,
        "peers": [{"id": peer.id, "address": peer.address} for peer in usual.peers],
    } | here.given()
    addresses: set[str] = set()

    def read_peer(place: ConfigReader) -> PeerConfig | None:
        found = place.table(peer, required=peer)
        return PeerConfig(**found) if len(found) == len(peer) else None

    peer: Mapping[str, Read] = {
        "id": plain(value.unlike(ids, "the id", value.identifier)),
        "address": plain(value.unlike(addresses, "the address", value.address)),
    }
    found = SimulatedConfig(
        **replace(here, value=whole).table(
            {
                "address": peer["address"],
                "peers": lambda place: place.items(read_peer),
                "heartbeat_interval": plain(value.seconds()),
                "election_timeout": plain(value.seconds()),
                "latency_ms": plain(value.number(0, 60_000)),
                "loss": plain(value.number(0, 1)),
                "snapshot_threshold": plain(value.whole(1, 1_000 * _MILLION)),
                "snapshot_interval": plain(value.seconds()),
                "seed": plain(value.whole(0, 2**63 - 1)),
            }
        )
    )
    if found.election_timeout <= found.heartbeat_interval:
        here.at("election_timeout", None).add_problem("must be longer than heartbeat_interval")
    return found


def _etcd(here: ConfigReader) -> EtcdConfig:
    _together(here, "client_cert", "client_key")
    _together(here, "username", "password_file")
    return EtcdConfig(**here.table(_ETCD))


def _together(here: ConfigReader, one: str, other: str) -> None:
    given = here.given()
    for this, that in ((one, other), (other, one)):
        if given.get(this) and not given.get(that):
            here.at(that, None).add_problem(f"is needed with {this}")


def _at_least_one(found: tuple[Any, ...]) -> tuple[Any, ...]:
    if not found:
        raise value.InvalidValue("must name at least one")
    return found
