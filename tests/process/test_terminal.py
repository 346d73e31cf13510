"""`heliosd watch`, `top` and the tables in a real terminal: what a person sees, before and after a restart."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, running, wait_until, write_config
from tests.support.ports import free_port
from tests.support.terminals import assert_nothing_is_wrapped, terminal

pytestmark = pytest.mark.needs("tmux")

HELIOSD = [sys.executable, "-m", "heliosd"]
METRICS = "/api/cluster/custom-metrics"
SIZES = [(80, 24), (120, 40)]


def environment(daemon: Daemon) -> dict[str, str]:
    return {"HELIOSD_URL": daemon.url, "HELIOSD_TOKEN": daemon.token(), "TZ": "UTC"}


@pytest.mark.extended
def test_watch_and_top_survive_a_restart_and_show_what_was_missed(tmp_path: Path) -> None:
    config = write_config(tmp_path, listen=f"127.0.0.1:{free_port()}")
    with running(tmp_path, config) as first:
        first.wait_ready()
        env = environment(first)
        with first.client() as http:
            http.post("/api/cluster/leadership/transfer", json={"target": "node-1"})
            http.post(METRICS, json={"name": "bytes_total", "type": "counter", "labels": {"team": "a"}})
            http.put(METRICS, json={"name": "bytes_total", "delta": 123456789012})
        with (
            terminal(tmp_path, *SIZES[0], [*HELIOSD, "watch"], env) as watch,
            terminal(tmp_path, *SIZES[0], [*HELIOSD, "top"], env) as top,
        ):
            shown = watch.wait("node-1 leads, term ", "connected since", "3 members", "healthy")
            assert_nothing_is_wrapped(shown, 80)
            assert shown[0].startswith(f"heliosd watch  {first.url}")
            assert shown[0].endswith(" UTC")
            watch.wait("metric bytes_total registered (counter)")
            shown = top.wait("healthy", "Cluster: 3 members", "bytes_total", "123456789012", "team=a")
            assert_nothing_is_wrapped(shown, 80)
            first.stop()
            shown = watch.wait("disconnected since", "trying again", "last known: node-1 leads")
            assert len([line for line in shown if "disconnected" in line]) == 1
            assert_nothing_is_wrapped(shown, 80)
            assert_nothing_is_wrapped(top.wait("no answer since", "the last known", "bytes_total"), 80)
            with running(tmp_path, config) as second, second.client() as http:
                wait_until(
                    lambda: (
                        http.post(METRICS, json={"name": "while_away", "type": "gauge"}).status_code == 201
                    )
                )
                for each in (watch, top):
                    each.resize(*SIZES[1])
                shown = watch.wait("-- reconnected after", "metric while_away registered (gauge)")
                assert_nothing_is_wrapped(shown, 120)
                shown = top.wait("no answer for", "while_away")
                assert_nothing_is_wrapped(shown, 120)
                leader = http.get("/api/cluster/status").json()["leader"]["id"]
                target = "node-2" if leader == "node-3" else "node-3"
                http.post("/api/cluster/leadership/transfer", json={"target": target})
                shown = watch.wait(f"{target} leads, term ", "(planned)", f"{target} leads in term")
                assert_nothing_is_wrapped(shown, 120)
                watch.press("C-c")
                watch.wait("stopped; --since", "ended 130")
                top.press("C-c")
                top.wait("ended 130")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
@pytest.mark.extended
def test_watch_and_top_that_a_signal_ends_leave_the_terminal_as_it_was(
    tmp_path: Path, ending: signal.Signals
) -> None:
    with running(tmp_path) as daemon:
        daemon.wait_ready()
        env = environment(daemon)
        with (
            terminal(tmp_path, *SIZES[0], [*HELIOSD, "watch"], env) as watch,
            terminal(tmp_path, *SIZES[0], [*HELIOSD, "top"], env) as top,
        ):
            for each in (watch, top):
                each.wait("3 members")
                assert not each.is_as_before()
                each.terminate(ending)
                each.wait("ended 130")
                assert each.is_as_before()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_table_fits_the_terminal(tmp_path: Path, width: int, height: int) -> None:
    with running(tmp_path) as daemon, daemon.client() as http:
        daemon.wait_ready()
        http.post(METRICS, json={"name": "jobs_" + "x" * 60, "type": "counter", "help": "words " * 30})
        http.post("/api/cluster/peers", json={"id": "p" * 40, "address": "127.0.0.1:7099"})
        http.post("/api/cluster/snapshot")
        env = environment(daemon)
        for command in ("status", "members", "history", "metrics", "snapshot", "snapshot history", "clients"):
            with (
                daemon.connect(daemon.token()),
                terminal(tmp_path, width, height, [*HELIOSD, *command.split()], env) as shown,
            ):
                lines = shown.wait("ended 0")
                assert any(line.startswith("|") for line in lines), command
                assert_nothing_is_wrapped(lines, width)
