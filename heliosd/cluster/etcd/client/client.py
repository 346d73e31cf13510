"""A client of one etcd cluster: which member is asked, when another one is, and how long each call may take."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

import trio

from heliosd.config.model import EtcdConfig

from .calls import NEED_A_LEADER, EndpointCalls, Headers
from .cluster_check import ClusterCheck
from .endpoints import EndpointHealth, Endpoints
from .errors import EtcdError, EtcdRefused, EtcdUnavailable
from .failover import Failover
from .identity import ClusterIdentity
from .progress import RequestProgress
from .requests import (
    Compare,
    Op,
    lease_body,
    lease_grant_body,
    member_add_body,
    member_body,
    move_leader_body,
    range_body,
    txn_body,
    user_body,
    watch_body,
)
from .responses import (
    EtcdMember,
    Lease,
    MemberList,
    MemberStatus,
    RaftVars,
    RangeResult,
    TxnResult,
    read_lease,
    read_lease_line,
    read_member_added,
    read_member_list,
    read_members,
    read_range,
    read_roles,
    read_txn,
)
from .short_requests import HeldConnection
from .status_reader import StatusReader
from .streams import SnapshotStream, WatchStream, open_stream
from .transport import GatewayTransport

REQUEST_SECONDS = 1.8
"""For a whole request, at however many endpoints. Well below etcd's own 7 s."""
STATUS_SECONDS = 1.0
"""For one member's own status."""
MEMBER_SECONDS = 5.0
"""For changes of the members and of the leader, which wait for other members as well."""
MOVE_LEADER = "/maintenance/transfer-leadership"
T = TypeVar("T")


