"""Planned acts on a real etcd, drawn from a seed: heliosd sends what they change, and not one word more."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .daemon_process import Daemon, wait_until
from .etcd_cluster import EtcdCluster
from .etcd_nodes import METRICS, Listener

SECONDS = 30.0
CHANGE_SECONDS = 120.0
"""Of a busy machine: there etcd has refused a promotion for over 30 s, since the learner was not in sync."""
ACTS = (
    *("transfer", "restart a follower", "restart the leader", "remove and add", "add and promote"),
    *("defragment", "compact", "snapshot", "stop heliosd", "stop a member for 0.3 s"),
    "turn authentication on or off",
)


def same(sent: list[str], wanted: list[str]) -> bool:
    """A member may get its name before or after it is promoted."""
    swapped = sent[:1] == ["added"] and sorted(sent) == sorted(wanted)
    return sent == wanted or (swapped and ("removed" not in sent or sent[-1] == "removed"))


def kinds_of(messages: Iterable[dict[str, Any]], member: str) -> list[str]:
    """What these say of the member. One that has its name when it is added is not renamed after it."""
    found: list[str] = []
    for each in messages:
        data = each["data"]
        if each["type"] == "peer_change" and data["peer_id"] == member:
            found.append(data["event_type"])
            if data["event_type"] == "added" and data.get("peer_name"):
                found.append("renamed")
    return found


@dataclass
class QuietTrials:
    """`run` does one act and checks what every listener got of it; `listeners` belong to `daemons`.

    The cluster has users; its authentication is on at first.
    """

    cluster: EtcdCluster
    daemons: list[Daemon]
    listeners: list[Listener]
    rng: Random
    number: int = 0
    authenticated: bool = True
    wrong: list[str] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    def run(self, act: str) -> None:
        self.number += 1
        self.settle()
        marks = [len(listener.heard) for listener in self.listeners]
        before = self._terms()
        expected = self._do(act)
        self.settle()
        after = self._terms()
        for member, changes in expected.items():
            with suppress(AssertionError):  # what is missing is found below
                wait_until(
                    lambda it=member, wanted=changes: same(self._logged(marks[0], it), wanted),  # type: ignore[misc]
                    SECONDS,
                )
        self._fence()
        for name, listener, mark in zip("01", self.listeners, marks, strict=True):
            heard = [message for _, message in listener.heard[mark:]]
            for fault in self._faults(heard, expected, before, after):
                self.wrong.append(f"{self.number} {act}, heliosd {name}: {fault}")
        self.done[act] = self.done.get(act, 0) + 1
        print(self.number, act, self.wrong[-1:], flush=True)

    def settle(self) -> None:
        """Until all members answer, agree, and every heliosd shows their leader, all healthy and all members."""
        wait_until(lambda: all(self.cluster.status(each) for each in self._places()), SECONDS)
        wait_until(self._whole, SECONDS)

    def _whole(self) -> bool:
        leader = self._id(self.cluster.leader())  # on a busy machine it may change at any time
        statuses = [daemon.ask("GET", "/api/cluster/status").json() for daemon in self.daemons]
        return all(
            status["leader"]["id"] == leader
            and not status["cluster_health"]["unhealthy_peers"]
            and status["cluster_health"]["total_peers"] == len(self.cluster.members)
            and not status["stale"]
            for status in statuses
        )

    # What is done, and which changes of members follow from it: id -> kinds in order.

    def _do(self, act: str) -> dict[str, list[str]]:
        leader = self.cluster.leader()
        follower = self.rng.choice([place for place in self._places() if place != leader])
        any_place = self.rng.choice(self._places())
        match act:
            case "transfer":
                target = {"targetID": str(int(self._id(follower), 16))}
                self.cluster.ask(leader, "/v3/maintenance/transfer-leadership", target)
            case "restart a follower" | "restart the leader":
                place = follower if act.endswith("follower") else leader
                member = self._id(place)
                self.cluster.kill(place)
                time.sleep(self.rng.random() * 0.7)
                self.cluster.restart(place)
                return {member: ["unhealthy", "healthy"]}
            case "remove and add":
                gone = self._id(follower)
                self._change(leader, "remove", {"ID": str(int(gone, 16))})
                self.cluster.kill(follower)
                shutil.rmtree(self.cluster.members[follower].data_dir)
                added = self._add(leader, self.cluster.members[follower].peer_url, learner=False)
                self.cluster.rejoin(follower)
                return {gone: ["removed"], added: ["added", "renamed"]}
            case "add and promote":
                return self._fourth(leader)
            case "defragment":
                self.cluster.ask(any_place, "/v3/maintenance/defragment", {})
            case "compact":
                revision = self.cluster.put("/elsewhere", "x")
                self.cluster.ask(
                    any_place, "/v3/kv/compaction", {"revision": str(revision), "physical": True}
                )
            case "snapshot":
                with self.daemons[0].client() as http:
                    answer = http.post("/api/cluster/snapshot")
                # With authentication on it needs the role root.
                assert answer.status_code == (409 if self.authenticated else 201), answer.text
            case "stop heliosd":
                daemon = self.rng.choice(self.daemons)
                os.kill(daemon.pid, signal.SIGSTOP)
                time.sleep(0.5 + self.rng.random() * self.rng.choice((1.0, 6.0, 29.5)))
                os.kill(daemon.pid, signal.SIGCONT)
                time.sleep(3.0)
            case "stop a member for 0.3 s":
                self.cluster.stop(any_place)
                time.sleep(0.3)
                self.cluster.cont(any_place)
                time.sleep(2.0)
            case _:
                self.cluster.ask(any_place, f"/v3/auth/{'disable' if self.authenticated else 'enable'}", {})
                self.authenticated = not self.authenticated
                time.sleep(2.0)
        return {}

    def _fourth(self, leader: int) -> dict[str, list[str]]:
        """A fourth member comes as a learner, is promoted, and is removed."""
        spare = self.cluster.spare("etcd-4")
        added = self._add(leader, spare.peer_url, learner=True)
        self.cluster.join(spare)
        # Between two lists it may be added and promoted: then it is added as a voter.
        wait_until(lambda: bool(self._logged(0, added)), SECONDS)
        body = {"ID": str(int(added, 16))}
        self._change(leader, "promote", body)
        wait_until(lambda: same(self._logged(0, added), ["added", "renamed", "promoted"]), SECONDS)
        self._change(leader, "remove", body)
        self.cluster.kill(3)
        self.cluster.members.pop()
        return {added: ["added", "renamed", "promoted", "removed"]}

    def _add(self, place: int, peer_url: str, *, learner: bool) -> str:
        found = self._change(place, "add", {"peerURLs": [peer_url], "isLearner": learner})
        return f"{int(found['member']['ID']):x}"

    def _change(self, place: int, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """etcd refuses changes of members for five seconds after a member has started, and on a busy machine
        another one may lead by then than the one at `place`."""
        found: list[dict[str, Any]] = []
        refusals: list[str] = []

        def accepted() -> bool:
            at = self.cluster.leader() if refusals else place
            try:
                found.append(self.cluster.ask(at, f"/v3/cluster/member/{what}", body))
            except OSError as error:
                refusals.append(str(error))
                return False
            return True

        try:
            wait_until(accepted, CHANGE_SECONDS)
        except AssertionError as error:
            error.add_note(f"etcd's last refusals: {refusals[-3:]}")
            raise
        return found[0]

    # What was sent.

    def _faults(
        self, heard: list[dict[str, Any]], expected: dict[str, list[str]], before: int, after: int
    ) -> list[str]:
        faults = []
        states = [message for message in heard if message["type"] == "state_change"]
        if before == after and states:
            faults.append(f"no term has passed, and {states} were sent")
        covered: list[int] = []
        for message in states:
            data = message["data"]
            if "seq" in message and data["leader"]:
                first, last = data.get("terms_unseen", (1, 0))
                covered += [*range(first, last + 1), data["term"]]
        if covered != list(range(before + 1, after + 1)):
            faults.append(f"terms {before + 1} to {after} have passed, {covered} were sent")
        peers = [message for message in heard if message["type"] == "peer_change"]
        # While there is no leader, what is so is sent as provisional too.
        wrong = [
            each
            for each in peers
            if each["data"]["event_type"] not in expected.get(each["data"]["peer_id"], ())
        ]
        faults += [f"{message} is not so" for message in wrong]
        for member, kinds in expected.items():
            sent = kinds_of((each for each in peers if "seq" in each), member)
            faults += [f"{kinds} of {member} was sent as {sent}"] if not same(sent, kinds) else []
        return faults

    def _logged(self, mark: int, member: str) -> list[str]:
        return kinds_of((each for _, each in self.listeners[0].heard[mark:] if "seq" in each), member)

    def _fence(self) -> None:
        """A metric that is registered now is in the streams behind all that came before."""
        name = f"app_fence_{self.number}"
        with self.daemons[0].client() as http:
            wait_until(lambda: http.post(METRICS, json={"name": name, "type": "gauge"}).is_success, SECONDS)
        for listener in self.listeners:
            wait_until(
                lambda it=listener: any(name in each["data"] for _, each in it.of("custom_metrics")),  # type: ignore[misc]
                SECONDS,
            )

    def _places(self) -> range:
        return range(len(self.cluster.members))

    def _id(self, place: int) -> str:
        status = self.cluster.status(place)
        assert status is not None
        return f"{int(status['header']['member_id']):x}"

    def _terms(self) -> int:
        return int((self.cluster.status(self.cluster.leader()) or {})["raftTerm"])
