"""What a role may do: a right is a name, a role a set of names, and nobody has a right that no role gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

WATCH = "cluster:watch"
READ = "cluster:read"
WRITE = "cluster:write"
ADMIN = "cluster:admin"
EVERYTHING = "admin:*"

PERMISSIONS: frozenset[str] = frozenset({WATCH, READ, WRITE, ADMIN, EVERYTHING})
"""All there are. `admin:*` contains the others; otherwise none contains another."""


def permissions_of(roles: Iterable[str], table: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Every permission that these roles give together. A role that `table` does not know gives none."""
    return frozenset().union(*(table.get(role, frozenset()) for role in roles))


def may(permissions: frozenset[str], needed: str) -> bool:
    """Whether these permissions suffice for `needed`."""
    return needed in permissions or EVERYTHING in permissions
