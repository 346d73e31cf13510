"""Permits to stop a member, so that members are restarted one after the other. Pure.

Rules, for both backends:

1. At most one permit is out. It ends when it is given back, or by its time.
2. A permit is given only if a quorum of the voters is left without the member, by what the members answered after
   the asker knew that no permit was out.
3. Between that and the grant no other permit was given: `grants` counts them, and the grant names the count that
   the asker knew. Otherwise the members' answers could be from before another stop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from msgspec import UNSET, Struct

from heliosd.clock import rfc3339
from heliosd.errors import Conflict, NotFound
from heliosd.protocol.views.permits import PermitView
from heliosd.raft.quorum import majority

PERMIT_SECONDS = 600
LONGEST_SECONDS = 86_400
SHORTEST_SECONDS = 2


class Permit(Struct, frozen=True, kw_only=True):
    """`user` may stop `member` until `expires_at` (Unix seconds)."""

    id: str
    member: str
    member_name: str = ""
    user: str
    granted_at: float
    expires_at: float
    lease: str = ""
    """With etcd: the lease under which it is kept."""

    def view(self) -> PermitView:
        return PermitView(
            id=self.id,
            member=self.member,
            member_name=self.member_name or UNSET,
            user=self.user,
            granted_at=rfc3339(self.granted_at),
            expires_at=rfc3339(self.expires_at),
        )


class GrantPermit(Struct, frozen=True, tag_field="op", tag="grant_permit"):
    """Give it out, if none is out at `at` and `grants` permits were given so far."""

    permit: Permit
    grants: int
    at: float


class RenewPermit(Struct, frozen=True, tag_field="op", tag="renew_permit"):
    id: str
    expires_at: float
    at: float


class EndPermit(Struct, frozen=True, tag_field="op", tag="end_permit"):
    id: str
    at: float


PermitCommand = GrantPermit | RenewPermit | EndPermit


class PermitState(Struct, frozen=True):
    """How many permits were given so far, and the newest of them, unless it was given back."""

    grants: int = 0
    permit: Permit | None = None

    def current(self, at: float) -> Permit | None:
        """The permit that is out at this time (Unix seconds)."""
        return self.permit if self.permit is not None and self.permit.expires_at > at else None

    def after(self, command: PermitCommand) -> PermitState:
        """The state after a command. Raises `Conflict` or `NotFound` if it is refused."""
        current = self.current(command.at)
        match command:
            case GrantPermit():
                if current is not None:
                    raise Conflict(taken(current))
                if command.grants != self.grants:
                    raise Conflict(MEANWHILE)
                return PermitState(self.grants + 1, command.permit)
            case RenewPermit():
                found = held(current, command.id)
                renewed = msgspec.structs.replace(found, expires_at=command.expires_at)
                return PermitState(self.grants, renewed)
            case EndPermit():
                held(current, command.id)
                return PermitState(self.grants)


MEANWHILE = "Another permit was given meanwhile: ask again"


def taken(permit: Permit) -> str:
    """Why there is no permit while this one is out."""
    return (
        f"{permit.user} has the permit to stop {permit.member_name or permit.member}, "
        f"until {rfc3339(permit.expires_at)}"
    )


def held(current: Permit | None, permit_id: str) -> Permit:
    """The current permit, if it is this one. Raises `NotFound`."""
    if current is None or current.id != permit_id:
        raise NotFound("There is no such permit, or it has ended", field="id")
    return current


def check_quorum(member: str, voters: Mapping[str, str], alive: Collection[str]) -> None:
    """Raise `Conflict` if without `member` fewer voters than a quorum are left. `voters`: names by id; `alive`: the
    members that answered now."""
    left = [each for each in voters if each != member and each in alive]
    quorum = majority(len(voters))
    if len(left) >= quorum:
        return
    missing = ", ".join(sorted(name for each, name in voters.items() if each != member and each not in alive))
    away = f"; {missing} cannot be counted on" if missing else ""
    raise Conflict(
        f"Without {voters.get(member, member)} only {len(left)} of {len(voters)} voters would be left, "
        f"and {quorum} are needed{away}"
    )
