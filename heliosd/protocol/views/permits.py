"""The JSON shape of a permit to stop a member."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType


class PermitView(Struct, frozen=True, kw_only=True):
    """A permit as `/api/cluster/permits` shows it."""

    id: str
    member: str
    """The member's id."""
    member_name: str | UnsetType = UNSET
    """With etcd only."""
    user: str
    """Who asked for it."""
    granted_at: str
    """RFC 3339, as the next."""
    expires_at: str
