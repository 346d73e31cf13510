"""Permits to stop a simulated member: commands of the replicated log."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

from heliosd.clock import Instant
from heliosd.cluster.permits import (
    EndPermit,
    GrantPermit,
    Permit,
    PermitCommand,
    PermitState,
    RenewPermit,
    check_quorum,
    held,
    taken,
)
from heliosd.errors import Conflict, NoLeader, NotFound, OutcomeUnknown, RequestRefused, StoreFull
from heliosd.raft.simulation.cluster import SimulatedCluster

from .state_machine import MetricStateMachine

AGAIN_SECONDS = 0.05
"""Between two looks whether a permit of unknown outcome has come to be; each next one a half longer."""
LONGEST_PAUSE_SECONDS = 1.0


class SimulatedPermits:
    """Decides on the members as they are now, and has the log decide on everything else. `write` proposes a
    command; it raises as `Backend` says."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        node: str,
        write: Callable[[bytes], Awaitable[object]],
        now: Callable[[], Instant],
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._write = write
        self._now = now
        self._unclaimed: dict[str, float] = {}
        """Permits of which no asker knows, each with its end, in Unix seconds. They may come to be."""
        self._some_unclaimed = trio.Event()

    async def run(self) -> None:
        """Until cancelled: give back permits of which no asker knows. Till its end nobody else would get one."""
        while True:
            await self._some_unclaimed.wait()
            self._some_unclaimed = trio.Event()
            pause = AGAIN_SECONDS
            while self._unclaimed and not self._some_unclaimed.is_set():
                await self._give_back()
                await trio.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)

    async def _give_back(self) -> None:
        at = self._now().wall
        self._unclaimed = {each: end for each, end in self._unclaimed.items() if end > at}
        current = self._state().current(at)
        if current is not None and current.id in self._unclaimed:
            with suppress(RequestRefused, StoreFull):  # as without a leader; then once more
                await self._propose(EndPermit(current.id, at))

    async def current(self) -> Permit | None:
        return self._state().current(self._now().wall)

    async def grant(self, member: str, user: str, seconds: float) -> Permit:
        state, at = self._state(), self._now().wall
        current = state.current(at)
        if current is not None:
            raise Conflict(taken(current))
        self._check(member)
        permit = Permit(
            id=secrets.token_hex(8), member=member, user=user, granted_at=at, expires_at=at + seconds
        )
        try:
            await self._propose(GrantPermit(permit, state.grants, at))
        except (OutcomeUnknown, trio.Cancelled):
            self._unclaimed[permit.id] = permit.expires_at
            self._some_unclaimed.set()
            raise
        return permit

    async def renew(self, permit_id: str, seconds: float) -> Permit:
        at = self._now().wall
        await self._propose(RenewPermit(permit_id, at + seconds, at))
        return held(self._state().current(at), permit_id)

    async def end(self, permit_id: str) -> Permit:
        at = self._now().wall
        found = held(self._state().current(at), permit_id)
        await self._propose(EndPermit(permit_id, at))
        return found

    def _check(self, member: str) -> None:
        own = self._cluster.members[self._node]
        members = own.raft.log.members
        if member not in members.all:
            raise NotFound("Unknown peer", field="member")
        leader = own.raft.leader if own.running else ""
        if not leader:
            raise NoLeader
        alive = {name for name in members.voters if self._answers(name, leader)}
        check_quorum(member, {name: name for name in members.voters}, alive if leader in alive else set())

    def _answers(self, name: str, leader: str) -> bool:
        """Whether the member runs, and the leader and it reach each other."""
        member, net = self._cluster.members.get(name), self._cluster.net
        links = {(name, leader), (leader, name)}
        return (
            member is not None and member.running and net.connected(leader, name) and not links & net.blocked
        )

    def _state(self) -> PermitState:
        machine = self._cluster.members[self._node].visible_machine
        assert isinstance(machine, MetricStateMachine)
        return machine.permits

    async def _propose(self, command: PermitCommand) -> None:
        await self._write(msgspec.json.encode(command))
