"""The alert rules and the dashboard of examples/, held against a real Prometheus that scrapes a real heliosd.

The short form runs in `make test` with a scrape a second; `make prove-prometheus` has the rules' own intervals, and
an hour of quiet (QUIET_SECONDS=… for another time).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.alert_daemon import carry_out, commanded
from tests.support.daemon_process import receive, running, wait_until, write_config
from tests.support.deadlines import MEASURES, at_most
from tests.support.prometheus_server import RULES, Prometheus, prometheus

DASHBOARD = Path(__file__).parents[2] / "examples/grafana/heliosd.json"
MAY_BE_EMPTY = ("heliosd_ws_dropped_total", "heliosd_alert")
"""Series that are there only once something was dropped, or where alerts are configured."""

pytestmark = pytest.mark.needs("prometheus", "promtool")


def queries() -> list[str]:
    """Every query of the dashboard, with its variables as Grafana fills them in."""
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(found) > 20
    variables = {"$__rate_interval": "1m", "$job": "heliosd", "$instance": ".*"}
    for name, value in variables.items():
        found = [query.replace(name, value) for query in found]
    assert not any("$" in query for query in found)
    return found


def test_the_rules_are_right_in_promtools_own_tests() -> None:
    for verb, file in (("check", RULES), ("test", RULES.with_name("heliosd.rules.test.yml"))):
        done = subprocess.run(
            ["promtool", verb, "rules", str(file)], capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()


def unexpected(alerts: set[str]) -> set[str]:
    """Without the one that is right on a busy machine."""
    return alerts if MEASURES else alerts - {"HeliosdBusy"}


def lose_and_heal(folder: Path, *, seconds: int, quiet_seconds: int) -> None:
    state = folder / "prometheus"
    state.mkdir()
    config = write_config(folder)
    with commanded(folder, config, "node-2") as daemon:
        carry_out(daemon, "elect node-2")
        token = daemon.token("viewer")
        with (
            daemon.connect(token, ping_interval=None) as client,
            prometheus(state, daemon.address, token, seconds=seconds) as server,
        ):
            receive(client, "status")
            wait_until(lambda: server.scrapes() >= 3, 60 + 10 * seconds, 0.25)
            time.sleep(quiet_seconds)  # what is shown is that nothing happens in it
            assert unexpected(server.fired(3600 + quiet_seconds)) == set()
            check_dashboard(server)
            carry_out(daemon, "lose")
            wait_until(lambda: "HeliosdLeaderLost" in server.firing(), 60 + 10 * seconds, 0.1)
            # With a scrape a second a busy Prometheus may be late with an evaluation.
            scrapes = server.scrapes_before("HeliosdLeaderLost", "raft_cluster_has_leader")
            print(f"\nleader lost: fired after {scrapes} scrapes that showed it")
            assert 1 <= scrapes <= (2 if seconds > 1 else at_most(2))
            carry_out(daemon, "elect node-3")
            wait_until(lambda: unexpected(server.firing()) == set(), 60 + 10 * seconds, 0.25)
            assert unexpected(server.fired(60 + 10 * seconds)) == {"HeliosdLeaderLost"}


def check_dashboard(server: Prometheus) -> None:
    empty = [query for query in queries() if not server.query(query)]
    assert [query for query in empty if not any(name in query for name in MAY_BE_EMPTY)] == []


@pytest.mark.extended
def test_a_lost_leader_fires_and_heals_and_the_dashboard_shows_something(tmp_path: Path) -> None:
    lose_and_heal(tmp_path, seconds=1, quiet_seconds=0)


@pytest.mark.slow
def test_with_the_rules_own_intervals_and_an_hour_of_quiet(tmp_path: Path) -> None:
    lose_and_heal(tmp_path, seconds=15, quiet_seconds=int(os.environ.get("QUIET_SECONDS", "3600")))


@pytest.mark.slow
def test_a_simulated_cluster_that_runs_is_quiet(tmp_path: Path) -> None:
    state = tmp_path / "prometheus"
    state.mkdir()
    with running(tmp_path) as daemon:
        token = daemon.token("viewer")
        with prometheus(state, daemon.address, token, seconds=15) as server:
            time.sleep(int(os.environ.get("QUIET_SECONDS", "3600")))
            assert unexpected(server.fired(7200)) == set()


def test_the_dashboard_has_what_grafana_needs() -> None:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert {"title", "uid", "schemaVersion", "templating", "panels"} <= board.keys()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
