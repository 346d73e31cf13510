"""The layers: every module is in one, imports go down only, and the rules touch nothing outside themselves."""

from __future__ import annotations

import ast
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "heliosd"

# The first pattern that fits a module gives its layer.
LAYERS = [
    # 1: rules. They decide; time, chance and bytes are handed to them.
    (1, "__init__ *.__init__ errors clock names histogram durable events message messages commands"),
    (1, "subscription narrowing history following reconnecting config config_* raft.* auth.*"),
    (
        1,
        "hub.counters hub.roster hub.rate websocket.frames websocket.deflate web.head web.upgrade web.resume",
    ),
    # 2: what awaits, but does no IO.
    (2, "hub.* cluster.backend cluster.simulated cluster.outbox broadcaster loop_lag"),
    # 3: edges.
    (
        3,
        "web.* websocket.* store store_* epoch_file systemd logs prometheus client client_* referenced_files",
    ),
    (3, "cluster.etcd cluster.etcd_client* cluster.etcd_follow cluster.etcd_polls cluster.etcd_writer"),
    (3, "cluster.etcd_transport cluster.etcd_presence cluster.etcd_backup cluster.etcd_admin"),
    (3, "cluster.etcd_teller cluster.etcd_revocations cluster.etcd_rights cluster.etcd_accounts"),
    (1, "cluster.*"),
    # 4: composition.
    (4, "daemon backends reload cli.* __main__"),
]
RULES = {"msgspec", "jwt", "argon2", "wsproto.extensions", "wsproto.frame_protocol"}
EDGES = {"trio", "quart", "quart_trio", "werkzeug", "hypercorn", "httpx", "h11", "wsproto", "trio_websocket"}
EDGES |= {"prometheus_client", "structlog"}
ALLOWED = {1: RULES, 2: RULES | {"trio"}, 3: RULES | EDGES, 4: RULES | EDGES}
OUTSIDE = {"socket", "ssl", "sqlite3", "subprocess", "asyncio", "threading", "selectors", "multiprocessing"}

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def layer(module: str) -> int | None:
    fitting = (number for number, names in LAYERS if any(fnmatchcase(module, name) for name in names.split()))
    return next(fitting, None)


def imports(path: Path) -> set[str]:
    """Full names of all that a module imports, wherever in it and for whatever use."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = ("heliosd", *path.relative_to(PACKAGE).parts)[: -node.level or None]
            origin = ".".join([*(here if node.level else ()), *([node.module] if node.module else [])])
            found |= {origin} | {
                f"{origin}.{alias.name}" for alias in node.names if origin.startswith("heliosd")
            }
    return found


def complaint(number: int, name: str) -> str | None:
    """What is wrong with a module of this layer importing that name."""
    package, _, inner = name.partition(".")
    if package == "heliosd":
        above = (layer(inner) or 0) if inner in MODULES else 0
        return f"{name} is of layer {above}" if above > number else None
    if package in sys.stdlib_module_names:
        return f"{name} is the outside" if number < 3 and package in OUTSIDE else None
    known = package in ALLOWED[number] or ".".join(name.split(".")[:2]) in ALLOWED[number]
    return None if known else f"{name} is not for layer {number}"


def test_every_module_has_a_layer() -> None:
    assert [module for module in MODULES if layer(module) is None] == []


def test_imports_go_down_only() -> None:
    wrong = [
        f"{module} (layer {number}): {reason}"
        for module, path in sorted(MODULES.items())
        for number in [layer(module) or 1]
        for reason in sorted(filter(None, (complaint(number, name) for name in imports(path))))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("number", "name", "fits"),
    [
        *[
            (1, "trio", False),
            (1, "socket", False),
            (1, "sqlite3", False),
            (2, "ssl", False),
            (2, "trio", True),
        ],
        *[(1, "heliosd.store", False), (2, "heliosd.web.app", False), (3, "heliosd.daemon", False)],
        *[(1, "heliosd.hub.hub", False), (3, "heliosd.hub.hub", True), (1, "heliosd.errors", True)],
        *[(1, "wsproto.connection", False), (1, "wsproto.extensions", True), (3, "wsproto.connection", True)],
        *[(2, "quart", False), (3, "sqlite3", True), (4, "requests", False), (1, "zlib", True)],
    ],
)
def test_the_check_itself_sees_what_does_not_fit(number: int, name: str, fits: bool) -> None:
    assert (complaint(number, name) is None) == fits
