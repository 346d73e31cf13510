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


def permissions_of(roles: Iterable[str], table: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The permissions that these roles give together. A role that is not in `table` gives none."""
    return frozenset().union(*(table.get(role, frozenset()) for role in roles))


def may(permissions: frozenset[str], needed: str) -> bool:
    """Whether these permissions include `needed`."""
    return needed in permissions or EVERYTHING in permissions
