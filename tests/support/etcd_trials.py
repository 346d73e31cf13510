"""Faults and planned acts on a real etcd, drawn from a seed, and what heliosd should say of each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .daemon_process import wait_until
from .etcd_cluster import EtcdCluster
from .etcd_nodes import Listener
from .spread_cluster import PEER_CABLE, disconnect, heal

CAUSES = {
    "kill": "stopped",
    "stop": "stopped",
    "transfer": "transfer",
    "cut off": "unreachable",
    "cut off from its peers": "unreachable",
    "slow": "stepped_down",
    "remove": "removed",
    "cut off a follower": "",
}
"""Fault -> the cause of the lost leader; "": none is lost."""


Result = tuple[str, str, Mapping[str, Any]]
"""Fault, the cause that was reported, its evidence."""


def _is_right(result: Result) -> bool:
    fault, cause, evidence = result
    # A transfer leaves no time without a leader. Now and then etcd's fails, and all elect anew.
    failed = fault == "transfer" and evidence.get("without_leader_ms", 0) > 500
    return cause == ("stepped_down" if failed else CAUSES[fault])


@dataclass
class CauseTrials:
    """`run` makes one fault, waits for the next leader, and heals it."""

    cluster: EtcdCluster
    rng: Random
    listener: Listener
    results: list[Result] = field(default_factory=list)

    def run(self, fault: str) -> None:
        self.cluster.leader()
        time.sleep(1.0 + self.rng.random() * 2.0)
        leader = self.cluster.leader()
        seen = len(self.listener.heard)
        place = (leader + self.rng.choice((1, 2))) % 3 if fault == "cut off a follower" else leader
        self._hurt(fault, place, seen)
        lost = self._lost(seen)
        cause = lost[0].get("cause", "(none)") if lost else ""
        self.results.append((fault, cause, lost[0].get("evidence", {}) if lost else {}))
        print(*self.results[-1], flush=True)
        self._heal(fault, place)

    def right(self) -> int:
        return sum(map(_is_right, self.results))

    def report(self) -> str:
        wrong = [each for each in self.results if not _is_right(each)]
        lines = [f"{self.right()} of {len(self.results)} causes are right"]
        return "\n".join([*lines, *(f"  {fault}: {cause} {evidence}" for fault, cause, evidence in wrong)])

    def _lost(self, seen: int) -> list[dict[str, Any]]:
        messages = [message for _, message in self.listener.heard[seen:]]
        return [
            each["data"]
            for each in messages
            if each["type"] == "state_change" and "seq" in each and each["data"]["leader"] == ""
        ]

    def _hurt(self, fault: str, place: int, seen: int) -> None:
        match fault:
            case "kill":
                self.cluster.kill(place)
            case "stop":
                self.cluster.stop(place)
            case "transfer":
                self._transfer(place)
            case "cut off":
                disconnect(place)
            case "cut off from its peers":
                disconnect(place, PEER_CABLE)
            case "slow":
                self._slow(place, seen)
            case "remove":
                self._remove(place)
            case _:
                disconnect(place)
                time.sleep(1.0 + self.rng.random() * 2.0)
                return
        wait_until(lambda: bool(self._lost(seen)), 15.0)

    def _transfer(self, place: int) -> None:
        status = self.cluster.status((place + self.rng.choice((1, 2))) % 3)
        assert status is not None
        target = status["header"]["member_id"]
        self.cluster.ask(place, "/v3/maintenance/transfer-leadership", {"targetID": target})

    def _slow(self, place: int, seen: int) -> None:
        """It runs for a part of the time only, until another one leads."""
        share = 0.6
        while not self._lost(seen):
            self.cluster.stop(place)
            time.sleep(share + self.rng.random() * 0.2)
            self.cluster.cont(place)
            time.sleep(0.1 + self.rng.random() * 0.1)
            share = min(2.0, share + 0.1)

    def _remove(self, place: int) -> None:
        status = self.cluster.status(place)
        assert status is not None
        body = {"ID": status["header"]["member_id"]}
        wait_until(lambda: self._accepted((place + 1) % 3, "/v3/cluster/member/remove", body), 20.0)

    def _accepted(self, place: int, path: str, body: dict[str, Any]) -> bool:
        """etcd refuses changes of members for five seconds after a member has started."""
        try:
            self.cluster.ask(place, path, body)
        except OSError:
            return False
        return True

    def _heal(self, fault: str, place: int) -> None:
        member = self.cluster.members[place]
        match fault:
            case "kill":
                self.cluster.restart(place)
            case "stop" | "slow":
                self.cluster.cont(place)
            case "remove":
                self.cluster.kill(place)
                shutil.rmtree(member.data_dir)
                url = {"peerURLs": [member.peer_url]}
                wait_until(lambda: self._accepted((place + 1) % 3, "/v3/cluster/member/add", url), 20.0)
                self.cluster.rejoin(place)
            case "transfer":
                pass
            case _:
                heal(place)
        wait_until(lambda: all(self.cluster.status(each) for each in range(3)), 20.0)
