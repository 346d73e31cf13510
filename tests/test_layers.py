"""The structure of heliosd/: which layer and which room a module is in, and which way imports may go.

A room is a folder. Rooms stand in one order, and a module imports from its own room and from rooms below it only.
The four layers say what a module may touch: 1 rules (values in, values out), 2 task logic (awaits, no IO),
3 edges (IO), 4 composition. docs/architecture.md draws both.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "heliosd"
MAX_LOOSE_MODULES = 8
MAX_LINES = 350

# Low to high. "" is the ground: modules directly in heliosd/. A folder without a name here belongs to its parent.
ROOMS = [
    "",
    "raft",
    "store",
    "config",
    "auth",
    "websocket",
    "uring",
    "protocol.views",
    "protocol",
    "client",
    "cluster",
    "hub",
    "alerts",
]
ROOMS += [
    "web",
    "web.http",
    "web.stream",
    "web.rest",
    "cluster.etcd.client",
    "cluster.etcd",
    "raft.simulation",
]
ROOMS += ["cluster.simulated", "daemon", "cli", "__main__"]

# The first pattern that fits a module gives its layer.
LAYERS = [
    (3, "client.__init__"),
    (3, "auth.first_start"),
    (2, "auth.revoked_tokens"),
    (1, "auth.*"),
    # 2: what awaits, but does no IO.
    (
        2,
        "cluster.backend cluster.subscribers cluster.simulated.backend cluster.simulated.simulation "
        "cluster.simulated.permits",
    ),
    (2, "on_demand store.deferred_changes daemon.ticker daemon.loop_lag cluster.metric_expiry"),
    # 1: rules. They decide; time, chance and bytes are handed to them.
    (1, "__init__ *.__init__ errors clock histogram backoff config.* protocol.* raft.* store.changes"),
    (
        1,
        "client.resume client.reconnect hub.counters hub.client_view hub.token_bucket hub.send_queue hub.schedule",
    ),
    (
        1,
        "websocket.frames websocket.deflate websocket.tls_records web.http.request_head web.http.request_body "
        "web.http.websocket_upgrade web.stream.query",
    ),
    (1, "alerts.book alerts.conditions alerts.counters"),
    (3, "alerts.delivery alerts.webhook"),
    (2, "hub.* alerts.*"),
    # 3: edges.
    (
        3,
        "web.* websocket.* uring.* store.* client.* atomic_file daemon.systemd daemon.log* daemon.referenced_files",
    ),
    (1, "cluster.etcd.client.requests cluster.etcd.client.responses cluster.etcd.client.wire_types"),
    (1, "cluster.etcd.client.errors cluster.etcd.client.endpoints cluster.etcd.client.identity"),
    (3, "cluster.etcd.client.* cluster.etcd.backend cluster.etcd.watcher cluster.etcd.poller"),
    (3, "cluster.etcd.context cluster.etcd.log_lease cluster.etcd.permits cluster.etcd.published"),
    (3, "cluster.etcd.reachability cluster.etcd.member_lists cluster.etcd.metrics_reader"),
    (
        3,
        "cluster.etcd.foreign_endpoints cluster.etcd.member_urls cluster.etcd.list_polls cluster.etcd.leases",
    ),
    (3, "cluster.etcd.metric_writer cluster.etcd.presence cluster.etcd.backup cluster.etcd.admin"),
    (
        3,
        "cluster.etcd.log_writer cluster.etcd.revocations cluster.etcd.write_probe cluster.etcd.local_records",
    ),
    (1, "cluster.*"),
    # 4: composition.
    (4, "daemon.* cli.* __main__"),
]
RULES = {"msgspec", "jwt", "argon2", "wsproto.extensions", "wsproto.frame_protocol"}
EDGES = {"trio", "quart", "quart_trio", "werkzeug", "hypercorn", "httpx", "h11", "wsproto", "trio_websocket"}
EDGES |= {"outcome", "prometheus_client", "structlog"}
ALLOWED = {1: RULES, 2: RULES | {"trio"}, 3: RULES | EDGES, 4: RULES | EDGES}
OUTSIDE = {"socket", "ssl", "sqlite3", "subprocess", "asyncio", "threading", "selectors", "multiprocessing"}

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def layer(module: str) -> int | None:
    """The layer of a module, by its dotted name inside of heliosd; None: no pattern fits."""
    fitting = (number for number, names in LAYERS if any(fnmatchcase(module, name) for name in names.split()))
    return next(fitting, None)


def room(module: str) -> str:
    """The room of a module: the longest named folder that it is in."""
    inside = [name for name in ROOMS if name and (module == name or module.startswith(f"{name}."))]
    return max(inside, key=len, default="")


@cache
def nodes(source: str) -> list[ast.Import | ast.ImportFrom | ast.ClassDef]:
    """Its imports and its classes, wherever in it they stand."""
    kinds = (ast.Import, ast.ImportFrom, ast.ClassDef)
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


def imports(source: str, package: tuple[str, ...]) -> set[str]:
    """Full names of all that a module of `package` imports, wherever in it and for whatever use."""
    found: set[str] = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*here, *([node.module] if node.module else [])])
            found |= {origin} | {
                f"{origin}.{alias.name}" for alias in node.names if origin.startswith("heliosd")
            }
    return found


@cache
def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    return imports(path.read_text(), ("heliosd", *path.relative_to(PACKAGE).parts[:-1]))


def modules_imported(module: str) -> set[str]:
    """The modules of heliosd that a module imports; a package counts as its `__init__`."""
    names = {name.removeprefix("heliosd.") for name in imports_of(module) if name.startswith("heliosd.")}
    packages = {f"{name}.__init__" for name in names if MODULES.get(f"{name}.__init__", PACKAGE).is_file()}
    return {name for name in names | packages if name in MODULES and name != module}


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


def upward(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """The imports that go from a room to a higher one."""
    return [
        f"{module} imports {other}"
        for module, others in sorted(arrows.items())
        for other in sorted(others)
        if ROOMS.index(room(other)) > ROOMS.index(room(module))
    ]


def circles(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import themselves by way of others: what is left when all that nobody needs is taken away."""
    left = {module: set(others) for module, others in arrows.items()}
    while done := [module for module, others in left.items() if not others & left.keys()]:
        for module in done:
            del left[module]
    while done := [module for module in left if not any(module in others for others in left.values())]:
        for module in done:
            del left[module]
    return sorted(left)


