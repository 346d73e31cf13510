"""Who is asking: what remains of a token once it has been accepted."""

from __future__ import annotations

from dataclasses import dataclass

from . import rbac


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user with the rights that held when this was made, until `expires_at`. Times are Unix seconds."""

    user_id: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    jti: str
    issued_at: float
    expires_at: float

    def may(self, permission: str) -> bool:
        """Whether this user has that permission (or `admin:*`)."""
        return rbac.may(self.permissions, permission)


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token and whom it stands for. The repr leaves the token out."""

    token: str
    identity: Identity

    def __repr__(self) -> str:
        return f"Issued({self.identity!r})"
