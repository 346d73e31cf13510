"""The one place where errors become answers: `{"error", "field"?}` with the status that the error's class means."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Mapping

import structlog
import trio
from msgspec import UNSET, Struct, UnsetType, field

from heliosd.errors import (
    Conflict,
    Forbidden,
    HeliosError,
    Invalid,
    IssuerUnreachable,
    KeyReused,
    NoLeader,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    StatusTooLarge,
    StoreFull,
    Unauthenticated,
)

log = structlog.get_logger(__name__)


class Unsupported(RequestRefused):
    """A body in a form that is not supported (HTTP 415)."""


_MAX_ECHO = 200
LEADER_RETRY_SECONDS = 1
"""Longer than an election takes."""

_REFUSALS: Mapping[type[RequestRefused], int] = {
    Invalid: 400,
    NotFound: 404,
    Conflict: 409,
    Unsupported: 415,
    KeyReused: 422,
    StatusTooLarge: 507,
    NoLeader: 503,
    OutcomeUnknown: 504,
}


class BodyTooLarge(HeliosError):
    """A body over its route's limit (HTTP 413)."""

    def __init__(self, max_bytes: int) -> None:
        size = f"{max_bytes >> 20} MiB" if max_bytes >= 1 << 20 else f"{max_bytes >> 10} KiB"
        super().__init__(f"The body is larger than {size}")


class BodyLate(HeliosError):
    """A body that did not come in time (HTTP 408)."""

    def __init__(self) -> None:
        super().__init__("The body did not come in time")


class TryLater(HeliosError):
    """More is asked than is allowed now: of this client (HTTP 429), or of the daemon (503). Repeat in `seconds`."""

    def __init__(self, message: str, *, status: int, seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


class NotReadYet(TryLater):
    """This daemon has not read the cluster's events since it started, so it cannot replay any (HTTP 503)."""

    def __init__(self) -> None:
        # Jittered: clients with a cursor come from a daemon that was restarted, many at once.
        later = random.randint(1, 5)  # noqa: S311
        super().__init__("The cluster's events cannot be read yet", status=503, seconds=later)


class ForeignOrigin(HeliosError):
    """The page that asks is of an origin that is neither the daemon's own nor listed (HTTP 403).

    The text names what an operator needs to know, of each header at most 200 characters.
    """

    def __init__(self, origin: str, host: str) -> None:
        super().__init__(
            f"Origin not allowed: {origin[:_MAX_ECHO]!r} is neither this daemon's own (the request's Host is "
            f"{host[:_MAX_ECHO]!r}) nor listed in server.allowed_origins"
        )


class ForgedWrite(HeliosError):
    """A write by the session cookie alone that no page of the daemon's own origin makes (HTTP 403)."""

    def __init__(self) -> None:
        super().__init__("A write with the session cookie needs the Origin of this daemon")


class ProblemBody(Struct, frozen=True):
    """`request_id` is only in a 500, and on the log line with the traceback."""

    error: str
    field: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


class Problem(Struct, frozen=True):
    status: int
    body: ProblemBody
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_for(error: Exception, where: str) -> Problem:
    """The answer to a request that ended in `error`.

    An error of any other class is a bug: it is logged with its traceback, `where` (the route, never text from the
    client), and a new request id, which alone is sent to the client.
    """
    match error:
        case RequestRefused():
            return _refused(error)
        case Unauthenticated():
            return Problem(401, ProblemBody(str(error)), {"WWW-Authenticate": "Bearer"})
        case BodyLate():
            return Problem(408, ProblemBody(str(error)))
        case BodyTooLarge():
            return Problem(413, ProblemBody(str(error)))
        case Forbidden() | ForeignOrigin() | ForgedWrite():
            return Problem(403, ProblemBody(str(error)))
        case IssuerUnreachable(seconds=seconds):
            return Problem(503, ProblemBody(str(error)), {"Retry-After": str(math.ceil(seconds))})
        case TryLater(status=status, seconds=seconds):
            return Problem(status, ProblemBody(str(error)), {"Retry-After": str(max(1, math.ceil(seconds)))})
        case StoreFull():
            log.error("store refused a write", route=where, reason=str(error))
            return Problem(507, ProblemBody("The change could not be stored"))
        case trio.TooSlowError():
            return _refused(OutcomeUnknown())
        case _:
            request_id = structlog.contextvars.get_contextvars().get("request_id") or secrets.token_hex(8)
            log.error("request failed", route=where, request_id=request_id, exc_info=error)
            return Problem(500, ProblemBody("Internal error", request_id=request_id))


def _refused(error: RequestRefused) -> Problem:
    status = next((status for kind, status in _REFUSALS.items() if isinstance(error, kind)), 400)
    headers = {"Retry-After": str(LEADER_RETRY_SECONDS)} if isinstance(error, NoLeader) else {}
    return Problem(status, ProblemBody(error.message, UNSET if error.field is None else error.field), headers)