def loose(modules: Iterable[str]) -> list[str]:
    """Modules directly in heliosd/."""
    return sorted(module for module in modules if "." not in module)


def class_names_twice(sources: Iterable[str]) -> list[str]:
    """Names that more than one class bears."""
    names = Counter(
        node.name for source in sources for node in nodes(source) if isinstance(node, ast.ClassDef)
    )
    return sorted(name for name, count in names.items() if count > 1)


def too_long(sources: Mapping[str, str]) -> list[str]:
    """Modules of more lines than a file with one idea needs."""
    return sorted(name for name, source in sources.items() if len(source.splitlines()) > MAX_LINES)


# Read by the first test that asks, not by each process that collects the tests.
@cache
def sources() -> dict[str, str]:
    return {module: path.read_text() for module, path in MODULES.items()}


@cache
def arrows() -> dict[str, set[str]]:
    return {module: modules_imported(module) for module in MODULES}


def test_every_module_has_a_layer() -> None:
    assert [module for module in MODULES if layer(module) is None] == []


def test_no_import_goes_to_a_higher_layer_or_to_a_library_that_is_not_for_its_own() -> None:
    wrong = [
        f"{module} (layer {number}): {reason}"
        for module in sorted(MODULES)
        for number in [layer(module) or 1]
        for reason in sorted(filter(None, (complaint(number, name) for name in imports_of(module))))
    ]
    assert wrong == []


def test_no_import_goes_to_a_higher_room() -> None:
    assert upward(arrows()) == []


