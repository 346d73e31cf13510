"""When the members of a real etcd show a change themselves, and how much later the clients of heliosd get it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from .daemon_process import wait_until
from .deadlines import SECONDS
from .etcd_cluster import EtcdCluster
from .etcd_nodes import Listener

EVERY_SECONDS = 0.01
"""Between two questions to one member; a change may be shown so much earlier than it is seen here."""

Read = Callable[[dict[str, Any]], Iterator[str]]
"""The facts in an answer."""


def leader_shown(status: dict[str, Any]) -> Iterator[str]:
    """The leader that a status names."""
    if status.get("leader", "0") != "0":
        yield f"leader {int(status['leader']):x}"


def members_shown(listed: dict[str, Any]) -> Iterator[str]:
    """The members that a list has, each as learner or voter."""
    for each in listed["members"]:
        yield f"{'learner' if each.get('isLearner') else 'voter'} {int(each['ID']):x}"


@dataclass
class Shown:
    """What the members have shown since `looking` began."""

    first: dict[str, float] = field(default_factory=dict)
    """Fact -> when a member first showed it (monotonic)."""
    gone: dict[str, float] = field(default_factory=dict)
    """Fact -> when an answer of some member first lacked it again."""

    def note(self, facts: set[str], before: set[str]) -> None:
        now = time.monotonic()
        for fact in facts:
            self.first.setdefault(fact, now)
        for fact in before - facts:
            self.gone.setdefault(fact, now)


@contextmanager
def looking(cluster: EtcdCluster, path: str, read: Read) -> Iterator[Shown]:
    """Ask every member all the time, each by a thread of its own."""
    shown, over = Shown(), threading.Event()

    def look(url: str) -> None:
        before: set[str] = set()
        connection: HTTPConnection | None = None
        while not over.wait(EVERY_SECONDS):
            try:
                if connection is None:
                    connection = HTTPConnection(urlsplit(url).netloc, timeout=1.0)
                connection.request("POST", path, b"{}")
                facts = set(read(json.load(connection.getresponse())))
            except (OSError, HTTPException, ValueError, KeyError):
                if connection is not None:
                    connection.close()
                connection = None
                continue
            shown.note(facts, before)
            before = facts
        if connection is not None:
            connection.close()

    threads = [threading.Thread(target=look, args=(each.client_url,)) for each in cluster.members]
    for thread in threads:
        thread.start()
    try:
        yield shown
    finally:
        over.set()
        for thread in threads:
            thread.join(SECONDS)


def heard(listeners: Sequence[Listener], kind: str, fits: Callable[[dict[str, Any]], bool]) -> float:
    """When the last of these clients first had a message of which this holds, provisional or not."""

    def arrivals(listener: Listener) -> list[float]:
        return [at for at, message in listener.of(kind) if fits(message["data"])]

    wait_until(lambda: all(map(arrivals, listeners)), SECONDS)
    return max(arrivals(each)[0] for each in listeners)


def next_leader_late(shown: Shown, listeners: Sequence[Listener], before: str) -> tuple[str, float]:
    """The leader after `before`, and the seconds between the first status that shows it and the last client."""

    def others() -> list[str]:
        return [fact for fact in list(shown.first) if fact != f"leader {before}"]

    wait_until(lambda: bool(others()), SECONDS)
    leader = others()[0].partition(" ")[2]
    at = heard(listeners, "state_change", lambda data: data["leader"] == leader)
    return leader, at - shown.first[f"leader {leader}"]


def p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]


def report(what: str, seconds: Sequence[float]) -> str:
    inner = " ".join(f"{each * 1000:.0f}" for each in sorted(seconds))
    return f"{what}: {len(seconds)} times, p99 {p99(seconds) * 1000:.0f} ms: {inner}"