class EtcdClient:
    """One cluster, reached through any of its members. Open it with `async with`; many tasks may use it at once.

    A read goes to the next endpoint when one does not answer. A write goes to the next one only if it cannot have
    been done; if it was sent and not answered, `EtcdOutcomeUnknown` is raised and it is not repeated. All methods
    raise `EtcdUnavailable` and `EtcdRefused` with its subclasses, writes also `EtcdOutcomeUnknown`. Each method
    but `lists_the_same` has a deadline of its own, an open stream only at its beginning. The outcome of a write
    that the caller cancels is unknown. Member ids are hexadecimal text (else `ValueError`), lease ids decimal.
    """

    def __init__(
        self,
        config: EtcdConfig,
        rng: random.Random | None = None,
        identity: ClusterIdentity | None = None,
    ) -> None:
        """Without an `identity` any cluster is taken as it comes. `username` is "" where none is configured."""
        self.username = config.username
        self._endpoints = Endpoints(config.endpoints, rng or random.SystemRandom(), identity)
        self._check = ClusterCheck(identity, self._endpoints, self.status)
        self._failover = Failover(self._endpoints)
        self._transport = GatewayTransport(config)
        self._calls = EndpointCalls(config, self._transport, self._check.logins)
        self._statuses = StatusReader(self._at, self._page, config.prefix.encode())

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    # Endpoints.

    def endpoints(self) -> tuple[EndpointHealth, ...]:
        """All known endpoints, the configured ones first."""
        return self._endpoints.health()

    def urls(self) -> Collection[str]:
        """Of all known endpoints, the configured ones first."""
        return self._endpoints.urls()

    def learn(self, urls: Iterable[str]) -> None:
        """Set the members' client URLs; see `Endpoints.learn` for those that are ignored."""
        self._endpoints.learn(urls)

    def close(self, urls: Iterable[str]) -> None:
        """Ask exactly these endpoints nothing, until the next call."""
        self._endpoints.close(urls)

    def avoid(self, endpoint: str, reason: str) -> None:
        """Ask this endpoint last for a while: its member is silent, or behind the others."""
        self._endpoints.failed(self._endpoints.among(endpoint), trio.current_time(), reason)

    # Keys.

    async def range(
        self,
        key: bytes,
        end: bytes | None = None,
        *,
        limit: int = 0,
        revision: int = 0,
        serializable: bool = False,
    ) -> RangeResult:
        """The key, or the keys from it up to but not including `end`. Linearizable unless `serializable`. Raises
        `EtcdCompacted`."""
        body = range_body(key, end, limit=limit, revision=revision, serializable=serializable)
        return await self._read("/kv/range", body, read_range, () if serializable else NEED_A_LEADER)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()
    ) -> TxnResult:
        """`then` if all compares hold, else `otherwise`; all of it or nothing. A write, unless it only gets."""
        return await self._write("/kv/txn", txn_body(compares, then, otherwise), read_txn)

    @asynccontextmanager
    async def watch(
        self, key: bytes, end: bytes | None = None, start_revision: int = 0
    ) -> AsyncGenerator[WatchStream, None]:
        """All changes from `start_revision` on (0: from now), from one endpoint; read them inside the block.

        Entering waits until the watch is created. If the start is compacted, a batch has `compact_revision`.
        """
        body = watch_body(key, end, start_revision)
        async with AsyncExitStack() as stack:

            async def begin(endpoint: str, _: RequestProgress) -> WatchStream:
                await self._check.verify(endpoint)
                ask = (endpoint, "/watch", body, WatchStream, NEED_A_LEADER)
                return await open_stream(stack, self._calls, self._failover.failed, *ask)

            yield await self._failover.first_to_answer(begin, REQUEST_SECONDS)

    # Members.

    async def status(self, endpoint: str) -> MemberStatus:
        """The status of that member, also of a foreign one. Where etcd refuses it (see `status_reader`), it lacks
        version, size and errors; `status_refusals` shows that."""
        known = self._known(endpoint)
        status = await self._statuses.read(known)
        self._check.seen(known, status.header.cluster_id)
        return status

    def status_refusals(self) -> tuple[EtcdRefused, ...]:
        """The refusals of statuses, one for each endpoint that refuses its own now."""
        found = self._statuses.refusals()
        return tuple(found[url] for url in self._endpoints.urls() if url in found) if found else ()

    async def identify(self) -> None:
        """Return once it is known which cluster is ours. Raises `EtcdForeign`, or what all endpoints raise."""
        await self._check.identify()

    def successor(self) -> str:
        """The cluster that has taken the place of ours at every endpoint; "" if none has."""
        return self._check.successor()

    async def members(self, endpoint: str = "") -> tuple[EtcdMember, ...]:
        """The members as one member has applied them: that one, or any. etcd 3.4 asks no quorum for this."""
        return (await self.member_list(endpoint)).members

    async def member_list(self, endpoint: str = "") -> MemberList:
        """The same, with the term that the answer shows."""
        path = "/cluster/member/list"
        if endpoint:
            listed = await self._at(await self._verified(endpoint), path, b"{}", read_member_list)
        else:
            listed = await self._read(path, b"{}", read_member_list, ())
        self._statuses.learners = frozenset(each.id for each in listed.members if each.is_learner)
        return listed

    def lists_the_same(self, endpoint: str, last: MemberList) -> Awaitable[bool]:
        """Whether that member answers byte for byte so again, over an open connection. No deadline of its own."""
        return self._calls.answers_the_same(endpoint, "/cluster/member/list", b"{}", last.answer)

    async def raft_vars(self, endpoint: str) -> RaftVars:
        """What that member shows of its Raft state to anyone."""
        return await self._statuses.raft(await self._verified(endpoint))

    async def raft_members(self) -> dict[str, str]:
        """The members' ids, each with the endpoint that answers for it ("": none), where etcd refuses the list
        (3.4.42, 3.5.28 and 3.6.9 give it to the role root alone). Raises `EtcdNoLeader`."""
        verified = []
        for url in self._endpoints.order(trio.current_time()):
            with suppress(EtcdError):
                verified.append(await self._verified(url))
        return await self._statuses.raft_members(verified)

    async def member_add(self, peer_urls: Sequence[str], *, learner: bool = True) -> EtcdMember:
        """Needs the role root where authentication is on, as do the next two."""
        body = member_add_body(peer_urls, learner=learner)
        return await self._write("/cluster/member/add", body, read_member_added, MEMBER_SECONDS)

    async def member_remove(self, member_id: str) -> None:
        """Refused with code NOT_FOUND if there is no such member."""
        await self._write("/cluster/member/remove", member_body(member_id), read_members, MEMBER_SECONDS)

    async def member_promote(self, leader_endpoint: str, member_id: str) -> None:
        """Make a learner a voter. Raises `EtcdLearnerBehind`. Releases up to 3.5.27 need the leader to be asked."""
        await self._at_leader(leader_endpoint, "/cluster/member/promote", member_body(member_id))

    async def move_leader(self, leader_endpoint: str, target_id: str) -> None:
        """Returns when the target leads. Raises `EtcdNotLeader` if the endpoint is not the leader's."""
        await self._at_leader(leader_endpoint, MOVE_LEADER, move_leader_body(target_id))

    async def own_roles(self) -> tuple[str, ...]:
        """The roles of the configured user, which etcd shows to that user. Only where one is configured."""
        return await self._read("/auth/user/get", user_body(self.username), read_roles)

    # Leases.

    async def lease_grant(self, seconds: int) -> Lease:
        """A new lease. After an unknown outcome it ends by itself."""
        return await self._write("/lease/grant", lease_grant_body(seconds), read_lease)

    async def lease_keepalive(self, lease: str) -> Lease:
        """Renew it once. `seconds` 0: it has ended. Safe to repeat, so the outcome is never unknown."""
        return await self._read("/lease/keepalive", lease_body(lease), read_lease_line)

    async def lease_revoke(self, lease: str) -> None:
        """End it and delete its keys. Raises `EtcdLeaseGone`."""
        await self._write("/lease/revoke", lease_body(lease), lambda _: None)

    # One given member.

    async def metrics_text(self, endpoint: str) -> str:
        """That member's /metrics, in Prometheus' text format."""
        return (await self._page(endpoint, "/metrics", REQUEST_SECONDS)).decode(errors="replace")

    @asynccontextmanager
    async def attached(self, endpoint: str) -> AsyncGenerator[HeldConnection, None]:
        """That member's /metrics, over a connection that then stays open, with nothing under way, for the block.

        A member that ends closes connections of this kind first, so it is not kept from ending.
        """
        async with AsyncExitStack() as stack:

            async def begin(_: RequestProgress) -> HeldConnection:
                return await stack.enter_async_context(self._calls.held(known, "/metrics"))

            known = self._known(endpoint)
            yield await self._failover.within(known, REQUEST_SECONDS, begin)

    @asynccontextmanager
    async def snapshot(self, endpoint: str) -> AsyncGenerator[SnapshotStream, None]:
        """That member's database; read it inside the block. Needs the role root where authentication is on."""
        known = self._known(endpoint)
        async with AsyncExitStack() as stack:

            async def begin(_: RequestProgress) -> SnapshotStream:
                await self._check.verify(known)
                ask = (known, "/maintenance/snapshot", b"{}", SnapshotStream)
                return await open_stream(stack, self._calls, self._failover.failed, *ask)

            yield await self._failover.within(known, MEMBER_SECONDS, begin)

    def _known(self, endpoint: str) -> str:
        """The endpoint in its normal form. Others are refused: they would be sent the token."""
        known = self._endpoints.among(endpoint)
        if not known:
            raise EtcdUnavailable(endpoint, "it is neither a configured endpoint nor one that may be learned")
        return known

    async def _verified(self, endpoint: str) -> str:
        """The endpoint in its normal form, once it has shown that it belongs to our cluster."""
        known = self._known(endpoint)
        await self._check.identify()
        await self._check.verify(known)
        return known

    async def _at_leader(self, leader_endpoint: str, path: str, body: bytes) -> None:
        endpoint = self._known(leader_endpoint)

        async def ask(progress: RequestProgress) -> None:
            await self._check.verify(endpoint)
            await self._calls.call(endpoint, path, body, lambda _: None, progress, write=True)

        await self._failover.within(endpoint, MEMBER_SECONDS, ask, write=True)

    async def _page(self, endpoint: str, path: str, seconds: float = STATUS_SECONDS) -> bytes:
        """A plain page of that member."""
        known = self._known(endpoint)
        content = await self._failover.within(known, seconds, lambda _: self._calls.get(known, path))
        self._endpoints.alive(known, trio.current_time())
        return content

    async def _at(self, endpoint: str, path: str, body: bytes, read: Callable[[bytes], T]) -> T:
        """Ask that member without a login first: not every version of etcd wants one for it."""
        known = self._known(endpoint)

        async def ask(progress: RequestProgress) -> T:
            return await self._calls.call(
                known, path, body, read, progress, write=False, open_to_all=True, headers=()
            )

        answer = await self._failover.within(known, STATUS_SECONDS, ask)
        self._endpoints.alive(known, trio.current_time())
        return answer

    async def _read(
        self, path: str, body: bytes, read: Callable[[bytes], T], headers: Headers = NEED_A_LEADER
    ) -> T:
        async def ask(endpoint: str, progress: RequestProgress) -> T:
            await self._check.verify(endpoint)
            call = self._calls.call(endpoint, path, body, read, progress, write=False, headers=headers)
            return self._check.believed(endpoint, await call)

        await self._check.identify()
        return await self._failover.first_to_answer(ask, REQUEST_SECONDS)

    async def _write(
        self, path: str, body: bytes, read: Callable[[bytes], T], seconds: float = REQUEST_SECONDS
    ) -> T:
        async def ask(endpoint: str, progress: RequestProgress) -> T:
            await self._check.verify(endpoint)
            call = self._calls.call(endpoint, path, body, read, progress, write=True)
            return self._check.believed(endpoint, await call)

        await self._check.identify()
        return await self._failover.first_to_answer(ask, seconds, write=True)
