"""Alerts of a whole heliosd that is killed again and again: each due one arrives, doubled ones have the same id,
none is too many. What is due is computed from the event log that the daemon itself shows.

The short form runs in `make test`, the long one, with 500 losses and 20 kills, in `make prove-alerts`.
"""

from __future__ import annotations

import random
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.alert_daemon import Receiver, carry_out, commanded, receiving
from tests.support.daemon_process import Daemon, wait_until, write_config

HOLD = 0.4
ALERT = """
[[alert]]
name = "no-leader"
when = "leader_lost"
for = {hold}
url = "{url}"
secret_file = "secret"
"""


def events(http: httpx.Client) -> tuple[str, list[dict[str, Any]]]:
    """The event log, whole, and its epoch."""
    page = http.get("/api/cluster/history?limit=1000").json()
    found = list(page["events"])
    while page["more"]:
        query = {"epoch": page["epoch"], "after": found[-1]["seq"], "limit": 1000}
        page = http.get("/api/cluster/history", params=query).json()
        found += page["events"]
    assert found[0]["seq"] == 1
    return str(page["epoch"]), found


def due_ids(epoch: str, log: list[dict[str, Any]]) -> list[str]:
    """The ids of the alerts that the log makes due; a loss is named by its event."""
    due, leader, name, lost_at = [], "", "", None
    for event in log:
        at = datetime.fromisoformat(event["timestamp"])
        now_leads = event["data"]["leader"]
        if now_leads == leader:
            continue
        if not now_leads:
            name, lost_at = f"no-leader/leader_lost/{epoch}:{event['seq']}", at
        else:
            if lost_at is not None and (at - lost_at).total_seconds() >= HOLD:
                due.append(name)
            lost_at = None
        leader = now_leads
    assert lost_at is None, "the log ends with a leader"
    return due


def lose_and_kill(folder: Path, receiver: Receiver, losses: int, kills: int) -> tuple[list[str], int]:
    """So many losses, half of them healed in time, and kills at random moments. Returns what was due and how many
    events there were."""
    rng = random.Random(losses)
    (folder / "secret").write_bytes(receiver.secret)
    config = write_config(folder, cluster=ALERT.format(hold=HOLD, url=receiver.url))
    kill_at = set(rng.sample(range(losses), kills))
    leaders = ["node-2", "node-3"]
    leader, number = "node-1", 0
    manners = ["well", "well", "takes and hangs up", "well", "status 503", "hangs up"]
    while True:
        with commanded(folder, config, leader) as daemon:
            if number == 0:
                leader = leaders[1]
                carry_out(daemon, f"elect {leader}")
            while number < losses:
                receiver.manner = manners[number // 5 % len(manners)]
                carry_out(daemon, "lose")
                held = rng.uniform(0, HOLD - 0.1) if number % 2 else rng.uniform(HOLD + 0.05, 2 * HOLD)
                leader = leaders[number % 2]
                number += 1
                if number in kill_at:
                    time.sleep(rng.uniform(0, held))
                    break
                time.sleep(held)
                carry_out(daemon, f"elect {leader}")
                time.sleep(rng.uniform(0, 0.2))
            else:
                carry_out(daemon, "elect node-1")
                receiver.manner = "well"
                return all_sent(daemon, receiver)
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()


def all_sent(daemon: Daemon, receiver: Receiver) -> tuple[list[str], int]:
    """Wait until the last election is in the log and all that was due has come. Returns what was due, and how many
    events there are."""
    with daemon.client() as http:
        wait_until(lambda: events(http)[1][-1]["data"]["leader"] == "node-1")
        epoch, log = events(http)
        due = due_ids(epoch, log)
        wait_until(lambda: set(due) <= set(receiver.ids), 120)
        wait_until(lambda: 'heliosd_alerts_waiting{alert="no-leader"} 0' in http.get("/metrics").text, 120)
    return due, len(log)


def check(receiver: Receiver, due: list[str]) -> int:
    """Returns how many came again."""
    assert sorted(receiver.ids) == sorted(due)
    assert receiver.forged == 0
    seen: set[str] = set()
    again = 0
    for got in receiver.got:
        if got["id"] in seen:
            again += 1
            assert got["repeated"], got["id"]
        seen.add(got["id"])
    return again


def test_each_due_alert_arrives_although_heliosd_is_killed(tmp_path: Path) -> None:
    with receiving(b"hush") as receiver:
        due, _ = lose_and_kill(tmp_path, receiver, losses=8, kills=1)
        assert due
        check(receiver, due)


@pytest.mark.slow
def test_500_losses_20_kills_and_a_receiver_that_is_down_a_third_of_the_time(tmp_path: Path) -> None:
    with receiving(b"hush") as receiver:
        due, logged = lose_and_kill(tmp_path, receiver, losses=500, kills=20)
        again = check(receiver, due)
    print(f"\n{logged} events, {len(due)} alerts due, {len(receiver.got)} sent, {again} of them again")
    assert 200 <= len(due) <= 300
