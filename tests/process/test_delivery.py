"""No event is lost without a word to its client: clients are cut at random, the daemon is restarted and killed.

The short forms run in `make test`, the long ones in `make prove-delivery`, and the ten million in `make soak`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from math import inf
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.daemon_process import PASSWORD, Daemon, running, wait_until
from tests.support.event_load import EventLoad, writing
from tests.support.ports import free_port
from tests.support.running_check import PATIENCE_SECONDS, RunningCheck
from tests.support.sequence_checker import Check, Plan

CHECKER = ("-m", "tests.support.sequence_checker")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon")) as started:
        yield started


def registered_without_event(check: Check, load: EventLoad) -> set[str]:
    """What was answered with 201 and has not become an event that a client got."""
    published = {
        name
        for event in check.ledger.events(check.followers[0].epoch).values()
        if event["type"] == "custom_metrics"
        for name, metric in event["data"].items()
        if metric is not None
    }
    return set(load.registered) - published


def every_registration_became_an_event(check: Check, load: EventLoad) -> None:
    """Also where the daemon died right after the answer."""
    missing = registered_without_event(check, load)
    assert not missing, f"registered, and no client got the event: {sorted(missing)[:5]} of {len(missing)}"


@contextmanager
def prepared(
    folder: Path, plan: Plan, *, rate: float = 200.0, help_characters: int = 40
) -> Iterator[tuple[RunningCheck, EventLoad, str]]:
    """A data directory with a key in it, and a check and a load that wait for a daemon on the given address."""
    listen = f"127.0.0.1:{free_port()}"
    with running(folder, listen=listen) as daemon:
        url, token = daemon.url, daemon.token()
        assert daemon.stop() == 0
    with writing(listen, token, rate=rate, help_characters=help_characters) as load:
        yield RunningCheck(Check(url, token, plan)), load, listen


def end(daemon: Daemon, number: int) -> None:
    expected = 0 if number == signal.SIGTERM else -number
    assert daemon.stop(number) == expected, "".join(daemon.raw[-30:])
    assert not [line for line in daemon.lines if line.get("level") == "error"]


def cut_restart_and_kill(
    folder: Path, *, rate: float, clients: int, cuts: int, restarts: int, kills: int
) -> None:
    rng = random.Random()
    ends = [int(signal.SIGTERM)] * restarts + [int(signal.SIGKILL)] * kills
    rng.shuffle(ends)
    plan = Plan(clients=clients, seconds=inf, pause=0.4)
    with prepared(folder, plan, rate=rate) as (running_check, load, listen):
        check = running_check.check
        for number, fanout in zip(ends, cycle(("uring", "write")), strict=False):
            # A log goes on whatever writes to clients.
            with running(folder, listen=listen, websocket=f'fanout = "{fanout}"') as daemon:
                running_check.wait_until_all_hear_more()
                time.sleep(rng.uniform(0.0, 1.0))
                end(daemon, number)
        with running(folder, listen=listen) as daemon:
            wait_until(
                lambda: (
                    running_check.ended or (check.cuts >= cuts and check.seen.deliveries > 100 * len(ends))
                ),
                10 * PATIENCE_SECONDS,
            )
            running_check.wait_until_all_hear_more()
            load.end()
            wait_until(
                lambda: running_check.ended or not registered_without_event(check, load), PATIENCE_SECONDS
            )
            running_check.finish()
            end(daemon, signal.SIGTERM)
    seen = check.seen
    assert check.cuts >= cuts
    # A start takes up the numbering that the last one left, however that one ended.
    assert seen.refusals["epoch_changed"] == 0
    assert seen.resumes >= cuts
    every_registration_became_an_event(check, load)


def test_through_6_cuts_a_restart_and_a_kill_nothing_is_silently_lost(tmp_path: Path) -> None:
    cut_restart_and_kill(tmp_path, rate=80.0, clients=4, cuts=6, restarts=1, kills=1)


@pytest.mark.slow
def test_through_200_cuts_20_restarts_and_20_kills_nothing_is_silently_lost(tmp_path: Path) -> None:
    cut_restart_and_kill(tmp_path, rate=200.0, clients=4, cuts=200, restarts=20, kills=20)


@pytest.mark.extended
def test_the_checker_runs_alone_against_any_address(tmp_path: Path) -> None:
    with running(tmp_path) as daemon, writing(daemon.address, daemon.token(), rate=50):
        done = subprocess.run(
            [sys.executable, *CHECKER, daemon.url, "--user", "viewer", "--cuts", "5", "--pause", "0.2"],
            env={**os.environ, "HELIOSD_PASSWORD": PASSWORD},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "every promise held" in done.stdout


def test_the_checker_says_when_it_cannot_check() -> None:
    done = subprocess.run(
        [sys.executable, *CHECKER, f"http://127.0.0.1:{free_port()}"],
        env={**os.environ, "HELIOSD_PASSWORD": PASSWORD},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot log in" in done.stderr


@pytest.mark.parametrize(
    "query",
    [
        "epoch=a&after=-1",
        "epoch=a&after=9007199254740992",
        "epoch=a&after=9223372036854775808",
        "epoch=a&after=1e3",
        "epoch=a&after=one",
        "epoch=a&after=",
        "epoch=a",
        "after=5",
        "epoch=a&after=now",
        "epoch=a%20b&after=1",
        "epoch=" + "a" * 65 + "&after=1",
        "epoch=a&epoch=b&after=1",
    ],
)
def test_a_place_to_resume_from_that_cannot_be_one_is_400_before_the_upgrade(
    daemon: Daemon, query: str
) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(
            f"ws://{daemon.address}/ws/cluster?{query}",
            additional_headers={"Authorization": f"Bearer {daemon.token()}"},
            proxy=None,
        ),
    ):
        pass
    assert refused.value.response.status_code == 400


class Count:
    """How many deliveries earlier runs have checked, so that a soak that was interrupted goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.before = int(path.read_text(encoding="ascii")) if path.exists() else 0

    def note(self, checked: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.with_suffix(".new")
        whole.write_text(str(self.before + checked), encoding="ascii")
        whole.replace(self._path)

    def reset(self) -> None:
        self._path.unlink(missing_ok=True)


@pytest.mark.slow
def test_ten_million_deliveries_under_cuts_kills_and_slow_clients_have_no_silent_hole(tmp_path: Path) -> None:
    """SOAK_DELIVERIES (10,000,000) in all; SOAK_SECONDS ends a run earlier, and the next one goes on from there."""
    wanted = int(os.environ.get("SOAK_DELIVERIES", "10000000"))
    until = time.monotonic() + float(os.environ.get("SOAK_SECONDS", "inf"))
    count = Count(Path(os.environ.get("SOAK_COUNT", "build/soak-deliveries")))
    rng = random.Random()
    plan = Plan(clients=150, seconds=inf, slow=10, pause=15.0)
    with prepared(tmp_path, plan, help_characters=1000) as (running_check, load, listen):
        check = running_check.check

        def enough() -> bool:
            return time.monotonic() > until or count.before + check.seen.deliveries >= wanted

        last = False
        while not last:
            with running(tmp_path, listen=listen, websocket="send_buffer = 64") as daemon:
                ends_at = time.monotonic() + rng.uniform(20.0, 60.0)
                while time.monotonic() < ends_at and not running_check.ended and not enough():
                    assert daemon.process.poll() is None, "".join(daemon.raw[-50:])
                    time.sleep(0.5)
                running_check.raise_if_ended()
                last = enough()
                if last:
                    load.end()
                    running_check.finish()
                count.note(check.seen.deliveries)
                end(daemon, rng.choice([signal.SIGTERM, signal.SIGKILL]))
    every_registration_became_an_event(check, load)
    checked = count.before + check.seen.deliveries
    print(f"{checked} of {wanted} deliveries checked in all")
    if checked >= wanted:
        count.reset()
