"""The requests of docs/http.md, one after the other by curl: each is answered with the fields that are shown."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon_process import PASSWORD, Daemon, running

pytestmark = [pytest.mark.slow, pytest.mark.needs("curl")]

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
METRICS = "/api/cluster/custom-metrics"


def requests() -> Iterator[tuple[str, str]]:
    """Each command, and what the page shows below it."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            if command.startswith("curl"):
                yield command, shown


def run(command: str, daemon: Daemon, token: str) -> str:
    env = {**os.environ, "URL": daemon.url, "AUTH": f"Authorization: Bearer {token}"}
    # A stream does not end by itself.
    limited = f"timeout 2 {command} || true" if command.startswith("curl -sN") else command
    done = subprocess.run(["bash", "-c", limited], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, command
    return done.stdout


def test_every_request_of_the_page_is_answered_as_the_page_shows(tmp_path: Path) -> None:
    origins = 'allowed_origins = ["https://ops.example"]'
    with running(tmp_path, server=origins) as daemon, daemon.client() as http:
        token = daemon.token()
        # What the page takes for granted.
        for name, kind in (("jobs_total", "counter"), ("jobs_waiting", "gauge")):
            http.post(METRICS, json={"name": name, "type": kind})
        token_to_end = daemon.token()
        seen = 0
        with daemon.connect(token):
            for documented, shown in requests():
                command = documented.replace("…", PASSWORD)
                if "it leads already" in command:
                    http.post("/api/cluster/leadership/transfer", json={"target": "node-1"})
                if "ticket=" in command:
                    ticket = http.post("/api/auth/ticket").json()["ticket"]
                    command = re.sub(r"ticket=[\w-]+", f"ticket={ticket}", command)
                if "clients?id=" in command:
                    # An event stream that was left is listed until the next write to it fails.
                    clients = http.get("/api/cluster/clients").json()["clients"]
                    (mine,) = [each["id"] for each in clients if each["transport"] == "websocket"]
                    command = re.sub(r"id=\w+", f"id={mine}", command)
                history = http.get("/api/cluster/history").json()
                command = command.replace("oxbfvgfCXFR8E6Q9", history["epoch"])
                if "after=1&limit=1" in command:
                    # On the page nothing came before the metrics; here the leader may have changed.
                    first = next(e["seq"] for e in history["events"] if e["type"] == "custom_metrics")
                    command = command.replace("after=1&", f"after={first - 1}&")
                ended = "/auth/logout" in command or "/auth/me" in command
                answer = run(command, daemon, token_to_end if ended else token)
                wanted = set(re.findall(r'"(\w+)":', shown.split("\n", 1)[0] if "data:" not in shown else ""))
                missing = {key for key in wanted if f'"{key}":' not in answer and not key.startswith("job")}
                assert not missing, (command, answer[:500])
                assert ('{"error"' in shown) == ('{"error"' in answer), (command, answer[:500])
                seen += 1
        assert seen > 30
