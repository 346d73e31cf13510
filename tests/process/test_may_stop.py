"""Members of a real etcd that are rebooted by many who ask for permits at once, while others fail."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.daemon_process import PASSWORD, Daemon, wait_until
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import beside

pytestmark = pytest.mark.needs("etcd")

PERMITS = "/api/cluster/permits"
Ask = Callable[[Daemon, str, float], bool]
"""Ask for a permit to stop this member, for so many seconds; True: it was given."""


@dataclass
class Reboots:
    """Members that are stopped with a permit, or killed, and what was seen of it."""

    cluster: EtcdCluster
    rng: random.Random
    lock: threading.Lock = field(default_factory=threading.Lock)
    rebooting: set[int] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    wanted: int = 0
    done: int = 0
    died: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def quorum(self) -> int:
        return len(self.cluster.members) // 2 + 1

    def reboot(self, which: int) -> None:
        """Stop a member for which a permit is out, and start it again."""
        with self.lock:
            self.rebooting.add(which)
            left = len(self.cluster.members) - len(self.rebooting | self.killed)
            if len(self.rebooting) > 1:
                self.faults.append(f"{self.rebooting} are stopped by permits together")
            if left < self.quorum:
                self.faults.append(f"only {left} are left: {self.rebooting} stopped, {self.killed} killed")
            self.cluster.kill(which)
        time.sleep(self.rng.uniform(0, 0.2))  # a machine that boots
        self.cluster.restart(which)
        with self.lock:
            self.rebooting.discard(which)

    def kill_now_and_then(self, finished: threading.Event, pause: float) -> None:
        """Kill a member, and start it again after a while; one at a time."""
        while not finished.wait(self.rng.uniform(pause, 2 * pause)):
            with self.lock:
                if self.rebooting and len(self.cluster.members) - 2 < self.quorum:
                    continue
                running = sorted(set(range(len(self.cluster.members))) - self.rebooting)
                which = self.rng.choice(running)
                self.killed.add(which)
                self.kills += 1
                self.cluster.kill(which)
            time.sleep(self.rng.uniform(0.5, 3))  # a failure that lasts
            self.cluster.restart(which)
            with self.lock:
                self.killed.discard(which)

    def next_number(self) -> int | None:
        with self.lock:
            if self.wanted == 0:
                return None
            self.wanted -= 1
            return self.wanted


def caller(reboots: Reboots, daemon: Daemon, ask: Ask, give_back: Callable[[Daemon, str], None]) -> None:
    """Ask for members, reboot them, give the permit back; each twentieth time die with the permit in hand."""
    try:
        while (number := reboots.next_number()) is not None:
            dies = number % 20 == 10
            which = reboots.rng.randrange(len(reboots.cluster.members))
            name = reboots.cluster.members[which].name
            while not ask(daemon, name, 6.0 if dies else 120.0):
                pass
            if dies:
                with reboots.lock:
                    reboots.died += 1
                continue
            reboots.reboot(which)
            with reboots.lock:
                reboots.done += 1
            give_back(daemon, name)
    except Exception as error:  # a thread's exception would go unseen
        reboots.faults.append(repr(error))
        raise


def run(
    reboots: Reboots,
    daemons: list[Daemon],
    *,
    callers: int,
    ask: Ask,
    give_back: Callable[[Daemon, str], None],
    kill_pause: float,
) -> None:
    finished = threading.Event()
    threads = [
        threading.Thread(target=caller, args=(reboots, daemons[number % len(daemons)], ask, give_back))
        for number in range(callers)
    ]
    killer = threading.Thread(target=reboots.kill_now_and_then, args=(finished, kill_pause))
    for thread in (*threads, killer):
        thread.start()
    for thread in threads:
        thread.join()
    finished.set()
    killer.join()
    print(f"{reboots.done} reboots, {reboots.died} callers died, {reboots.kills} members killed")
    assert reboots.faults == []


@pytest.mark.slow
def test_200_reboots_by_ten_callers_never_cost_the_quorum(tmp_path: Path) -> None:
    """The command line, on five members and three heliosd; each twentieth caller dies with its permit."""

    def command(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "heliosd", "may-stop", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ
            | {"HELIOSD_URL": daemon.url, "HELIOSD_USER": "admin", "HELIOSD_PASSWORD": PASSWORD},
        )

    def ask(daemon: Daemon, member: str, seconds: float) -> bool:
        done = command(daemon, member, "--wait", "60", "--seconds", str(seconds), "-o", "json")
        assert done.returncode in {0, 5}, done
        assert bool(done.stderr) == (done.returncode == 5)
        return done.returncode == 0

    def give_back(daemon: Daemon, member: str) -> None:
        wait_until(lambda: command(daemon, member, "--done").returncode == 0)

    names = [f"etcd-{number}" for number in range(1, 6)]
    with EtcdCluster.start(5) as cluster, beside(tmp_path, cluster, names[:3]) as daemons:
        count = int(os.environ.get("REBOOTS", "200"))
        reboots = Reboots(cluster, random.Random(count), wanted=count)
        run(reboots, daemons, callers=10, ask=ask, give_back=give_back, kill_pause=10.0)
        assert reboots.done + reboots.died == count
        cluster.put("after", "all")


def test_reboots_of_three_members_go_one_after_the_other(tmp_path: Path) -> None:
    with (
        EtcdCluster.start(3) as cluster,
        beside(tmp_path, cluster, ["etcd-1"]) as (daemon,),
        daemon.client() as http,
    ):

        def ask(_: Daemon, member: str, seconds: float) -> bool:
            answer = http.post(PERMITS, json={"member": member, "seconds": seconds})
            assert answer.status_code in {201, 409, 503, 504}, answer.text
            if answer.status_code != 201:
                time.sleep(0.1)  # as its user would, a little later
            return answer.status_code == 201

        def give_back(_: Daemon, member: str) -> None:
            def given_back() -> bool:
                permits = http.get(PERMITS)
                if not permits.is_success:
                    return False
                (permit,) = permits.json()["permits"]
                assert permit["member_name"] == member
                return http.delete(PERMITS, params={"id": permit["id"]}).is_success

            wait_until(given_back)

        reboots = Reboots(cluster, random.Random(6), wanted=6)
        run(reboots, [daemon], callers=3, ask=ask, give_back=give_back, kill_pause=600.0)
        assert reboots.done == 6
        follower, other = [place for place in range(3) if place != cluster.leader()]
        stopped, asked = cluster.members[follower].name, cluster.members[other].name
        cluster.stop(follower)
        refused = http.post(PERMITS, json={"member": asked})
        assert refused.status_code == 409
        assert refused.json()["error"] == (
            f"Without {asked} only 1 of 3 voters would be left, and 2 are needed; {stopped} cannot be counted on"
        )
        assert http.get(PERMITS).json() == {"permits": []}
        cluster.cont(follower)
        wait_until(lambda: ask(daemon, asked, 60))
        assert_audited(daemon, asked)


def assert_audited(daemon: Daemon, member: str) -> None:
    act = "POST /api/cluster/permits"
    daemon.wait_logged(
        lambda line: (
            line.get("event") == "audit"
            and line["act"] == act
            and (line["fields"]["member"], line["user"], line["status"]) == (member, "admin", 201)
        )
    )
