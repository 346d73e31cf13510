"""Permits to stop a member of etcd: one key under a lease, written in one transaction.

    permit      the permit that is out                        (lease)
    permitted   rewritten with every permit that is given

A permit is given in this order: both keys are read, with a quorum; every member is asked for its status; one
transaction writes both keys if there is still no permit, and `permitted` is as it was read. So no permit was out at
any time since before the members were asked.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from math import ceil

import msgspec
import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdLeaseGone, EtcdOutcomeUnknown
from heliosd.cluster.etcd.client.requests import absent, delete, mod_is, put
from heliosd.cluster.etcd.client.responses import EtcdMember, KeyValue, MemberStatus
from heliosd.cluster.permits import MEANWHILE, Permit, check_quorum, held, taken
from heliosd.errors import BAD_JSON, Conflict, NoLeader, NotFound, OutcomeUnknown

from .admin import MemberAdmin, as_request_refused
from .context import EtcdContext
from .leases import take_back
from .members import find
from .poller import Poller

_decode = msgspec.json.Decoder(Permit).decode


class EtcdPermits:
    """Raises `NoLeader`, `OutcomeUnknown`, `Conflict` and `NotFound`, as `Backend` says."""

    def __init__(self, context: EtcdContext, admin: MemberAdmin, poller: Poller) -> None:
        self._etcd = context
        self._admin = admin
        self._poller = poller

    async def current(self) -> Permit | None:
        return (await self._read())[0]

    async def grant(self, member: str, user: str, seconds: float) -> Permit:
        current, _, given_at = await self._read()
        if current is not None:
            raise Conflict(taken(current))
        members = await self._admin.members()
        wanted = find(members, member, field="member")
        voters = {each.id: each.name or each.id for each in members if not each.is_learner}
        check_quorum(wanted.id, voters, await self._alive(members))
        at, lease = await self._lease(seconds)
        permit = Permit(
            id=secrets.token_hex(8),
            member=wanted.id,
            member_name=wanted.name,
            user=user,
            granted_at=at,
            expires_at=at + seconds,
            lease=lease,
        )
        layout = self._etcd.layout
        try:
            done = await self._etcd.client.txn(
                [absent(layout.permit), mod_is(layout.permitted, given_at)],
                [
                    put(layout.permit, msgspec.json.encode(permit), lease),
                    put(layout.permitted, permit.id.encode()),
                ],
            )
        except EtcdError as error:
            await take_back(self._etcd.client, lease)
            raise as_request_refused(error) from error
        except trio.Cancelled:
            await take_back(self._etcd.client, lease)
            raise
        if not done.succeeded:
            await take_back(self._etcd.client, lease)
            raise Conflict(MEANWHILE)
        return permit

    async def renew(self, permit_id: str, seconds: float) -> Permit:
        current, written_at, _ = await self._read()
        permit = held(current, permit_id)
        at, lease = await self._lease(seconds)
        renewed = msgspec.structs.replace(permit, expires_at=at + seconds, lease=lease)
        key = self._etcd.layout.permit
        try:
            done = await self._etcd.client.txn(
                [mod_is(key, written_at)], [put(key, msgspec.json.encode(renewed), lease)]
            )
        except EtcdLeaseGone:
            raise OutcomeUnknown from None
        except EtcdOutcomeUnknown:
            raise OutcomeUnknown from None
        except EtcdError as error:
            await take_back(self._etcd.client, lease)
            raise as_request_refused(error) from error
        if not done.succeeded:
            await take_back(self._etcd.client, lease)
            raise NotFound("There is no such permit, or it has ended", field="id")
        # The key belongs to the new lease now.
        await take_back(self._etcd.client, permit.lease)
        return renewed

    async def end(self, permit_id: str) -> Permit:
        current, written_at, _ = await self._read()
        permit = held(current, permit_id)
        key = self._etcd.layout.permit
        try:
            done = await self._etcd.client.txn([mod_is(key, written_at)], [delete(key)])
        except EtcdError as error:
            raise as_request_refused(error) from error
        if not done.succeeded:
            raise Conflict(MEANWHILE)
        await take_back(self._etcd.client, permit.lease)
        return permit

    async def _read(self) -> tuple[Permit | None, int, int]:
        """The permit that is out, the revision of its key, and that of `permitted`; 0: there is none. Seen by a
        quorum."""
        layout = self._etcd.layout
        try:
            found = await self._etcd.client.range(layout.permit, layout.permitted + b"\0")
        except EtcdError as error:
            raise NoLeader from error
        by_key: dict[bytes, KeyValue] = {each.key: each for each in found.kvs}
        permit, given = by_key.get(layout.permit), by_key.get(layout.permitted)
        given_at = given.mod_revision if given is not None else 0
        if permit is None:
            return None, 0, given_at
        try:
            return _decode(permit.value), permit.mod_revision, given_at
        except BAD_JSON:
            name = layout.permit.decode()
            raise Conflict(
                f"The value of {name} in etcd is not in heliosd's format: delete the key"
            ) from None

    async def _alive(self, members: tuple[EtcdMember, ...]) -> set[str]:
        """The members that answer now and follow the leader that most of them name."""
        answers: dict[str, MemberStatus] = {}

        async def ask(member: EtcdMember) -> None:
            url = self._poller.url_of(member)
            if url:
                with suppress(EtcdError):
                    status = await self._etcd.client.status(url)
                    if status.header.cluster_id == self._etcd.view.cluster_id:
                        answers[status.header.member_id] = status

        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(ask, member)
        followed = [(each.leader, each.raft_term) for each in answers.values() if each.leader]
        if not followed:
            raise NoLeader
        leader = max(set(followed), key=followed.count)
        if leader[0] not in answers:
            raise NoLeader("The leader does not answer")
        return {member for member, each in answers.items() if (each.leader, each.raft_term) == leader}

    async def _lease(self, seconds: float) -> tuple[float, str]:
        """A lease that does not end before `seconds` from the wall time that is returned with it."""
        at = self._etcd.now().wall
        try:
            return at, (await self._etcd.client.lease_grant(max(1, ceil(seconds)))).id
        except EtcdError as error:
            raise as_request_refused(error) from error
