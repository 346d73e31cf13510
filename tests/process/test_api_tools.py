"""Public tools that read descriptions of APIs, against a started daemon. `make test-api` installs and runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon_process import PASSWORD, Daemon, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
TOOLS = ROOT / "build" / "api"
ENDS_ITS_TOKEN = "logout|/session|/refresh|/events"
"""Asked apart, by a user of their own: each request has a new token, and that of the stream ends after a second."""
SECONDS = 1200.0
MEMBERS = {"node-1", "node-2", "node-3"}
"""Whichever of them leads at that moment."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("api")) as started:
        yield started


def run(*command: object, folder: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    return done.stdout


def schemathesis(daemon: Daemon, folder: Path, *options: str) -> None:
    run(
        TOOLS / "venv/bin/schemathesis",
        *("--config-file", SUPPORT / "schemathesis.toml"),
        *("run", f"{daemon.url}/openapi.json", "--seed", "1", *options),
        folder=folder,
    )


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        bearer = ("-H", f"Authorization: Bearer {daemon.token('admin')}")
        schemathesis(
            daemon, tmp_path, "--exclude-path-regex", ENDS_ITS_TOKEN, "--max-examples", "30", *bearer
        )
        with daemon.client() as http:
            assert http.get("/healthz").status_code == 200


def test_schemathesis_finds_nothing_where_a_request_ends_its_token_or_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path) as daemon:
        monkeypatch.setenv("SCHEMATHESIS_HOOKS", str(SUPPORT / "schemathesis_hooks.py"))
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
        monkeypatch.setenv("HELIOSD_PYTHON", sys.executable)
        monkeypatch.setenv("HELIOSD_CONFIG", str(daemon.config))
        monkeypatch.setenv("HELIOSD_URL", daemon.url)
        monkeypatch.setenv("HELIOSD_PASSWORD", PASSWORD)
        schemathesis(daemon, tmp_path, "--include-path-regex", ENDS_ITS_TOKEN, "--max-examples", "5")
        with daemon.client() as http:
            assert http.get("/healthz").status_code == 200


def test_the_parser_of_asyncapi_reads_the_messages(daemon: Daemon) -> None:
    with daemon.client() as http:
        (TOOLS / "asyncapi.json").write_bytes(http.get("/asyncapi.json").content)
    script = """
        import { Parser } from "@asyncapi/parser";
        import fs from "fs";
        const { document, diagnostics } = await new Parser().parse(fs.readFileSync("asyncapi.json", "utf8"));
        const wrong = diagnostics.filter((one) => one.severity < 2);
        console.log(JSON.stringify({ wrong, messages: document.allMessages().all().length }));
    """
    (TOOLS / "read.mjs").write_text(script)
    read = json.loads(run("node", "read.mjs", folder=TOOLS))
    assert read["wrong"] == []
    assert read["messages"] > 15


def test_a_generated_python_client_reads_the_status(daemon: Daemon, tmp_path: Path) -> None:
    url = f"{daemon.url}/openapi.json"
    run(TOOLS / "venv/bin/openapi-python-client", "generate", "--url", url, "--meta", "none", folder=tmp_path)
    (package,) = (path for path in tmp_path.iterdir() if (path / "client.py").is_file())
    use = f"""
        from {package.name}.api.auth import log_in
        from {package.name}.api.cluster import show_status
        from {package.name}.client import AuthenticatedClient, Client
        from {package.name}.models import Credentials
        session = log_in.sync(client=Client({daemon.url!r}), body=Credentials("admin", {PASSWORD!r}))
        status = show_status.sync(client=AuthenticatedClient({daemon.url!r}, session.token))
        print(status.leader.id, len(status.peers))
    """
    (tmp_path / "use.py").write_text("\n".join(line.strip() for line in use.splitlines()))
    leader, peers = run(TOOLS / "venv/bin/python", "use.py", folder=tmp_path).split()
    assert (leader in MEMBERS, peers) == (True, "2")


def test_a_generated_typescript_client_compiles_and_reads_the_status(daemon: Daemon) -> None:
    folder = TOOLS / "typescript"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SUPPORT / "typescript_client", folder)
    (folder / "package.json").write_text('{"type": "module"}')
    tools = TOOLS / "node_modules/.bin"
    run(tools / "openapi-typescript", f"{daemon.url}/openapi.json", "-o", "api.ts", folder=folder)
    strict = ("--strict", "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022")
    run(tools / "tsc", *strict, "--skipLibCheck", "use.ts", folder=folder)
    read = json.loads(run("node", "use.js", daemon.url, PASSWORD, folder=folder))
    assert (read["leader"] in MEMBERS, read["peers"]) == (True, 2)
