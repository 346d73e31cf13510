"""Permissions: a permission is a name, a role a set of names; a user has the permissions of its roles only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WATCH = "cluster:watch"
READ = "cluster:read"
WRITE = "cluster:write"
ADMIN = "cluster:admin"
EVERYTHING = "admin:*"

PERMISSIONS: frozenset[str] = frozenset({WATCH, READ, WRITE, ADMIN, EVERYTHING})
"""All permissions. `admin:*` contains the others; no other contains another."""

_NONE: frozenset[str] = frozenset()


def permissions_of(roles: Iterable[str], table: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The permissions that these roles give together. A role that is not in `table` gives none."""
    granted = [table.get(role, _NONE) for role in roles]
    # One set for all who have that role: thousands of clients do.
    return granted[0] if len(granted) == 1 else _NONE.union(*granted)


def may(permissions: frozenset[str], needed: str) -> bool:
    """Whether these permissions include `needed`."""
    return needed in permissions or EVERYTHING in permissions