def test_the_map_has_the_rooms_in_their_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    table = page.partition("## Rooms")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w/*.]+)` \|", table, re.MULTILINE)
    assert rows[0] == "heliosd/*.py"
    described_with_another = {"protocol.views", "cluster.etcd.client", "__main__"}
    assert ["", *(row.rstrip("/").replace("/", ".") for row in rows[1:])] == [
        each for each in ROOMS if each not in described_with_another
    ]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(arrows()) == []


def test_few_modules_stand_outside_of_a_room() -> None:
    assert len(loose(MODULES)) <= MAX_LOOSE_MODULES, loose(MODULES)


def test_a_class_name_stands_once() -> None:
    assert class_names_twice(sources().values()) == []


def test_no_module_is_too_long_to_hold_one_idea() -> None:
    assert too_long(sources()) == []


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
        *[
            (1, "heliosd.store.store", False),
            (2, "heliosd.web.rest.app", False),
            (3, "heliosd.daemon.main", False),
        ],
        *[(1, "heliosd.hub.hub", False), (3, "heliosd.hub.hub", True), (1, "heliosd.errors", True)],
        *[(1, "wsproto.connection", False), (1, "wsproto.extensions", True), (3, "wsproto.connection", True)],
        *[(2, "quart", False), (3, "sqlite3", True), (4, "requests", False), (1, "zlib", True)],
    ],
)
def test_the_check_of_layers_sees_what_does_not_fit(number: int, name: str, fits: bool) -> None:
    assert (complaint(number, name) is None) == fits


def test_the_check_of_imports_sees_them_wherever_and_however_they_are_written() -> None:
    planted = (
        "import sqlite3\ndef late():\n    from ..hub import hub\n    from .. import clock\nfrom .x import y\n"
    )
    found = imports(planted, ("heliosd", "web"))
    assert {"sqlite3", "heliosd.hub.hub", "heliosd.clock", "heliosd.web.x.y"} <= found


def test_the_check_of_rooms_sees_a_planted_offence() -> None:
    assert room("web.rest.routes.auth") == "web.rest"
    assert upward({"hub.hub": ["web.http.front", "clock"]}) == ["hub.hub imports web.http.front"]
    assert upward({"web.http.front": ["hub.hub"], "clock": [], "errors": ["clock"]}) == []


def test_the_check_of_circles_sees_a_planted_offence() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": []}) == ["b", "c"]
    assert circles({"a": ["b"], "b": ["c"], "c": []}) == []


def test_the_checks_of_loose_modules_names_and_lengths_see_planted_offences() -> None:
    assert loose(["a", "hub.b", "c"]) == ["a", "c"]
    assert class_names_twice(["class A:\n    class B: ...\n", "class B: ...\n"]) == ["B"]
    assert too_long({"short": "x = 1\n" * MAX_LINES, "long": "x = 1\n" * (MAX_LINES + 1)}) == ["long"]


ON_DEMAND = {"quart", "quart_trio", "werkzeug", "jinja2", "hypercorn"}
ON_DEMAND |= {"jwt", "cryptography", "httpx", "prometheus_client", "heliosd.web.rest.description.openapi"}
"""What only some requests need."""


LOADED_IN_TURN = {
    "commands": "heliosd.cli.main, heliosd.cli.check_config, heliosd.cli.token, heliosd.cli.hash_password",
    "daemon": "heliosd.daemon.main",
    "etcd": "heliosd.cluster.etcd.backend",
}


@cache
def loaded() -> dict[str, set[str]]:
    """All modules of a process after it has imported each row of `LOADED_IN_TURN`."""
    code = "".join(f"import sys, {row}\nprint(*sys.modules)\n" for row in LOADED_IN_TURN.values())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = (set(line.split()) for line in done.stdout.splitlines())
    return dict(zip(LOADED_IN_TURN, names, strict=True))


def test_a_command_that_asks_no_daemon_imports_nothing_that_only_others_need() -> None:
    assert not {"trio", "httpx", "structlog"} & loaded()["commands"]


def test_the_modules_of_a_backend_are_imported_only_when_it_is_chosen() -> None:
    backends = {"heliosd.cluster.etcd.backend", "heliosd.cluster.simulated.backend"}
    assert not backends & loaded()["daemon"]


def test_with_etcd_nothing_is_imported_that_only_some_requests_need() -> None:
    assert not ON_DEMAND & loaded()["etcd"]
