"""A client whose etcd is the model in memory, for the whole etcd backend on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType
from typing import Any, Self

import trio

from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import Compare, Op
from heliosd.cluster.etcd.client.responses import (
    EtcdMember,
    Lease,
    MemberList,
    MemberStatus,
    RangeResult,
    ResponseHeader,
    TxnResult,
    WatchBatch,
)
from heliosd.config.model import EtcdConfig

from .etcd_model import CLUSTER, Etcd

URL = "http://127.0.0.1:2379"
MEMBER = EtcdMember("1", "etcd-1", ("http://127.0.0.1:2380",), (URL,), is_learner=False)
REVISIONS_IN_A_BATCH = 10
POLL_SECONDS = 0.05


class ModelWatch:
    """The changes of a model as a watch delivers them; `reached` is the last revision that was taken."""

    endpoint = URL

    def __init__(self, etcd: Etcd, start: int) -> None:
        self._etcd = etcd
        self.reached = start - 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchBatch:
        await trio.lowlevel.checkpoint()
        while self.reached == self._etcd.revision:  # noqa: ASYNC110 (the model notifies nobody)
            await trio.sleep(POLL_SECONDS)
        upto = min(self._etcd.revision, self.reached + REVISIONS_IN_A_BATCH)
        batch = self._etcd.watch(self.reached + 1, upto)
        self.reached = upto
        return batch


class ModelConnection:
    """A connection that the member never closes."""

    body = b""
    date = None
    lasts = True

    async def closed(self) -> bool:
        await trio.sleep_forever()
        return True


class ModelClient(EtcdClient):
    """One member that leads. Counts what keeps a backend alive."""

    def __init__(self, etcd: Etcd, identity: ClusterIdentity) -> None:
        super().__init__(EtcdConfig(endpoints=(URL,)), identity=identity)
        self._identity = identity
        self.etcd = etcd
        self.polls = self.renewals = 0
        self.watches: list[ModelWatch] = []
        self._leases: Iterator[int] = count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def range(self, key: bytes, end: bytes | None = None, **_options: Any) -> RangeResult:
        await trio.lowlevel.checkpoint()
        found = self.etcd.under(key, end or key + b"\0")
        return RangeResult(self.etcd.header, found, False, len(found))

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        await trio.lowlevel.checkpoint()
        return self.etcd.txn(compares, then, otherwise)

    @asynccontextmanager
    async def watch(  # type: ignore[override]
        self, key: bytes, end: bytes | None = None, start_revision: int = 0
    ) -> AsyncGenerator[ModelWatch, None]:
        self.watches.append(ModelWatch(self.etcd, start_revision))
        yield self.watches[-1]

    async def status(self, endpoint: str) -> MemberStatus:
        await trio.lowlevel.checkpoint()
        self.polls += 1
        self._identity.seen(URL, CLUSTER, trio.current_time())
        revision, term = self.etcd.revision, self.etcd.raft_term
        return MemberStatus(
            header=ResponseHeader(CLUSTER, MEMBER.id, revision, term),
            leader=MEMBER.id,
            raft_term=term,
            raft_index=revision,
            raft_applied_index=revision,
            version="3.5.0",
            db_size=0,
            is_learner=False,
            errors=(),
        )

    async def member_list(self, endpoint: str = "") -> MemberList:
        await trio.lowlevel.checkpoint()
        return MemberList((MEMBER,), self.etcd.raft_term)

    @asynccontextmanager
    async def attached(self, endpoint: str) -> AsyncGenerator[ModelConnection, None]:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        yield ModelConnection()

    async def metrics_text(self, endpoint: str) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    async def lease_grant(self, seconds: int) -> Lease:
        await trio.lowlevel.checkpoint()
        return Lease(str(next(self._leases)), seconds)

    async def lease_keepalive(self, lease: str) -> Lease:
        await trio.lowlevel.checkpoint()
        self.renewals += 1
        return Lease(lease, 10)

    async def lease_revoke(self, lease: str) -> None:
        await trio.lowlevel.checkpoint()
