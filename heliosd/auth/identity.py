"""Who makes a request: what is kept of an accepted token."""

from __future__ import annotations

from msgspec import Struct

from heliosd.config import permissions


class TokenOrigin(Struct, frozen=True, kw_only=True):
    """What a token was accepted for, to check later whether it still would be."""

    issuer: str
    audience: str
    key: str
    """The name of our key that signed it, or the outside issuer's `kid`."""
    password: str
    """The mark of the user's password hash; "" for a token of the outside issuer."""
    jwks_url: str = ""
    """Where the outside issuer's key was found; "" for a token of ours."""
    login_at: float = 0.0
    """When the user logged in (Unix seconds), in a token of ours."""


class Identity(Struct, frozen=True, kw_only=True):
    """A user with the rights that held when this was made, until `expires_at`. Times are Unix seconds."""

    user_id: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    jti: str
    issued_at: float
    expires_at: float
    token_origin: TokenOrigin

    def __repr__(self) -> str:
        """Without the marks of the key and the password."""
        return f"Identity({self.user_id!r}, roles={self.roles!r}, jti={self.jti!r}, expires_at={self.expires_at!r})"

    def may(self, permission: str) -> bool:
        """Whether this user has that permission (or `admin:*`)."""
        return permissions.may(self.permissions, permission)

    @property
    def account(self) -> str:
        """Names the user for as long as anything is kept of what was done: the same name of the outside issuer is
        another user."""
        issuer = self.token_origin.issuer if self.token_origin.jwks_url else ""
        return f"{issuer}\n{self.user_id}" if issuer else self.user_id

    @property
    def user(self) -> tuple[str, str]:
        """The name and its issuer: the same name from two issuers is two users."""
        return self.user_id, self.token_origin.issuer


class Issued(Struct, frozen=True):
    """A new token and its owner. The repr leaves the token out."""

    token: str
    identity: Identity

    def __repr__(self) -> str:
        return f"Issued({self.identity!r})"
