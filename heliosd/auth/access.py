"""Checks tokens and passwords against the configuration in force.

For our own tokens the present configuration decides: the user must still be configured with the same password, and
has the roles of the file, whatever the token says. For tokens of the outside issuer (`auth.jwks_url`) their claim
of roles holds. So every call reads `settings.current` anew.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sys
from collections.abc import Iterable

from msgspec.structs import replace

from heliosd.clock import Instant
from heliosd.config import permissions
from heliosd.config.model import Settings, UserConfig
from heliosd.errors import Forbidden, Invalid, Unauthenticated
from heliosd.store.changes import TokenRevoked

from . import passwords, tokens
from .identity import Identity, Issued, TokenOrigin
from .issuer_keys import IssuerKeys
from .signing_keys import KeyRing
from .token_cache import TokenCache, digest_of
from .tokens import Claims

ALL_TOKENS = ""
"""The `jti` of a revocation of all tokens up to an expiry."""
_REVOKED_KEPT = 1024
_EXPIRED_KEPT = 4096


class Access:
    """Whose a token is, and whether a password is right. Wall times are Unix seconds.

    `revoked` (`jti` -> expiry, as stored: see `TokenRevoked`) is changed in place. `admin` is the user made by the
    first start, who counts only while no users are configured. `outside_keys` are the outside issuer's as far as
    they are known (`web/jwks.py` fetches them). `keys`, `outside_keys` and `admin` may be replaced at any time.
    """

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        revoked: dict[str, float],
        admin: UserConfig | None = None,
    ) -> None:
        self._settings = settings
        self.keys = keys
        self.outside_keys = IssuerKeys()
        self.revoked = revoked
        self._revoked_limit = _REVOKED_KEPT
        """With so many revocations the next one looks for those of tokens that have ended."""
        self.admin = admin
        self.started: Instant | None = None
        """The first moment of this process on both clocks. None: no clock but the wall clock is known."""
        self._expired: dict[str, None] = {}
        self._verified_tokens = TokenCache()
        self._mark_key = secrets.token_bytes(32)
        self._marks: dict[str, bytes] = {}
        """By name, what `_mark` makes of the last password that was right."""

    def user(self, name: str) -> UserConfig | None:
        """The user of that name as configured now."""
        return next((user for user in self._users() if user.name == name), None)

    def identify(self, token: str, now: float) -> Identity:
        """Whose `token` is, with the rights of this moment. Raises `Unauthenticated`."""
        against = (self._settings.current.auth, self.keys, self.outside_keys, self.admin)
        digest = digest_of(token)
        identity = self._verified_tokens.find(digest, now, against)
        if identity is None:
            identity = self._identified(token, now)
            self._verified_tokens.keep(digest, now, identity, against)
        if self._is_revoked(identity) or identity.jti in self._expired:
            raise Unauthenticated("Invalid token")
        return identity

    def _is_revoked(self, identity: Identity) -> bool:
        return identity.jti in self.revoked or identity.expires_at <= self.revoked.get(ALL_TOKENS, 0.0)

    def _identified(self, token: str, now: float) -> Identity:
        """The same without the cache and without a look at revocations."""
        try:
            claims = self._verify(token, now)
        except tokens.Expired as expired:
            # Remembered, so that the token does not hold again when the clock is set back.
            self.expire(expired.jti)
            raise
        if self.is_outside(token):
            auth = self._settings.current.auth
            return self._identity(claims.subject, claims.roles, claims, auth.jwks_issuer, auth.jwks_url)
        user = self.user(claims.subject)
        key = self.keys.named(claims.key)
        if user is None or key is None or claims.password != key.mark("password", user.password_hash):
            raise Unauthenticated("Invalid token")
        return self._identity(user.name, user.roles, claims, self._settings.current.auth.issuer)

    def is_outside(self, token: str) -> bool:
        """Whether `token` names the outside issuer as its own. Only that issuer's keys can verify it then."""
        auth = self._settings.current.auth
        return bool(auth.jwks_url) and tokens.claimed_issuer(token) == auth.jwks_issuer

    def refreshed(self, identity: Identity, now: float, needed: str = permissions.WATCH) -> Identity:
        """The same identity with the rights of this moment: for a connection that stays open.

        Raises `Unauthenticated` once the token has expired, was revoked, or would not be accepted any more (another
        password, key, issuer or audience), and `Forbidden` once the user is gone or lacks `needed`.
        """
        if identity.expires_at <= now or self._is_revoked(identity):
            raise Unauthenticated("Invalid token")
        roles = self._present_roles(identity, needed)
        granted = self._permissions(roles)
        if not permissions.may(granted, needed):
            raise Forbidden(needed)
        if (roles, granted) == (identity.roles, identity.permissions):
            return identity
        return replace(identity, roles=roles, permissions=granted)

    def expire(self, jti: str) -> None:
        """From now on the token with this `jti` does not hold, whatever the wall clock says.

        Remembered in memory for the newest few thousand tokens.
        """
        self._expired[jti] = None
        if len(self._expired) > _EXPIRED_KEPT:
            del self._expired[next(iter(self._expired))]

    def issue(
        self,
        user_id: str,
        now: float,
        ttl: float | None = None,
        *,
        login_at: float | None = None,
        password_hash: str | None = None,
    ) -> Issued:
        """A new token for a configured user who logged in at `login_at` (None: now), for `ttl` seconds (None:
        `auth.token_ttl`).

        Raises `Unauthenticated` if there is no such user (any more), or if the hash of the user's password is not
        `password_hash` (None: any), which the login was checked against.
        """
        user = self.user(user_id)
        if user is None or password_hash not in {None, user.password_hash}:
            raise Unauthenticated("Invalid credentials")
        auth = self._settings.current.auth
        token, claims = tokens.issue(
            self.keys,
            issuer=auth.issuer,
            subject=user.name,
            roles=user.roles,
            now=now,
            ttl=auth.token_ttl if ttl is None else ttl,
            audience=auth.audience,
            password_hash=user.password_hash,
            login_at=login_at,
        )
        return Issued(token, self._identity(user.name, user.roles, claims, auth.issuer))

    def renew(self, identity: Identity, now: float) -> Issued:
        """A newer token for the owner of one of ours, which ends at `auth.session_ttl` after the login at the
        latest.

        Raises `Unauthenticated` after that, and `Invalid` for a user of the outside issuer: a configured user of
        the same name is somebody else.
        """
        if identity.token_origin.issuer != self._settings.current.auth.issuer:
            raise Invalid("A token of another issuer is renewed there")
        auth, login_at = self._settings.current.auth, identity.token_origin.login_at
        left = login_at + auth.session_ttl - now
        if left <= 0:
            raise Unauthenticated("The login has ended")
        return self.issue(identity.user_id, now, min(auth.token_ttl, left), login_at=login_at)

    def check_password(self, name: str, password: str) -> str | None:
        """The hash of this user's password, if this is it; None if not. Some 20 ms of CPU: call it in a thread. A
        reload meanwhile may have brought another hash.

        An unknown name costs a hash, too, with the parameters of `passwords.hash_password`: a user whose hash has
        others can be recognised by the time.
        """
        user = self.user(name)
        right = passwords.verify(passwords.DECOY if user is None else user.password_hash, password)
        if user is None or not right:
            return None
        self._marks[user.name] = self._mark(user.password_hash, password)
        return user.password_hash

    def recognized(self, name: str, password: str) -> str | None:
        """What `check_password` would return, if it has found this password right since the start and it still is.
        Some 3 µs; a hash reveals nothing that the login would not. None: ask `check_password`.

        With it a rightful user need not wait behind guesses from other addresses, however many they are.
        """
        user = self.user(name)
        mark = self._mark(passwords.DECOY if user is None else user.password_hash, password)
        if user is None or not hmac.compare_digest(mark, self._marks.get(user.name, b"")):
            return None
        return user.password_hash

    def _mark(self, password_hash: str, password: str) -> bytes:
        """Only for this process to make, and of no use without its memory, which holds the signing key as well."""
        text = f"{password_hash}\0{password}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._mark_key, digest_size=16).digest()

    def revoke(self, jti: str, expires_at: float, now: Instant) -> list[TokenRevoked]:
        """From now on the token with this `jti` does not hold. The caller saves the changes that are returned."""
        changes = [TokenRevoked(jti, expires_at)]
        if len(self.revoked) >= self._revoked_limit:
            changes = self._join_ended(self._surely_past(now)) + changes
            # Hundreds of thousands may be of tokens that last: no walk over them all for each one that is added.
            self._revoked_limit = max(_REVOKED_KEPT, 2 * len(self.revoked))
        self.revoked.update((change.jti, change.expires_at) for change in changes)
        return changes

    def _surely_past(self, now: Instant) -> float:
        """The wall time that has passed even if the wall clock has leapt ahead since the start: what is joined by
        the time of a leap would refuse all tokens of the years between, and that is stored."""
        if self.started is None:
            return now.wall
        return min(now.wall, self.started.wall + now.mono - self.started.mono)

    def _join_ended(self, now: float) -> list[TokenRevoked]:
        """Remove the revocations of tokens that have ended by `now`. Returns the one that takes their place, if any
        have."""
        # The clock may have been set back since: what was joined then stays so.
        ended_by = max(now, self.revoked.get(ALL_TOKENS, 0.0))
        ended = [expiry for expiry in self.revoked.values() if expiry <= ended_by]
        if not ended:
            return []
        # Not forgotten: the wall clock may be wrong now, and they would hold again when it is set right.
        joined = TokenRevoked(ALL_TOKENS, max(ended))
        for old in [old for old, expiry in self.revoked.items() if expiry <= joined.expires_at]:
            del self.revoked[old]
        return [joined]

    def _verify(self, token: str, now: float) -> Claims:
        auth = self._settings.current.auth
        if not self.is_outside(token):
            return tokens.verify(token, self.keys, issuer=auth.issuer, now=now, audience=auth.audience)
        known = self.outside_keys if self.outside_keys.url == auth.jwks_url else IssuerKeys()
        return known.verify(
            token,
            issuer=auth.jwks_issuer,
            now=now,
            audience=auth.audience,
            roles_claim=auth.roles_claim,
        )

    def _present_roles(self, identity: Identity, needed: str) -> tuple[str, ...]:
        """The roles that an accepted identity has by now, if it would still be accepted."""
        auth, token_origin = self._settings.current.auth, identity.token_origin
        issuer = auth.jwks_issuer if token_origin.jwks_url else auth.issuer
        if token_origin.issuer != issuer or token_origin.audience != auth.audience:
            raise Unauthenticated("Invalid token")
        if token_origin.jwks_url:
            if token_origin.jwks_url != auth.jwks_url:
                raise Unauthenticated("Invalid token")
            return identity.roles
        user = self.user(identity.user_id)
        if user is None:
            raise Forbidden(needed)
        key = self.keys.named(token_origin.key)
        if key is None or token_origin.password != key.mark("password", user.password_hash):
            raise Unauthenticated("Invalid token")
        return user.roles

    def _identity(
        self, user_id: str, roles: tuple[str, ...], claims: Claims, issuer: str, jwks_url: str = ""
    ) -> Identity:
        return Identity(
            user_id=user_id,
            roles=roles,
            permissions=self._permissions(roles),
            jti=claims.jti,
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
            token_origin=TokenOrigin(
                issuer=issuer,
                audience=self._settings.current.auth.audience,
                key=claims.key,
                password=sys.intern(claims.password),  # the same for all tokens of a user
                jwks_url=jwks_url,
                login_at=claims.login_at,
            ),
        )

    def _permissions(self, roles: Iterable[str]) -> frozenset[str]:
        return permissions.permissions_of(roles, self._settings.current.auth.roles)

    def _users(self) -> tuple[UserConfig, ...]:
        configured = self._settings.current.auth.users
        if configured or self.admin is None:
            return configured
        return (self.admin,)
