"""Who may come in: tokens and passwords against the configuration in force.

For our own tokens the present configuration decides: the user must still be there, and has the roles that the
file gives now, whatever the token says. So every question reads `settings.current` anew.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import Settings, UserConfig
from ..durable import TokenRevoked
from ..errors import Forbidden, Unauthenticated
from . import passwords, rbac, tokens
from .identity import Identity, Issued
from .tokens import Claims, SigningKey

__all__ = ["Access", "Identity", "Issued"]

_REVOKED_KEPT = 1024
_EXPIRED_KEPT = 4096


class Access:
    """Answers who a token stands for and whether a password is right. Wall times are Unix seconds.

    `revoked` (`jti` -> expiry) is used as it is handed in and changed in place. `admin` is the user made by
    the first start; it counts only while the configuration has no users. Both may be replaced at any time.
    """

    def __init__(
        self,
        settings: Settings,
        key: SigningKey,
        revoked: dict[str, float],
        admin: UserConfig | None = None,
    ) -> None:
        self._settings = settings
        self._key = key
        self.revoked = revoked
        self.admin = admin
        self._expired: dict[str, None] = {}

    def user(self, name: str) -> UserConfig | None:
        """The user of that name as configured now."""
        return next((user for user in self._users() if user.name == name), None)

    def identify(self, token: str, now: float) -> Identity:
        """Whom `token` stands for, with the rights of this moment. Raises `Unauthenticated`."""
        claims = self._verified(token, now)
        user = self.user(claims.subject)
        if user is None:
            raise Unauthenticated("Invalid token")
        return self._identity(user, claims)

    def refreshed(self, identity: Identity, now: float, needed: str = rbac.WATCH) -> Identity:
        """The same identity with the rights of this moment: for a connection that stays open.

        Raises `Unauthenticated` once the token has expired or was revoked, and `Forbidden` once the user is
        gone or lacks `needed`.
        """
        if identity.expires_at <= now or identity.jti in self.revoked:
            raise Unauthenticated("Invalid token")
        user = self.user(identity.user_id)
        if user is None:
            raise Forbidden(needed)
        renewed = replace(identity, roles=user.roles, permissions=self._permissions(user))
        if not renewed.may(needed):
            raise Forbidden(needed)
        return renewed

    def issue(self, user_id: str, now: float, ttl: float | None = None) -> Issued:
        """A new token for a configured user, for `ttl` seconds (None: `auth.token_ttl`).

        Raises `Unauthenticated` if there is no such user (any more).
        """
        user = self.user(user_id)
        if user is None:
            raise Unauthenticated("Invalid credentials")
        auth = self._settings.current.auth
        token, claims = tokens.issue(
            self._key,
            issuer=auth.issuer,
            subject=user.name,
            roles=user.roles,
            now=now,
            ttl=auth.token_ttl if ttl is None else ttl,
            audience=auth.audience,
        )
        return Issued(token, self._identity(user, claims))

    def check_password(self, name: str, password: str) -> bool:
        """Whether this user has this password. Some 20 ms of CPU: call it in a thread.

        An unknown name costs one hash with the parameters of the first user, so that the time tells nothing.
        """
        users = self._users()
        user = next((user for user in users if user.name == name), None)
        stand_in = users[0].password_hash if users else passwords.DECOY
        right = passwords.verify(stand_in if user is None else user.password_hash, password)
        return right and user is not None

    def revoke(self, jti: str, expires_at: float, now: float) -> TokenRevoked:
        """From now on the token with this `jti` does not hold. The caller saves the change that is returned."""
        if len(self.revoked) >= _REVOKED_KEPT:
            # Not sooner: a wall clock that leaps ahead and back would bring revoked tokens to life again.
            for old in [old for old, expiry in self.revoked.items() if expiry <= now]:
                del self.revoked[old]
        self.revoked[jti] = expires_at
        return TokenRevoked(jti, expires_at)

    def _verified(self, token: str, now: float) -> Claims:
        auth = self._settings.current.auth
        try:
            claims = tokens.verify(token, self._key, issuer=auth.issuer, now=now, audience=auth.audience)
        except tokens.Expired as expired:
            # Remembered, so that a clock set back does not bring it to life again.
            self._expired[expired.jti] = None
            if len(self._expired) > _EXPIRED_KEPT:
                del self._expired[next(iter(self._expired))]
            raise
        if claims.jti in self.revoked or claims.jti in self._expired:
            raise Unauthenticated("Invalid token")
        return claims

    def _identity(self, user: UserConfig, claims: Claims) -> Identity:
        return Identity(
            user_id=user.name,
            roles=user.roles,
            permissions=self._permissions(user),
            jti=claims.jti,
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
        )

    def _permissions(self, user: UserConfig) -> frozenset[str]:
        return rbac.permissions_of(user.roles, self._settings.current.auth.roles)

    def _users(self) -> tuple[UserConfig, ...]:
        configured = self._settings.current.auth.users
        if configured or self.admin is None:
            return configured
        return (self.admin,)
