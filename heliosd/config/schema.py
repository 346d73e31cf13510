"""The sections of the configuration file. The structs in `model.py` have their keys, defaults and readers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Struct
from msgspec.structs import replace

from . import values as value
from .addresses import Listen
from .alert_condition import check_target
from .model import (
    DEFAULT_ROLES,
    AlertConfig,
    AuthConfig,
    ClusterConfig,
    Config,
    EtcdConfig,
    NodeConfig,
    PeerConfig,
    ServerConfig,
    SimulatedConfig,
    UserConfig,
    WebSocketConfig,
)
from .permissions import PERMISSIONS
from .reader import ConfigReader, Read, path, plain


def readers(struct: type) -> dict[str, Read]:
    """The readers of a section's keys: those of the annotations of its struct, else by type. A key whose type is a
    struct is a section below it."""
    found: dict[str, Read] = {}
    for name, hint in get_type_hints(struct, include_extras=True).items():
        if get_origin(hint) is Annotated:
            kind, read = get_args(hint)
            found[name] = each(read) if get_origin(kind) is tuple else plain(read)
        elif get_origin(hint) is Literal:
            found[name] = plain(value.one_of(*get_args(hint)))
        elif hint is bool:
            found[name] = plain(value.flag)
        elif hint == Path | None:
            found[name] = path
        elif isinstance(hint, type) and issubclass(hint, Struct):
            found[name] = section(hint)
    return found


def section(struct: type) -> Read:
    """A reader of a section of which each key stands for itself."""
    return lambda here: struct(**here.read_table(readers(struct)))


def each(read: Callable[[object], Any]) -> Read:
    """A reader of lists of such values."""
    return lambda here: here.items(plain(read))


def read_config(root: ConfigReader) -> Config:
    """The whole file. The result is valid only if `root.problems` is empty afterwards."""
    ids: set[str] = set()

    def node(here: ConfigReader) -> NodeConfig:
        found = NodeConfig(**here.read_table(readers(NodeConfig)))
        ids.add(found.id)
        return found

    # Read even if the file leaves it out: its defaults are compared with this node's id.
    found = replace(root, value={"cluster": {}} | root.given()).read_table(
        {
            **readers(Config),
            "node": node,
            "server": _server,
            "websocket": _websocket,
            "auth": _auth,
            "cluster": lambda here: _cluster(here, ids or {NodeConfig().id}),
            "alert": _alerts,
        }
    )
    return Config(**found)


def _server(here: ConfigReader) -> ServerConfig:
    _together(here, "tls_cert", "tls_key")
    return ServerConfig(**here.read_table({**readers(ServerConfig), "listen": _listen}))


def _listen(here: ConfigReader) -> tuple[Listen, ...]:
    """One or several."""
    if not isinstance(here.value, list):
        return (value.listen(here.value),)
    if not here.value:
        raise value.InvalidValue("must name at least one")
    return here.items(plain(value.listen))


def _websocket(here: ConfigReader) -> WebSocketConfig:
    found = WebSocketConfig(**here.read_table(readers(WebSocketConfig)))
    if found.read_timeout <= found.ping_interval:
        if "read_timeout" in here.given():
            key, rule = "read_timeout", f"longer than ping_interval, which is {found.ping_interval:g} s"
        else:
            key, rule = "ping_interval", f"shorter than read_timeout, which is {found.read_timeout:g} s"
        here.at(key, None).add_problem(f"must be {rule}")
    return found


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
        found = place.read_table(user, required=user)
        return UserConfig(**found) if len(found) == len(user) else None

    permission = value.known(PERMISSIONS, "permission")
    user: Mapping[str, Read] = {
        "name": plain(value.unlike(names, "the user", value.name)),
        "password_hash": plain(value.password_hash),
        "roles": lambda place: place.items(plain(value.known(roles, "role of auth.roles"))),
    }
    found = here.read_table(
        {
            **readers(AuthConfig),
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
    if here.given().get("backend", ClusterConfig().backend) != "simulated":
        ids = set()  # there are no simulated peers whose id could be this node's
    return ClusterConfig(
        **replace(here, value={"simulated": {}} | here.given()).read_table(
            {
                **readers(ClusterConfig),
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
        found = place.read_table(peer, required=peer)
        return PeerConfig(**found) if len(found) == len(peer) else None

    peer: Mapping[str, Read] = {
        "id": plain(value.unlike(ids, "the id", value.identifier)),
        "address": plain(value.unlike(addresses, "the address", value.address)),
    }
    found = SimulatedConfig(
        **replace(here, value=whole).read_table(
            {
                "address": peer["address"],
                "peers": lambda place: place.items(read_peer),
                **readers(SimulatedConfig),
            }
        )
    )
    if found.election_timeout <= found.heartbeat_interval:
        here.at("election_timeout", None).add_problem("must be longer than heartbeat_interval")
    return found


def _etcd(here: ConfigReader) -> EtcdConfig:
    _together(here, "client_cert", "client_key")
    _together(here, "username", "password_file")
    found = EtcdConfig(**here.read_table(readers(EtcdConfig)))
    if not found.endpoints:
        here.at("endpoints", None).add_problem("must name at least one")
    return found


def _alerts(here: ConfigReader) -> tuple[AlertConfig, ...]:
    names: set[str] = set()
    read = readers(AlertConfig)
    keys: Mapping[str, Read] = {
        "name": plain(value.unlike(names, "the alert", value.name)),
        "when": plain(value.alert_condition),
        "for": read["hold"],
        **{key: read[key] for key in ("url", "command", "secret_file")},
    }

    def read_alert(place: ConfigReader) -> AlertConfig | None:
        before = len(place.problems)
        found = place.read_table(keys, required=("name", "when"))
        given = place.given()
        target = check_target(
            str(given.get("url", "")),
            given["command"] if isinstance(given.get("command"), list) else (),  # type: ignore[arg-type]
            has_secret=bool(given.get("secret_file")),
        )
        for key, problem in target.items():
            place.at(key, None).add_problem(problem)
        if len(place.problems) > before:
            return None
        return AlertConfig(hold=found.pop("for", 0.0), **found)

    alerts = here.items(read_alert)
    alerts = tuple(alert and dataclasses.replace(alert, place=place) for place, alert in enumerate(alerts))
    if len(alerts) > value.MAX_ALERTS:
        raise value.InvalidValue(f"at most {value.MAX_ALERTS} alerts")
    return tuple(alert for alert in alerts if alert is not None)


def _together(here: ConfigReader, one: str, other: str) -> None:
    given = here.given()
    for this, that in ((one, other), (other, one)):
        if given.get(this) and not given.get(that):
            here.at(that, None).add_problem(f"is needed with {this}")
