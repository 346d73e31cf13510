"""Go's own decoder on what a started daemon answers; in short, without Go: tests/edges/test_old_clients.py."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon_process import running, wait_until
from tests.support.old_answers import TYPES, go_program

METRICS = "/api/cluster/custom-metrics"


@pytest.mark.slow
@pytest.mark.needs("go")
def test_a_typed_go_client_decodes_every_documented_answer_of_helios(tmp_path: Path) -> None:
    source = tmp_path / "main.go"
    source.write_text(go_program())
    with running(tmp_path) as daemon, daemon.client() as http:
        for name, kind, value in (("g", "gauge", 58), ("h", "histogram", 0.3)):
            http.post(METRICS, json={"name": name, "type": kind}).raise_for_status()
            http.put(METRICS, json={"name": name, "value": value}).raise_for_status()
        http.post("/admin/cluster/snapshot").raise_for_status()
        wait_until(lambda: http.get("/admin/cluster/latency").json()["aggregated"]["count"] > 0)
        answers = {path: http.get(f"/admin/cluster/{path}").json() for path in TYPES}
        broken = {**answers, "status": {**answers["status"], "indices": {"commit_index": 1.5}}}
    program = tmp_path / "decode"
    subprocess.run(
        ["go", "build", "-o", program, source], check=True, env={**os.environ, "GO111MODULE": "off"}
    )

    def decoded(given: dict[str, object]) -> str:
        return subprocess.run(
            [program], input=json.dumps(given), capture_output=True, text=True, check=True
        ).stdout

    assert decoded(answers) == ""
    assert "1.5" in decoded(broken)
