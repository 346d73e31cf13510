"""Every failure that a caller can decide about, as a class with fields to read.

HeliosError
├── ConfigError          the configuration file has mistakes (all of them, with key paths)
├── KeyUnusable          the key that signs tokens is missing, cannot be read, or is too weak
├── StoreError           the data directory cannot be used
│   ├── StoreBusy        another daemon holds it
│   ├── StoreDamaged     what is in it cannot be read
│   └── StoreFull        the disk does not take writes (no space, read-only, I/O error)
├── AuthError            the caller is not known, or lacks a permission
│   ├── Unauthenticated  401
│   ├── Forbidden        403
│   └── IssuerUnreachable    503: an outside token cannot be checked now
├── Unreachable          no daemon answers at a URL
├── ErrorAnswer          a daemon answered a request of the client with an error
├── FollowingEnded       a client cannot follow a daemon any longer
│   ├── AccessRefused    its credentials or its permission to watch were refused
│   └── NotUnderstood    one side sent what the other does not understand
├── NotDelivered         an alert's receiver did not take it
├── KeysNotFetched       an outside issuer did not answer with its keys
└── RequestRefused       a request to the cluster was refused
    ├── Invalid          400: the request itself is wrong
    ├── NotFound         404
    ├── Conflict         409
    ├── KeyReused        422
    ├── StatusTooLarge   507
    ├── NoLeader         503: nothing was written
    └── OutcomeUnknown   504: it may or may not have been written

Any other exception that rises is a bug.
"""

from __future__ import annotations

import errno

from msgspec import MsgspecError, Struct


class HeliosError(Exception):
    """The root of all errors that heliosd raises on purpose."""


class ConfigProblem(Struct, frozen=True):
    """One mistake in a configuration file: `key` is its path such as `websocket.send_buffer`."""

    key: str
    message: str
    line: int | None = None
    """The line of the key in the file."""

    def __str__(self) -> str:
        text = f"{self.key}: {self.message}" if self.key else self.message
        return text if self.line is None else f"{text} (line {self.line})"


class ConfigError(HeliosError):
    """A configuration that cannot be used; `problems` holds every mistake found, never just the first."""

    def __init__(self, problems: tuple[ConfigProblem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class KeyUnusable(HeliosError):
    """The key that signs tokens is missing, cannot be read, or is too weak; the text says which and where."""


class StoreError(HeliosError):
    """The data directory cannot be used; the text says why and what to do."""


class StoreBusy(StoreError):
    """Another heliosd has this data directory open."""


class StoreDamaged(StoreError):
    """The database is not one that this version can read; nothing in it was changed."""


class StoreFull(StoreError):
    """The disk does not take writes now; it may do so later. Nothing of the transaction is stored."""


BAD_JSON = (MsgspecError, UnicodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON that is expected.

Where text in it is not UTF-8, or the nesting is too deep, that is an error of Python itself."""
_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG})


def store_error(message: str, cause: OSError) -> StoreError:
    """`message` and the cause's reason: `StoreFull` if the disk is full, read-only or failing, otherwise
    `StoreError`, which an operator must mend."""
    kind = StoreFull if cause.errno in _DISK_TROUBLE else StoreError
    return kind(f"{message}: {cause.strerror or cause}")


class NotDelivered(HeliosError):
    """An alert's receiver did not take it, or nobody knows whether it did; the text says why."""


class KeysNotFetched(HeliosError):
    """The outside issuer's keys could not be fetched now; the text says why."""


class AuthError(HeliosError):
    """Its text may be shown to the caller: it never says which part of a secret was wrong."""


class Unauthenticated(AuthError):
    """No token, or an invalid one (HTTP 401)."""


class Forbidden(AuthError):
    """A valid token without the permission that is needed (HTTP 403)."""

    def __init__(self, permission: str) -> None:
        super().__init__(f"Permission required: {permission}")
        self.permission = permission


class FollowingEnded(HeliosError):
    """A client cannot follow a daemon any longer, and another attempt would fail too."""


class AccessRefused(FollowingEnded):
    """The password, the token or the permission to watch was refused or withdrawn."""


class NotUnderstood(FollowingEnded):
    """The other side is not a heliosd of a known protocol, or it refused the request as wrong."""


class Unreachable(HeliosError):
    """No daemon answers at `url`."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot connect to {url}: {reason}")
        self.url = url
        self.reason = reason


class ErrorAnswer(HeliosError):
    """A daemon answered a request with an HTTP `status` that is no success. `field` names the wrong part, if
    one is wrong."""

    def __init__(self, status: int, message: str, field: str | None) -> None:
        named = field is None or message.lower().startswith(field)
        super().__init__(message if named else f"{field}: {message}")
        self.status = status
        self.message = message
        self.field = field


class IssuerUnreachable(AuthError):
    """The outside issuer's keys cannot be fetched, so its tokens can be neither accepted nor refused (HTTP 503).

    Another attempt makes sense after `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("The issuer of this token cannot be reached")
        self.seconds = seconds


class RequestRefused(HeliosError):
    """The cluster refused a request. `field` names the wrong part, if one is wrong."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class Invalid(RequestRefused):
    """The request itself is wrong (HTTP 400)."""


class NotFound(RequestRefused):
    """What the request names does not exist (HTTP 404)."""


class Conflict(RequestRefused):
    """The request would create what exists already, or a limit is reached (HTTP 409)."""


class KeyReused(RequestRefused):
    """The request's Idempotency-Key belongs to another request (HTTP 422)."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request", field="Idempotency-Key")


class StatusTooLarge(RequestRefused):
    """With what the request would create, a `status` would be larger than allowed (HTTP 507)."""


class NoLeader(RequestRefused):
    """There is no leader: nothing was written (HTTP 503, Retry-After)."""

    def __init__(self, message: str = "No leader") -> None:
        super().__init__(message)


class OutcomeUnknown(RequestRefused):
    """The write was proposed and its outcome is not known: it may still be committed (HTTP 504)."""

    def __init__(self, message: str = "Outcome unknown") -> None:
        super().__init__(message)
