"""The documents name what is there: links, modules, tests, routes, and the lines of the log."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from heliosd.web.rest.route_table import ROUTES
from scripts.documents.__main__ import outdated

ROOT = Path(__file__).parents[2]


def by_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/*.md", "benchmarks/*.md", "findings/*.md")
    for path in ROOT.glob(pattern)
)
PYTHON_FILES = [
    by_path(path)
    for room in ("heliosd", "tests", "benchmarks", "examples", "scripts")
    for path in (ROOT / room).rglob("*.py")
]
SOURCE = "\n".join(
    path.read_text().replace("from __future__ import annotations", "")
    for path in (ROOT / "heliosd").rglob("*.py")
)


@cache
def nodes() -> list[ast.AST]:
    """The syntax of all of heliosd/, in one list."""
    return list(ast.walk(ast.parse(SOURCE)))


FENCED = re.compile(r"```.*?```", re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The fragments that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def links(document: Path) -> Iterator[tuple[str, str]]:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", document.read_text())):
        if not link.startswith(("http:", "https:")):
            path, _, fragment = link.partition("#")
            yield path, fragment


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_path)
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = []
    for path, fragment in links(document):
        target = document.parent / path if path else document
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(f"{path}#{fragment}")
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_path)
def test_every_module_and_test_that_is_named_is_there(document: Path) -> None:
    named = set(re.findall(r"`([\w/]+\.py)", FENCED.sub("", document.read_text())))
    assert {
        name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in PYTHON_FILES)
    } == set()


def test_every_class_and_method_in_the_map_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`(_?[A-Z][a-z]\w*)\.([a-z_]\w+)", page))
    assert len(named) > 30
    owners = {owner for owner, _ in named}
    classes = {
        node.name: ast.unparse(node)
        for node in nodes()
        if isinstance(node, ast.ClassDef) and node.name in owners
    }
    assert {
        f"{owner}.{name}"
        for owner, name in named
        if not re.search(rf"\b(def |self\.){name}\b|\n    {name}:", classes.get(owner, ""))
    } == set()


TASKS = {
    "self._handle_signals": "signals",
    "self.store.run": "store",
    "numbering.run": "numbering",
    "revoked_tokens.run": "revocations",
    "backend.run": "backend",
    "hub.run": "hub",
    "connections.ping_all": "pings",
    "SilenceWatch(connections).run": "pings",
    "logs.sum_up_regularly": "log sums",
    "loop_lag.watch": "loop lag",
    "garbage.collect_regularly": "garbage",
    "self.certificate.watch": "certificate",
    "readiness.run": "readiness",
    "hub.token_expiry.run": "token expiry",
    "issuer.run": "issuer",
    "tick_all": "ticker",
    "_watch": "watchdog",
    "expire_metrics": "metric expiry",
    "alerts.run": "alerts",
    "admission.connection_log.run": "connection log",
}
"""What `Daemon.run` starts in `background` -> its name in the pictures of the tree."""


def test_the_pictures_of_the_tree_of_tasks_have_the_tasks_that_are_started() -> None:
    module = ast.parse((ROOT / "heliosd/daemon/tree.py").read_text())
    started = {
        ast.unparse(call.args[0])
        for daemon in module.body
        if isinstance(daemon, ast.ClassDef) and daemon.name == "Daemon"
        for run in daemon.body
        if isinstance(run, ast.AsyncFunctionDef) and run.name == "run"
        for call in ast.walk(run)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in {"background.start", "background.start_soon"}
    }
    assert started == set(TASKS)
    named = {*TASKS.values(), "server"}
    in_the_map = (ROOT / "docs/architecture.md").read_text()
    for picture, more in ((ast.get_docstring(module) or "", set()), (in_the_map, {"write pumps"})):
        assert set(re.findall(r"^[├└]─ (\w+(?: \w+)?)", picture, re.MULTILINE)) == named | more


def test_the_whole_client_of_the_page_about_the_protocol_is_the_example_that_is_run() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    example = (ROOT / "examples" / "python" / "resume.py").read_text()
    assert program == example[example.index("import json") :]


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page}" not in index} == set()


def test_every_route_is_in_the_page_about_rest() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    table = page.partition("## Routes")[2].partition("##")[0]
    # A row may name further paths by their ends: `/api/auth/refresh`, `/logout`, `/me`.
    shown = set(re.findall(r"`(/[^`]*)`", table))
    missing = [
        path for path in {route.paths[0] for route in ROUTES} if not any(path.endswith(end) for end in shown)
    ]
    assert [path.replace("{name}", "NAME") for path in missing if path != "/static/{name}"] == []


def test_the_page_about_rest_names_the_writes_that_take_no_idempotency_key() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    table = page.partition("### Repeating a write")[2].partition("\n## ")[0]
    (cell,) = re.findall(r"^\| (.*) \| The header is ignored", table, re.MULTILINE)
    assert set(re.findall(r"`(/[\w-]+)`", cell)) == {
        f"/{route.paths[0].rpartition('/')[2]}"
        for route in ROUTES
        if route.method != "GET" and not route.keyed
    }


def test_every_line_of_the_log_in_the_page_about_troubleshooting_is_one_of_the_daemons() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    table = page.partition("## Log lines")[2]
    lines = [
        line
        for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for line in re.findall(r"`(.+?)`", row)
    ]
    # Capitals, and what stands behind an ellipsis, are filled in by the daemon.
    parts = [
        part.strip()
        for line in lines
        for part in re.split(r"…|\b[A-Z]{1,8}\b", line)
        if len(part.strip()) > 8
    ]
    assert len(parts) > 20
    reasons = {"Too many open files"}  # the kernel's
    joined = re.sub(r'"\s*\n\s*f?"', "", SOURCE)
    assert [part for part in parts if part not in joined and part not in reasons] == []


@pytest.mark.parametrize("page", ["faults.md", "reliability.md"])
def test_every_test_and_target_that_the_pages_about_faults_name_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = re.findall(r"`((?:process|edges|tasks|rules|attacks)/[\w/]+\.py)`((?:, `\w+`)*)", text)
    assert len(named) > 40
    missing = [
        (file, word)
        for file, words in named
        for word in re.findall(r"`(\w+)`", words)
        if word not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []
    targets = set(re.findall(r"`make ([\w-]+)", text))
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets - rules == set()


def test_every_path_of_the_page_about_migration_is_served_under_both_names_with_that_permission() -> None:
    section = (
        (ROOT / "docs" / "migration.md").read_text().partition("## Path by path")[2].partition("\n## ")[0]
    )
    rows = re.findall(r"^\| `(\w+) (/[^`]+)`.*? \| `\w+ (/[^`]+)` \| (\S+)", section, re.MULTILINE)
    assert len(rows) > 20
    served = {(route.method, path): route for route in ROUTES for path in route.paths}
    for method, old, new, permission in rows:
        if new == "/ws/cluster":
            continue
        route = served[method, new]
        assert served[method, old] is route
        if permission.startswith("`"):
            assert route.permission == permission.strip("`,"), old


def test_the_pages_that_are_made_from_the_types_are_as_they_would_be_made_now() -> None:
    assert outdated() == [], "make documents"


def warnings_and_errors() -> Iterator[str]:
    """What stands in the log at those levels, cut where values are filled in."""
    for call in nodes():
        match call:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr="warning" | "error" | "exception"),
                args=[ast.Constant(value=str(text)), *_],
            ):
                yield from (part for part in re.split(r"[ :;,]*%s[ :;,]*", text) if len(part) > 6)


def test_every_warning_and_error_of_the_log_is_in_a_page() -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("operating.md", "troubleshooting.md")]
    parts = list(warnings_and_errors())
    assert len(parts) > 20
    assert [part for part in parts if part not in "".join(pages)] == []
