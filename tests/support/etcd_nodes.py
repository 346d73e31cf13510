"""Three heliosd, each beside a member of a real etcd, and what the tests do to them."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from .daemon_process import Daemon, logging_process, wait_until, write_config
from .deadlines import SECONDS
from .etcd_cluster import EtcdCluster

METRICS = "/api/cluster/custom-metrics"
SECRET = "0123456789abcdef" * 4
"""The key that all nodes sign with."""

CLUSTER = """
[cluster]
backend = "etcd"
[cluster.etcd]
endpoints = [{endpoints}]
{etcd}
"""


def etcd_config(
    folder: Path,
    node: str,
    cluster: EtcdCluster,
    *,
    endpoints: Sequence[str] = (),
    etcd: str = "",
    listen: str = "127.0.0.1:0",
    websocket: str = "",
) -> Path:
    """A configuration in `folder`, which is made. `etcd` is more of its section."""
    folder.mkdir(exist_ok=True)
    secret = folder.parent / "jwt_secret"
    if not secret.exists():
        secret.touch(0o600)
        secret.write_text(SECRET)
    urls = endpoints or [member.client_url for member in cluster.members]
    return write_config(
        folder,
        node=node,
        listen=listen,
        websocket=websocket,
        cluster=CLUSTER.format(endpoints=", ".join(f'"{url}"' for url in urls), etcd=etcd),
        auth=f'jwt_secret_file = "{secret}"',
    )


def starting(folder: Path, config: Path) -> AbstractContextManager[Daemon]:
    """A process that has been started and need not listen yet."""
    state = folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "heliosd", "serve", "--config", str(config)]
    return logging_process(command, config, {"STATE_DIRECTORY": str(state)})


@contextmanager
def beside(
    folder: Path, cluster: EtcdCluster, names: Sequence[str] = ("etcd-1", "etcd-2", "etcd-3"), etcd: str = ""
) -> Iterator[list[Daemon]]:
    """A heliosd for each of these ids, ready; each knows all members of etcd, its own first."""
    urls = [member.client_url for member in cluster.members]
    with ExitStack() as stack:
        daemons = []
        for place, name in enumerate(names):
            near_first = urls[place:] + urls[:place]
            config = etcd_config(folder / name, name, cluster, endpoints=near_first, etcd=etcd)
            daemons.append(stack.enter_context(starting(folder / name, config)))
        for daemon in daemons:
            daemon.wait_listening()
            daemon.wait_ready()
        yield daemons


@dataclass
class Listener:
    """A WebSocket client that records every message, each with its time of arrival (monotonic)."""

    heard: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    closed: int | None = None

    def of(self, kind: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at, message) for at, message in list(self.heard) if message["type"] == kind]

    def events(self) -> list[dict[str, Any]]:
        return [message for _, message in list(self.heard) if "seq" in message]

    def read(self, socket: ClientConnection) -> None:
        try:
            while True:
                message = json.loads(socket.recv())
                self.heard.append((time.monotonic(), message))
        except ConnectionClosed as closed:
            self.closed = 0 if closed.rcvd is None else int(closed.rcvd.code)


@contextmanager
def listening(daemon: Daemon, token: str) -> Iterator[Listener]:
    """A client that has joined, and that does not leave a heliosd which was stopped for a while."""
    listener = Listener()
    with daemon.connect(token, ping_timeout=None) as socket:
        reader = threading.Thread(target=listener.read, args=(socket,))
        reader.start()
        try:
            wait_until(lambda: bool(listener.heard))
            yield listener
        finally:
            socket.close()
            reader.join(SECONDS)


@dataclass
class Nodes:
    """Three heliosd and their cluster. Each method leaves them as they were before."""

    cluster: EtcdCluster
    daemons: list[Daemon]
    patience: float = 20.0
    """A factor on every limit of time: a busy machine is no failure. 1 where times are measured."""

    def statuses(self) -> list[dict[str, Any]]:
        return [dict(daemon.ask("GET", "/api/cluster/status").json()) for daemon in self.daemons]

    def wait_whole(self) -> None:
        """Until every member answers, and every heliosd is ready and sees the same leader."""
        self.cluster.leader()

        def whole() -> bool:
            statuses = self.statuses()
            return (
                len({status["leader"]["id"] for status in statuses}) == 1
                and statuses[0]["leader"]["id"] != ""
                and all(status["cluster_health"]["unhealthy_peers"] == 0 for status in statuses)
            )

        wait_until(whole)
        for daemon in self.daemons:
            daemon.wait_ready()

    @contextmanager
    def listeners(self) -> Iterator[list[Listener]]:
        token = self.daemons[0].token()
        with ExitStack() as stack:
            yield [stack.enter_context(listening(daemon, token)) for daemon in self.daemons]

    def kill_leader_and_compare(self, rounds: int) -> list[float]:
        """Kill the leader so many times. Returns the seconds from when etcd showed the next one until the last
        client on any node had heard of it."""
        late: list[float] = []
        for _ in range(rounds):
            self.wait_whole()
            with self.listeners() as listeners:
                place = self.cluster.leader()
                self.cluster.kill(place)
                shown, leader = self._next_leader(place)

                def heard(listener: Listener, leader: str = leader) -> list[tuple[float, dict[str, Any]]]:
                    return [
                        (at, message)
                        for at, message in listener.of("state_change")
                        if "seq" in message and message["data"]["leader"] == leader
                    ]

                wait_until(lambda: all(map(heard, listeners)))
                late.append(max(heard(each)[0][0] for each in listeners) - shown)
                self.cluster.restart(place)
                self.wait_whole()
                changes = [
                    (event["data"]["term"], event["data"]["leader"])
                    for event in self.compared(listeners)
                    if event["type"] == "state_change"
                ]
                check_loss_and_election(changes, leader, term_now=self.cluster.term())
        return late

    def _next_leader(self, killed: int) -> tuple[float, str]:
        """When another member showed itself as the leader, and its id."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for place in range(len(self.cluster.members)):
                status = self.cluster.status(place) if place != killed else None
                if status is not None and status.get("leader") == status["header"]["member_id"]:
                    return time.monotonic(), f"{int(status['leader']):x}"
            time.sleep(0.02)
        raise AssertionError("etcd elects no leader")

    def seconds_from_write_to_stream(self, writes: int) -> list[float]:
        """From before a write on the first node until a client of the second has its value; sorted."""
        took: list[float] = []
        with (
            listening(self.daemons[1], self.daemons[0].token()) as listener,
            self.daemons[0].client() as http,
        ):
            assert http.post(METRICS, json={"name": "app_hop", "type": "gauge"}).status_code in {201, 409}
            for number in range(1, writes + 1):
                began = time.monotonic()
                assert http.put(METRICS, json={"name": "app_hop", "value": number}).status_code == 200

                def arrived(number: int = number) -> list[float]:
                    return [
                        at
                        for at, message in listener.of("custom_metrics")
                        if message["data"].get("app_hop", {}).get("value") == number
                    ]

                wait_until(lambda: bool(arrived()))
                took.append(arrived()[0] - began)
                listener.heard.clear()
        with self.daemons[1].client() as http:
            assert f"app_hop {float(writes)}" in http.get("/metrics").text
        with self.daemons[0].client() as http:
            assert http.delete(METRICS, params={"name": "app_hop"}).status_code == 200
        return sorted(took)

    def lose_the_quorum(self, seconds: float) -> None:
        """Two of three members are killed for so long."""
        self.wait_whole()
        leader = self.cluster.leader()
        other = (leader + 1) % 3
        with self.listeners() as listeners:
            for place in (leader, other):
                self.cluster.kill(place)
            lost = time.monotonic()

            def lost_leaders(listener: Listener) -> list[tuple[float, dict[str, Any]]]:
                return [each for each in listener.of("state_change") if each[1]["data"]["leader"] == ""]

            wait_until(lambda: all(map(lost_leaders, listeners)), 3.0 * self.patience)
            assert max(lost_leaders(each)[0][0] for each in listeners) - lost < 3.0 * self.patience
            assert all(lost_leaders(each)[0][1].get("provisional") for each in listeners)
            while time.monotonic() < lost + seconds:
                for daemon in self.daemons:
                    with daemon.client() as http:
                        began = time.monotonic()
                        answer = http.post(METRICS, json={"name": "app_lost", "type": "gauge"})
                        assert answer.status_code == 503, answer.text
                        assert time.monotonic() - began < 2.0 * self.patience
                        status = http.get("/api/cluster/status").json()
                        assert (status["leader"]["id"], status["stale"]) == ("", True)
                        ready = http.get("/readyz")
                        assert ready.status_code == 503
                        assert "no leader" in ready.json()["reason"]
            for place in (leader, other):
                self.cluster.restart(place, wait=False)
            self.wait_whole()
            assert not any(status["stale"] for status in self.statuses())
            wait_until(lambda: all(map(self._leader_is_logged, listeners)))
            logged_leaders = [
                event["data"]["leader"]
                for event in self.compared(listeners)
                if event["type"] == "state_change"
            ]
            assert "" in logged_leaders, "the loss is in the log afterwards"
            assert logged_leaders[-1] == self.statuses()[0]["leader"]["id"]

    def _leader_is_logged(self, listener: Listener) -> bool:
        """Whether the last change that this client got under a number says who leads now."""
        changes = [event for event in listener.events() if event["type"] == "state_change"]
        return bool(changes) and changes[-1]["data"]["leader"] == self.statuses()[0]["leader"]["id"]

    def compared(self, listeners: list[Listener]) -> list[dict[str, Any]]:
        """Asserts that all clients got the same events under the same numbers, without a hole; returns them."""
        wait_until(lambda: all(each.events() for each in listeners))
        newest = max(event["seq"] for each in listeners for event in each.events())
        wait_until(lambda: all(each.events()[-1]["seq"] >= newest for each in listeners))
        logs = [[e for e in each.events() if e["seq"] <= newest] for each in listeners]
        assert logs[0] == logs[1] == logs[2]
        assert [e["seq"] for e in logs[0]] == list(range(logs[0][0]["seq"], newest + 1))
        return logs[0]

    def stop_the_member_in_use(self, place: int = 0) -> None:
        """SIGSTOP of a member; the heliosd beside it receives and writes again within five seconds."""
        self.wait_whole()
        near, far = self.daemons[place], self.daemons[(place + 1) % 3]
        with (
            listening(near, near.token()) as listener,
            far.client() as http,
        ):
            assert http.post(METRICS, json={"name": "app_stop", "type": "counter"}).status_code == 201
            wait_until(lambda: bool(listener.of("custom_metrics")))
            self.cluster.stop(place)
            stopped = time.monotonic()
            try:
                self._write_until_heard(far, listener, stopped + 5.0 * self.patience)
                wait_until(lambda: self._writes(near), 5.0 * self.patience)
            finally:
                self.cluster.cont(place)
            self.wait_whole()
            wait_until(lambda: http.delete(METRICS, params={"name": "app_stop"}).status_code == 200)

    def _writes(self, daemon: Daemon) -> bool:
        return daemon.ask("PUT", METRICS, json={"name": "app_stop"}).status_code == 200

    def _write_until_heard(self, daemon: Daemon, listener: Listener, deadline: float) -> None:
        """Write through one heliosd until a client of another one gets a value."""
        before = time.monotonic()
        wrote = False
        while time.monotonic() < deadline:
            wrote = self._writes(daemon) or wrote
            if wrote and any(
                at > before and "seq" not in message for at, message in listener.of("custom_metrics")
            ):
                return
            time.sleep(0.1)
        raise AssertionError("the client got no value any more")

    def compact_while_away(self, folder: Path) -> None:
        """A fourth heliosd misses writes, and etcd forgets the revisions in which they were made."""
        self.wait_whole()
        config = etcd_config(folder / "fourth", "watcher", self.cluster)
        token = self.daemons[0].token()
        with starting(folder / "fourth", config) as daemon:
            daemon.wait_listening()
            daemon.wait_ready()
            with listening(daemon, token):
                pass
            with daemon.client() as http:
                before = http.get("/api/cluster/history", params={"limit": 1000}).json()
            assert daemon.stop() == 0
        with self.daemons[0].client() as http:
            for number in range(10):
                answer = http.post(METRICS, json={"name": f"app_away_{number}", "type": "gauge"})
                assert answer.status_code == 201
                assert http.put(METRICS, json={"name": f"app_away_{number}", "value": number}).is_success
        revision = self.cluster.put("/elsewhere", "x")
        self.cluster.ask(0, "/v3/kv/compaction", {"revision": str(revision), "physical": True})
        with starting(folder / "fourth", config) as daemon:
            daemon.wait_listening()
            daemon.wait_ready()
            with daemon.client() as http:
                query = {"epoch": before["epoch"], "after": str(before["seq"]), "limit": "1000"}
                missed = http.get("/api/cluster/history", params=query).json()
                assert [event["seq"] for event in missed["events"]] == list(
                    range(before["seq"] + 1, missed["seq"] + 1)
                )
                assert len(missed["events"]) >= 10
                found = http.get(METRICS).json()["metrics"]
                assert [found[f"app_away_{number}"]["value"] for number in range(10)] == list(range(10))
                for number in range(10):
                    assert http.delete(METRICS, params={"name": f"app_away_{number}"}).is_success
            assert daemon.stop() == 0


def check_loss_and_election(changes: Sequence[tuple[int, str]], leader: str, *, term_now: int) -> None:
    """The changes of leader, as (term, leader), after the last one was killed: lost and elected, once each. While
    etcd's members wait for a busy machine they may elect again, each time in another term."""
    shown = [each for _, each in changes]
    terms = [term for term, each in changes if each]
    once = ["", leader]
    assert shown[:2] == once, changes
    assert len(terms) == len(set(terms)), changes
    assert shown == once or term_now > terms[0], (changes, term_now)
    assert all(before != after for before, after in pairwise(shown)), changes
