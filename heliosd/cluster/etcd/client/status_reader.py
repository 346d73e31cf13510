"""The status of one member; where etcd refuses it, what is known from a page that etcd serves to everybody.

With authentication on, etcd 3.4.42-45, 3.5.28-31 and 3.6.0-11 answer `/maintenance/status` only to the role root;
later ones to every user. `/debug/vars` is a page that etcd 3.4 to 3.7 serves to everybody: its `raft.status` has
the member's id, term, leader and indices. The cluster's id and the store's revision come from the header of any
answer that the user does get. Such a status has no version, no size and no errors.

While a member defragments its database it answers no status (seen with etcd 3.4.23, 3.5.35 and 3.6.16). Raft goes
on meanwhile, and `/debug/vars` shows it: that is then put into the last status.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol, TypeVar

import trio
from msgspec.structs import replace

from .errors import EtcdDenied, EtcdError, EtcdLoginRefused, EtcdNoLeader, EtcdRefused, EtcdUnavailable
from .requests import range_body
from .responses import (
    MemberStatus,
    NotEtcd,
    RaftVars,
    ResponseHeader,
    read_header,
    read_raft_vars,
    read_status,
)

AGAIN_SECONDS = 3.0
"""After so long, one status that was refused is asked for again."""
HELD_UP_SECONDS = 0.5
"""A status that has not come after so long may be held up by its member's database alone."""

T = TypeVar("T")


class AskMember(Protocol):
    """One call to one member, without a repetition elsewhere."""

    async def __call__(self, endpoint: str, path: str, body: bytes, read: Callable[[bytes], T], /) -> T: ...


class StatusReader:
    """Reads statuses; remembers where they are refused, and each endpoint's last one.

    `prefix` is a key that the user may read.
    """

    def __init__(self, ask: AskMember, page: Callable[[str, str], Awaitable[bytes]], prefix: bytes) -> None:
        self._ask = ask
        self._page = page
        self._prefix = prefix
        self._refused: dict[str, EtcdRefused] = {}
        """Endpoint that refuses its status -> how."""
        self._ask_again = float("-inf")
        self._last: dict[str, MemberStatus] = {}
        """Endpoint -> its last status that was not held up."""
        self.learners: frozenset[str] = frozenset()
        """Ids of the learners in the newest list of members: `/debug/vars` shows learners and voters alike."""

    async def read(self, endpoint: str) -> MemberStatus:
        """The status of the member at this endpoint. Raises `EtcdUnavailable`, and `EtcdRefused` where the refused
        status cannot be replaced."""
        refused = self._refused.get(endpoint)
        if refused is None or trio.current_time() >= self._ask_again:
            if refused is not None:
                self._ask_again = trio.current_time() + AGAIN_SECONDS
            try:
                status = await self._own(endpoint, self._last.get(endpoint) if refused is None else None)
            except (EtcdDenied, EtcdLoginRefused) as error:
                if refused is None:
                    self._ask_again = trio.current_time() + AGAIN_SECONDS
                refused = self._refused[endpoint] = error
            except EtcdUnavailable:
                self._refused.pop(endpoint, None)
                raise
            else:
                if refused is not None:
                    self._refused.clear()  # the others probably give theirs, too
                if not status.held_up:
                    self._last[endpoint] = status
                return status
        return await self._without_right(endpoint, refused)

    def refusals(self) -> dict[str, EtcdRefused]:
        """The endpoints that refuse their status, each with its refusal."""
        return dict(self._refused)

    async def raft(self, endpoint: str) -> RaftVars:
        """What the member at this endpoint shows of its Raft state to anyone. Raises `EtcdUnavailable`."""
        try:
            return read_raft_vars(await self._page(endpoint, "/debug/vars"))
        except NotEtcd as error:
            raise EtcdUnavailable(endpoint, str(error)) from None

    async def _own(self, endpoint: str, last: MemberStatus | None) -> MemberStatus:
        """The status that the member gives, or the last one with what Raft says now if that comes first."""
        if last is None:
            return await self._ask(endpoint, "/maintenance/status", b"{}", read_status)
        found: MemberStatus | EtcdError | None = None

        async def ask() -> None:
            nonlocal found
            try:
                found = await self._ask(endpoint, "/maintenance/status", b"{}", read_status)
            except EtcdError as error:
                found = error
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(HELD_UP_SECONDS)
            with suppress(EtcdUnavailable):
                raft = await self.raft(endpoint)
                if raft.member_id == last.header.member_id:
                    found = _held_up(last, raft)
                    nursery.cancel_scope.cancel()
        assert found is not None
        if isinstance(found, MemberStatus):
            return found
        try:
            raise found
        finally:
            # The error has this frame: if the frame had the error, too, only the garbage collector could free them.
            found = None

    async def raft_members(self, endpoints: Iterable[str]) -> dict[str, str]:
        """The members' ids as a leader among these endpoints shows them to anyone, each with the endpoint that
        answers for it ("": none does). Raises `EtcdNoLeader` if none of them leads."""
        found: dict[str, RaftVars] = {}

        async def ask(endpoint: str) -> None:
            with suppress(EtcdUnavailable):
                found[endpoint] = await self.raft(endpoint)

        async with trio.open_nursery() as nursery:
            for endpoint in endpoints:
                nursery.start_soon(ask, endpoint)
        leading = [raft for raft in found.values() if raft.leader == raft.member_id]
        if not leading:
            raise EtcdNoLeader("", "no endpoint of etcd shows that it leads")
        urls = {raft.member_id: endpoint for endpoint, raft in found.items()}
        ids = max(leading, key=lambda raft: raft.term).members
        return {member_id: urls.get(member_id, "") for member_id in ids}

    async def _without_right(self, endpoint: str, refused: EtcdRefused) -> MemberStatus:
        raft = await self.raft(endpoint)
        header = await self._header(endpoint, raft)
        if header is None:
            raise refused
        status = raft_status(raft, header, is_learner=raft.member_id in self.learners)
        self._last[endpoint] = status
        return status

    async def _header(self, endpoint: str, raft: RaftVars) -> ResponseHeader | None:
        """A header of this member: the last one if it has applied nothing since, else that of a read or of a list
        of members, or without both the last one nevertheless."""
        last = self._last.get(endpoint)
        if last is not None and last.header.member_id != raft.member_id:
            last = None
        known = last.header if last is not None else None
        if last is not None and (last.raft_term, last.raft_applied_index) == (raft.term, raft.applied):
            return known
        read = range_body(self._prefix, limit=1, serializable=True)
        for path, body in (("/kv/range", read), ("/cluster/member/list", b"{}")):
            try:
                header = await self._ask(endpoint, path, body, read_header)
            except EtcdRefused:
                continue
            if header.member_id == raft.member_id:
                # A list of members has no revision.
                revision = header.revision or (known.revision if known is not None else 0)
                return replace(header, revision=revision)
        return known


def _held_up(last: MemberStatus, raft: RaftVars) -> MemberStatus:
    return replace(
        last,
        header=replace(last.header, raft_term=raft.term),
        leader=raft.leader,
        raft_index=raft.committed,
        raft_term=raft.term,
        raft_applied_index=raft.applied,
        held_up=True,
    )


def raft_status(raft: RaftVars, header: ResponseHeader, *, is_learner: bool) -> MemberStatus:
    """A status from these two. Pure."""
    return MemberStatus(
        header=replace(header, raft_term=raft.term),
        version="",
        db_size=0,
        leader=raft.leader,
        raft_index=raft.committed,
        raft_term=raft.term,
        raft_applied_index=raft.applied,
        is_learner=is_learner,
        errors=(),
    )
