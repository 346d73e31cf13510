"""`heliosd simulate`: it plays a script, and prints exactly what a client was sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from heliosd.cli.main import main
from heliosd.cli.scenario import HEALED
from tests.support.daemon_process import PASSWORD, Daemon, running, wait_until
from tests.support.deadlines import SECONDS

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"


def simulate(*arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "heliosd", "simulate", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS * 3,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_what_it_prints_is_what_a_client_was_sent(tmp_path: Path) -> None:
    script = tmp_path / "short.toml"
    script.write_text(
        'about = "short"\nsettle = 0.5\n'
        "[[steps]]\nat = 0.2\nstorm = { rate = 20, seconds = 0.5, count = 2 }\n"
        '[[steps]]\nat = 0.5\nfaults = { crashed = ["leader"] }\n'
        "[[steps]]\nat = 1.5\nheal = true\n"
    )
    heard: list[dict[str, Any]] = []
    with running(tmp_path) as daemon, daemon.connect(daemon.token()) as socket:

        def listen() -> None:
            with suppress(ConnectionClosed):
                heard.extend(map(json.loads, socket))

        listener = threading.Thread(target=listen)
        listener.start()
        code, out, err = simulate(
            str(script), "-o", "json", HELIOSD_URL=daemon.url, HELIOSD_USER="admin", HELIOSD_PASSWORD=PASSWORD
        )
        assert code == 0, err
        assert daemon.stop() == 0
        listener.join(SECONDS)
    printed = json.loads(out)
    sent = {message["seq"]: message for message in heard if "seq" in message}
    span = range(printed["first_seq"], printed["last_seq"] + 1)
    assert len(span) >= 4  # two metrics, a leader lost, a leader elected
    assert printed["events"] == [sent[seq] for seq in span]
    state = next(event for event in reversed(printed["events"]) if event["type"] == "state_change")
    assert state["data"]["leader"] == printed["final"]["leader"]
    assert sorted(printed["final"]["custom_metrics"]) == ["storm_1", "storm_2"]


@pytest.fixture(scope="module")
def played_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("played_on")) as started:
        yield started


def faults_of(daemon: Daemon) -> dict[str, Any]:
    with daemon.client() as http:
        report = http.get("/api/cluster/simulation").json()
    return {name: report[name] for name in (*HEALED, "latency_ms")}


def environment_of(daemon: Daemon) -> dict[str, str]:
    return {"HELIOSD_URL": daemon.url, "HELIOSD_USER": "admin", "HELIOSD_PASSWORD": PASSWORD}


FAULTS = """
about = "ends early"
[[steps]]
at = 0.1
faults = { crashed = ["node-3"], partitions = [["node-1"], ["node-2"]], loss = 0.1, latency_ms = 7 }
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "read",
    [True, pytest.param(False, marks=pytest.mark.extended)],
    ids=["read", "with nobody to read of it"],
)
def test_a_script_that_a_signal_ends_leaves_no_faults(
    tmp_path: Path, played_on: Daemon, ending: signal.Signals, read: bool
) -> None:
    script = tmp_path / "long.toml"
    script.write_text(FAULTS + '[[steps]]\nat = 3600\nsay = "never"\n')
    before = faults_of(played_on)
    playing = subprocess.Popen(
        [sys.executable, "-m", "heliosd", "simulate", str(script)],
        env={**os.environ, **environment_of(played_on)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: faults_of(played_on)["crashed"] == ["node-3"])
        said = "ended early: heal"
        if not read and playing.stderr is not None:
            playing.stderr.close()
        playing.send_signal(ending)
        if read:
            _, said = playing.communicate(timeout=SECONDS)
        playing.wait(SECONDS)
    finally:
        playing.kill()
        playing.wait()
    assert playing.returncode == 130, said
    assert "ended early: heal" in said
    assert "not healed" not in said
    assert faults_of(played_on) == before


def test_sigterm_ends_the_daemon_that_was_started_for_the_script(tmp_path: Path) -> None:
    script = tmp_path / "own.toml"
    script.write_text('about = "ends early"\n[[steps]]\nat = 3600\nsay = "never"\n')
    playing = subprocess.Popen(
        [sys.executable, "-m", "heliosd", "simulate", str(script), "--own", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert playing.stderr is not None
        address = playing.stderr.readline().partition("serving at ")[2].partition(",")[0]
        for line in playing.stderr:
            if "ends early" in line:
                break
        playing.terminate()
        playing.communicate(timeout=SECONDS)
    finally:
        playing.kill()
        playing.wait()
    assert playing.returncode == 130
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz", trust_env=False, verify=False)


@pytest.mark.extended
def test_a_daemon_of_its_own_that_is_killed_under_requests_is_one_error(tmp_path: Path) -> None:
    script = tmp_path / "storm.toml"
    script.write_text(
        'about = "storm"\n[[steps]]\nat = 0\nstorm = { rate = 1000, seconds = 60, count = 20 }\n'
    )
    playing = subprocess.Popen(
        [sys.executable, "-m", "heliosd", "simulate", str(script), "--own", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert playing.stderr is not None
        for line in playing.stderr:
            if "changes of" in line:  # a thousand requests a second from now on
                break
        (own,) = [
            int(child)
            for thread in Path(f"/proc/{playing.pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
        os.kill(own, signal.SIGKILL)
        _, said = playing.communicate(timeout=SECONDS)
    finally:
        playing.terminate()
        playing.wait(SECONDS)
    assert playing.returncode == 1, said
    assert "the daemon ended" in said
    assert "Traceback" not in said


def test_a_script_that_names_an_unknown_member_later_on_leaves_no_faults(
    tmp_path: Path, played_on: Daemon
) -> None:
    script = tmp_path / "stranger.toml"
    script.write_text(FAULTS + '[[steps]]\nat = 0.3\nfaults = { paused = ["stranger"] }\n')
    before = faults_of(played_on)
    code, out, said = simulate(str(script), **environment_of(played_on))
    assert (code, out) == (2, "")
    assert "stranger" in said.splitlines()[-1]
    assert "ended early: heal" in said
    assert faults_of(played_on) == before


@pytest.mark.extended
def test_a_script_whose_daemon_goes_away_says_that_faults_may_be_left(tmp_path: Path) -> None:
    script = tmp_path / "away.toml"
    script.write_text(FAULTS + "[[steps]]\nat = 2\nheal = true\n")
    with running(tmp_path) as daemon:
        playing = subprocess.Popen(
            [sys.executable, "-m", "heliosd", "simulate", str(script)],
            env={**os.environ, **environment_of(daemon)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            wait_until(lambda: faults_of(daemon)["crashed"] == ["node-3"])
            daemon.process.kill()
            _, said = playing.communicate(timeout=SECONDS)
        finally:
            playing.kill()
            playing.wait()
    assert playing.returncode == 3, said
    assert "not healed, faults may still be in force" in said


def test_wrong_use_is_said_and_nothing_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "wrong.toml"
    script.write_text('about = "x"\n[[steps]]\nat = 1\nheel = true\n')
    wrong = {
        "heel": [str(script)],
        "none.toml": [str(tmp_path / "none.toml")],
        "not both": [str(SCENARIOS / "clock-leap.toml"), "--own", "--url", "http://127.0.0.1:1"],
    }
    for named, arguments in wrong.items():
        assert main(["simulate", *arguments]) == 2
        assert named in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_is_played_on_a_daemon_of_its_own(script: Path) -> None:
    code, out, err = simulate(str(script), "--own", "127.0.0.1:0", "--speed", "3", "-o", "json")
    assert code == 0, err
    printed = json.loads(out)
    seqs = [event["seq"] for event in printed["events"]]
    assert seqs == list(range(printed["first_seq"], printed["last_seq"] + 1))
    assert printed["final"]["leader"]
    address = err.partition("serving at http://")[2].partition(",")[0]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/healthz", trust_env=False, verify=False)


@pytest.mark.extended
def test_members_are_removed_and_added_and_names_mean_those_that_are_left(tmp_path: Path) -> None:
    script = tmp_path / "members.toml"
    script.write_text(
        'about = "members"\nsettle = 1.0\n'
        '[[steps]]\nat = 0.1\nadd = "a"\n'
        '[[steps]]\nat = 2.0\nremove = "leader"\n'
        '[[steps]]\nat = 2.1\nfaults = { partitions = [["minority"]] }\n'
        "[[steps]]\nat = 3.0\nheal = true\n"
        '[[steps]]\nat = 6.0\nadd = "b"\n'
    )
    code, out, err = simulate(str(script), "-o", "json", "--own", "127.0.0.1:0")
    assert code == 0, err
    assert {"a", "b"} <= set(json.loads(out)["final"]["peers"])


def test_who_is_to_lead_must_be_a_member(tmp_path: Path) -> None:
    script = tmp_path / "nobody.toml"
    script.write_text(
        'about = "nobody"\nsettle = 0.1\n'
        '[[steps]]\nat = 0.1\nremove = "member-3"\n'
        '[[steps]]\nat = 1.0\nremove = "node-2"\n'
        '[[steps]]\nat = 2.0\ntransfer = "followers"\n'
    )
    code, _, err = simulate(str(script), "--own", "127.0.0.1:0")
    assert (code, "'followers' means no member" in err) == (2, True), err
