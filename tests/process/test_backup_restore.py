"""`heliosd backup` of a running daemon, and daemons on what `heliosd restore` makes of it."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.command_line import exit_code_of
from tests.support.daemon_process import (
    Daemon,
    running,
    wait_until,
    welcomed,
    write_config,
)
from tests.support.deadlines import SECONDS

URL = "/api/cluster/custom-metrics"


@dataclass
class Writer:
    """Counts a metric up, one request after the other; a peer comes and goes meanwhile, which makes events."""

    daemon: Daemon
    first: int
    sent: int = 0
    answered: int = 0

    def write(self, stop: threading.Event) -> None:
        try:
            with self.daemon.client() as http:
                http.post(URL, json={"name": "number", "type": "gauge"})
                for number in range(self.first, self.first + 1_000_000):
                    if stop.is_set():
                        return
                    self.sent = number
                    if http.put(URL, json={"name": "number", "value": number}).is_success:
                        self.answered = number
                    if number % 5 == 0:
                        http.post(URL, json={"name": f"event_{number}", "type": "gauge"})
        except (httpx.HTTPError, AssertionError):
            return  # killed


@contextmanager
def writing(daemon: Daemon, first: int) -> Iterator[Writer]:
    writer, stop = Writer(daemon, first), threading.Event()
    thread = threading.Thread(target=writer.write, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: writer.answered > 0)
        yield writer
    finally:
        stop.set()
        thread.join(SECONDS)


def backup_restore_and_compare(folder: Path, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round: a backup under writes, then `kill -9` in half of them, and a daemon on the restored backup."""
    rng = random.Random(15)
    original, elsewhere = folder / "original", folder / "elsewhere"
    for each in (original, elsewhere):
        each.mkdir()
    config = write_config(original)
    backup = folder / "backup.tar"
    first, done = 1, 0
    while done < rounds:
        with running(original, config) as daemon, writing(daemon, first) as writer:
            for _ in range(rng.randint(1, 4)):
                token = daemon.token()
                before = welcomed(daemon, token, "after=now")
                at_least = writer.answered
                monkeypatch.setenv("STATE_DIRECTORY", str(original / "state"))
                assert exit_code_of("backup", "--config", str(config), str(backup)) == 0
                at_most = writer.sent
                later = welcomed(daemon, token, "after=now")
                monkeypatch.setenv("STATE_DIRECTORY", str(elsewhere / "state"))
                assert exit_code_of("restore", "--config", str(config), str(backup)) == 0
                with running(elsewhere, config) as restored, restored.client() as http:
                    value = http.get(f"{URL}?name=number").json()["value"]
                    assert at_least <= value <= at_most
                    # More events than before, so that a number of the old count could come again.
                    for number in range(later["seq"] - before["seq"] + 5):
                        http.post(URL, json={"name": f"other_{done}_{number}", "type": "gauge"})
                    for cursor in (before, later):
                        query = f"epoch={cursor['epoch']}&after={cursor['seq']}"
                        # The signing key came with the backup, so the token holds there, too.
                        welcome = welcomed(restored, token, query)
                        assert (welcome["recovered"], welcome["reason"]) == (False, "epoch_changed")
                    assert restored.stop() == 0
                done += 1
            if rng.random() < 0.5:
                daemon.process.send_signal(signal.SIGKILL)
                daemon.process.wait(SECONDS)
            first = writer.sent + 1


@pytest.mark.slow
def test_100_backups_under_writes_and_kills_each_restore_a_state_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup_restore_and_compare(tmp_path, int(os.environ.get("BACKUPS", "100")), monkeypatch)


def test_a_restore_waits_for_the_daemon_s_end_and_then_no_cursor_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    backup = str(tmp_path / "backup.tar")
    with running(tmp_path, config) as daemon:
        token = daemon.token()
        assert exit_code_of("backup", "--config", str(config), backup) == 0
        assert exit_code_of("restore", "--config", str(config), backup) == 1
        assert "another heliosd is running" in capsys.readouterr().err
        cursor = welcomed(daemon, token, "after=now")
        assert daemon.stop() == 0
    assert exit_code_of("restore", "--config", str(config), backup) == 0
    with running(tmp_path, config) as daemon:
        welcome = welcomed(daemon, token, f"epoch={cursor['epoch']}&after={cursor['seq']}")
        assert (welcome["recovered"], welcome["reason"]) == (False, "epoch_changed")
        assert daemon.stop() == 0
