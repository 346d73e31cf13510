"""Changes of etcd's members and leader that operators request through heliosd."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio

from heliosd.cluster.backend import Peer
from heliosd.cluster.etcd.client.errors import (
    NOT_FOUND,
    EtcdError,
    EtcdLeaseGone,
    EtcdLoginRefused,
    EtcdNoSpace,
    EtcdNotLeader,
    EtcdOutcomeUnknown,
    EtcdRefused,
    EtcdUnavailable,
)
from heliosd.cluster.etcd.client.requests import put
from heliosd.cluster.etcd.client.responses import EtcdMember
from heliosd.errors import Conflict, NoLeader, NotFound, OutcomeUnknown, RequestRefused

from .context import EtcdContext
from .leases import take_back
from .members import address_of, find, kind_of, peers_at
from .mirror import PendingLearner
from .poller import Poller
from .watcher import Watcher

LEADER_PATIENCE = 1.2
"""Seconds that a request waits for a leader."""
SHOWN_SECONDS = 2.0
"""How long to wait until a change is shown here; it is answered after that in any case."""
LOOK_SECONDS = 0.02
LEAVING_SECONDS = 15
"""How long a member that is about to be removed is announced."""
SILENCE_SECONDS = 0.3
"""For the other heliosd to hear the announcement and to end their polls of the member."""


class MemberAdmin:
    """Raises `NoLeader` also for refusals that pass, such as for want of space, `OutcomeUnknown`, and `NotFound` or
    `Conflict` in etcd's own words where it refuses for good."""

    def __init__(self, context: EtcdContext, watcher: Watcher, poller: Poller) -> None:
        self._etcd = context
        self._watcher = watcher
        self._poller = poller

    async def add_peer(self, peer: Peer, *, again: bool = False) -> Peer:
        """Add a learner at this peer address, with the others' scheme. It is promoted once it is in sync.

        `again`: an earlier attempt may have added it, so a member at this address is returned as it is.
        """
        members = await self.members()
        standing = next((each for each in members if peers_at(each, peer.address)), None)
        if standing is not None and again:
            return Peer(standing.id, address_of(standing), kind_of(standing))
        if any(peer.id in (each.id, each.name) for each in members):
            raise Conflict(f"Peer already exists: {peer.id}", field="id")
        if standing is not None:
            raise Conflict("A member with this address exists", field="address")
        scheme = next((url.partition("://")[0] for each in members for url in each.peer_urls), "http")
        key = self._etcd.layout.learner(peer.address)
        learner = msgspec.json.encode(PendingLearner(address=peer.address))
        try:
            # First what is to become of it: once it is added nothing can fail, and it is promoted though the answer
            # is lost. If it is not added, the observer deletes the key.
            await self._etcd.client.txn([], [put(key, learner)], [])
            added = await self._etcd.client.member_add([f"{scheme}://{peer.address}"], learner=True)
        except EtcdError as error:
            raise as_request_refused(error) from error
        await self._shown(lambda: any(each.id == added.id for each in self._shown_members()))
        return Peer(added.id, address_of(added), kind_of(added))

    async def remove_peer(self, peer_id: str) -> Peer:
        """Remove the member with this id or name."""
        members = await self.members()
        member = find(members, peer_id)
        own = self._etcd.view.own
        if own is not None and member.id == own.id:
            raise Conflict("This node cannot be removed from its own cluster", field="id")
        if member.id == self._etcd.view.leader:
            # So the cluster has a leader all the time. If it cannot be handed over, it is removed as it is.
            with suppress(RequestRefused):
                await self.transfer_leadership(None)
        lease = await self._announce(member)
        try:
            await self._etcd.client.member_remove(member.id)
        except EtcdOutcomeUnknown:
            raise OutcomeUnknown from None
        except EtcdError as error:
            await self._withdraw(lease, member)
            if isinstance(error, EtcdRefused) and error.code == NOT_FOUND:
                raise NotFound("Unknown peer", field="id") from None
            raise as_request_refused(error, field="id") from error
        await self._shown(lambda: all(each.id != member.id for each in self._shown_members()))
        return Peer(member.id, address_of(member), kind_of(member))

    async def _announce(self, member: EtcdMember) -> str:
        """Have every heliosd leave a member alone from before its removal: it then ends with 0 (3.4.23, 3.5.1).

        Returns the lease of the announcement, which outlasts the removal.
        """
        lease = ""
        try:
            lease = (await self._etcd.client.lease_grant(LEAVING_SECONDS)).id
            await self._etcd.client.txn([], [put(self._etcd.layout.leaving(member.id), b"", lease)], [])
            with trio.move_on_after(SHOWN_SECONDS):
                await self._watcher.changed(lambda: member.id in self._etcd.mirror.leaving)
                await self._poller.silence(member.id)
                await trio.sleep(SILENCE_SECONDS)
        except EtcdError as error:
            await take_back(self._etcd.client, lease)
            raise as_request_refused(error) from error
        except trio.Cancelled:
            # It is not removed, so nobody is to leave it alone.
            await take_back(self._etcd.client, lease)
            raise
        return lease

    async def _withdraw(self, lease: str, member: EtcdMember) -> None:
        with suppress(EtcdError), trio.move_on_after(SHOWN_SECONDS):
            await self._etcd.client.lease_revoke(lease)
            await self._watcher.changed(lambda: member.id not in self._etcd.mirror.leaving)

    async def transfer_leadership(self, target: str | None) -> str:
        """Move the leader to the member with this id or name; None: to the most advanced other voter."""
        await self._wait_for_leader()
        view = self._etcd.view
        leader = find(view.members, view.leader)
        if target is None:
            wanted = self._most_advanced(leader)
        else:
            wanted = find(view.members, target, field="target")
            if wanted.is_learner:
                raise Conflict("A learner cannot lead", field="target")
        if wanted.id != leader.id:
            url = self._poller.url_of(leader)
            if not url:
                raise NoLeader("The leader cannot be reached from here")
            try:
                await self._etcd.client.move_leader(url, wanted.id)
            except EtcdNotLeader:
                raise NoLeader("The leader has just changed") from None
            except EtcdError as error:
                raise as_request_refused(error) from error
            self._poller.poll_all_now()
            with trio.move_on_after(SHOWN_SECONDS):
                while view.leader != wanted.id:  # noqa: ASYNC110 (the view signals nothing)
                    await trio.sleep(LOOK_SECONDS)
        if view.leader != wanted.id:
            raise OutcomeUnknown
        return wanted.id

    def _most_advanced(self, leader: EtcdMember) -> EtcdMember:
        def applied(member: EtcdMember) -> int:
            status = self._etcd.view.last_status(member.id)
            return status.raft_applied_index if status is not None else -1

        failed = self._etcd.view.failures()
        others = [
            each
            for each in self._etcd.view.members
            if each.id != leader.id and not each.is_learner and each.id not in failed
        ]
        if not others:
            raise Conflict("There is no other voter to hand leadership to")
        return max(others, key=applied)

    async def members(self) -> tuple[EtcdMember, ...]:
        """The members as the leader knows them now."""
        await self._wait_for_leader()
        leader = next((each for each in self._etcd.view.members if each.id == self._etcd.view.leader), None)
        try:
            return await self._etcd.client.members(self._poller.url_of(leader) if leader is not None else "")
        except EtcdError as error:
            raise as_request_refused(error) from error

    async def _wait_for_leader(self) -> None:
        with trio.move_on_after(LEADER_PATIENCE):
            while not self._etcd.view.leader:  # noqa: ASYNC110 (the view signals nothing)
                await trio.sleep(LOOK_SECONDS)
        if not self._etcd.view.leader:
            raise NoLeader

    def _shown_members(self) -> tuple[EtcdMember, ...]:
        return self._etcd.view.members

    async def _shown(self, holds: Callable[[], bool]) -> None:
        """Wait until this node shows the change and the log has it."""
        with trio.move_on_after(SHOWN_SECONDS):
            while not holds():
                self._poller.poll_all_now()
                await trio.sleep(LOOK_SECONDS * 5)
            wanted = self._etcd.view.known_members
            await self._watcher.changed(
                lambda: (
                    self._etcd.mirror.members.record is not None
                    and self._etcd.mirror.members.record.members == wanted
                )
            )


def as_request_refused(error: EtcdError, *, field: str | None = None) -> NoLeader | OutcomeUnknown | Conflict:
    """What an error of etcd means for the request that met it; `field` is what etcd refuses for good.

    A refusal that passes is `NoLeader`: it must not be kept as the final answer to a request that is repeated.
    """
    match error:
        case EtcdOutcomeUnknown():
            return OutcomeUnknown()
        case EtcdUnavailable() if "unhealthy cluster" in error.reason:
            # etcd refuses changes of members for five seconds after a member was away.
            return NoLeader("etcd refuses while not all members have been there for 5 s: try again")
        case EtcdUnavailable():
            return NoLeader()
        case EtcdNoSpace() | EtcdLoginRefused() | EtcdLeaseGone():
            return NoLeader(f"etcd refuses: {error.reason}")
        case _:
            return Conflict(error.reason, field=field)
