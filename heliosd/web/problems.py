"""How every refusal and failure is answered: `{"error", "field"?}` with the status that its class means."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
import trio
from msgspec import UNSET, Struct, UnsetType
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from heliosd.errors import (
    Conflict,
    Forbidden,
    HeliosError,
    Invalid,
    IssuerUnreachable,
    NoLeader,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    StoreFull,
    Unauthenticated,
)

log = structlog.get_logger(__name__)


class Unsupported(RequestRefused):
    """A body in a form that is never read (HTTP 415)."""


LEADER_RETRY_SECONDS = 1
"""Longer than an election takes."""

_REFUSALS: Mapping[type[RequestRefused], int] = {
    Invalid: 400,
    NotFound: 404,
    Conflict: 409,
    Unsupported: 415,
    NoLeader: 503,
    OutcomeUnknown: 504,
}


class TryLater(HeliosError):
    """Too much is asked at once (HTTP 429 for this client's share, 503 for everyone's)."""

    def __init__(self, message: str, *, status: int, seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.seconds = seconds


def not_read_yet() -> TryLater:
    """Asked is what has happened since, and this daemon has not read the cluster's events since it started."""
    # Jittered, as whoever came with a cursor comes from a daemon that was restarted, and not alone.
    return TryLater("The cluster's events cannot be read yet", status=503, seconds=random.randint(1, 5))  # noqa: S311


class ForeignOrigin(HeliosError):
    """A page of an origin that is neither ours nor listed asked for a change (HTTP 403)."""


class ProblemBody(Struct, frozen=True):
    """`request_id` stands only beside status 500, and on the log line that tells what happened."""

    error: str
    field: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Problem:
    status: int
    body: ProblemBody
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_for(error: Exception, where: str) -> Problem:
    """The answer to a request that ended in `error`.

    Whatever is not a known refusal is a bug: logged with its traceback, `where` (the route, never the client's own
    text), and a fresh request id, which is all that the client learns.
    """
    match error:
        case RequestRefused():
            return _refused(error)
        case Unauthenticated():
            return Problem(401, ProblemBody(str(error)), {"WWW-Authenticate": "Bearer"})
        case Forbidden() | ForeignOrigin():
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
        case HTTPException():
            return _of_framework(error)
        case _:
            request_id = secrets.token_hex(8)
            log.error("request failed", route=where, request_id=request_id, exc_info=error)
            return Problem(500, ProblemBody("Internal error", request_id=request_id))


def _refused(error: RequestRefused) -> Problem:
    status = next((status for kind, status in _REFUSALS.items() if isinstance(error, kind)), 400)
    headers = {"Retry-After": str(LEADER_RETRY_SECONDS)} if isinstance(error, NoLeader) else {}
    return Problem(status, ProblemBody(error.message, UNSET if error.field is None else error.field), headers)


_FRAMEWORK_WORDS = {
    404: "Not found",
    405: "Method not allowed",
    408: "The body did not come in time",
    413: "The body is larger than 1 MiB",
}


def _of_framework(error: HTTPException) -> Problem:
    status = error.code or 500
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))
    return Problem(status, ProblemBody(_FRAMEWORK_WORDS.get(status, error.name)), headers)
