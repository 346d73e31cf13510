"""A member of etcd that a `StatusReader` asks, with answers that a test gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdUnavailable
from heliosd.cluster.etcd.client.status_reader import StatusReader

A, B = "http://etcd-1:2379", "http://etcd-2:2379"
"""Endpoints."""
STATUS, RANGE, LIST = "/maintenance/status", "/kv/range", "/cluster/member/list"
HEADER = {"cluster_id": "255", "member_id": "10", "revision": "7", "raft_term": "2"}

T = TypeVar("T")


def page(**changes: Any) -> bytes:
    """`/debug/vars` of member a, as etcd 3.6.10 writes it."""
    raft = {"id": "a", "term": 2, "vote": "a", "commit": 13, "lead": "a", "raftState": "StateLeader"}
    progress = {"a": {"match": 13}, "b": {"match": 13}}
    rest = {"applied": 12, "progress": progress, "leadtransferee": "0"}
    return json.dumps({"cmdline": ["etcd"], "memstats": {}, "raft.status": raft | rest | changes}).encode()


class AnsweringMember:
    """One etcd: what it answers by path, a body or an error, and what it was asked."""

    def __init__(self, answers: Mapping[str, bytes | EtcdError], pages: Mapping[str, bytes]) -> None:
        self.answers = dict(answers)
        self.pages = dict(pages)
        self.asked: list[str] = []
        self.held_up = False
        """By its database: it gives no status."""
        self.reader = StatusReader(self.ask, self.page, b"/heliosd/")

    async def ask(self, endpoint: str, path: str, _body: bytes, read: Callable[[bytes], T]) -> T:
        await trio.lowlevel.checkpoint()
        self.asked.append(path)
        if self.held_up:
            await trio.sleep(1.0)
            raise EtcdUnavailable(endpoint, "no answer within 1 s")
        answer = self.answers.get(endpoint + path, self.answers[path])
        if isinstance(answer, EtcdError):
            raise answer
        return read(answer)

    async def page(self, endpoint: str, _path: str) -> bytes:
        await trio.lowlevel.checkpoint()
        if endpoint not in self.pages:
            raise EtcdUnavailable(endpoint, "connection refused")
        return self.pages[endpoint]


def answer(**more: Any) -> bytes:
    return json.dumps({"header": HEADER | more}).encode()


FULL = json.dumps(
    {"header": HEADER, "version": "3.6.16", "leader": "10", "raftIndex": "13", "raftTerm": "2"}
).encode()
