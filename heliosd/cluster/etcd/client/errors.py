"""The errors of calls to etcd, and what an error answer means. Pure.

EtcdError                 the text is one line: the endpoint and what is wrong
├── EtcdUnavailable       nothing was written: no endpoint answered, or the request could not be sent
│   ├── EtcdNoLeader          the member that answered has no leader: an election, or the quorum is lost
│   └── EtcdForeign           the endpoint belongs to another cluster, or it is not known which one is ours
├── EtcdOutcomeUnknown    a write was sent and not answered: it may or may not have been done
└── EtcdRefused           etcd refused; nothing was written
    ├── EtcdLoginRefused      the user, the password or the token is not accepted, or there is none
    │   └── EtcdTokenEnded    the token alone: a new one may help
    ├── EtcdDenied            the user is known and lacks the right
    ├── EtcdCompacted         the revision asked for is no longer kept
    ├── EtcdNoSpace           the NOSPACE alarm is raised: only reading works
    ├── EtcdLeaseGone         the lease has ended: take a new one
    ├── EtcdNotLeader         only the leader can do this, and the member asked is not it (any more)
    └── EtcdLearnerBehind     the learner cannot be promoted yet: try later

Codes are gRPC's (`codes.proto`), as in the answers of etcd's JSON gateway.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from heliosd.errors import BAD_JSON, HeliosError

INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED = 3, 5, 7
UNIMPLEMENTED, UNAVAILABLE, UNAUTHENTICATED = 12, 14, 16
MAX_REASON_CHARS = 300


class EtcdError(HeliosError):
    """The base of all errors of a call to etcd. `endpoint` is "" if it concerns several."""

    def __init__(self, endpoint: str, reason: str) -> None:
        self.endpoint = endpoint
        self.reason = one_line(reason)
        super().__init__(f"{endpoint}: {self.reason}" if endpoint else self.reason)


class EtcdUnavailable(EtcdError):
    """Nothing was written; try again later."""


class EtcdNoLeader(EtcdUnavailable):
    """The member that was asked knows no leader."""


class EtcdForeign(EtcdUnavailable):
    """The endpoint belongs to another cluster, or it is not known which cluster is ours."""


class EtcdOutcomeUnknown(EtcdError):
    """The write was sent and no answer came. It may have been done, or be done later: read before writing again."""


class EtcdRefused(EtcdError):
    """etcd refused. Nothing was written, and the same request will be refused again."""

    def __init__(self, endpoint: str, reason: str, code: int) -> None:
        super().__init__(endpoint, reason)
        self.code = code


class EtcdLoginRefused(EtcdRefused):
    """Wrong user or password, or none is configured and etcd wants one."""


class EtcdTokenEnded(EtcdLoginRefused):
    """The token is not valid (any more)."""


class EtcdDenied(EtcdRefused):
    """The user lacks the right to this key or this operation."""


class EtcdCompacted(EtcdRefused):
    """The history at that revision is gone; read the present state."""


class EtcdNoSpace(EtcdRefused):
    """etcd's database is at its quota."""


class EtcdLeaseGone(EtcdRefused):
    """There is no such lease (any more)."""


class EtcdNotLeader(EtcdRefused):
    """The member that was asked is not the leader."""


class EtcdLearnerBehind(EtcdRefused):
    """The learner is not yet in sync with the leader."""


class Failure(Struct, frozen=True):
    """An error answer: gRPC's code and etcd's message."""

    code: int
    message: str


Meaning = Literal["refused", "elsewhere", "unknown"]

NO_LEADER = "etcdserver: no leader"
NO_USER = "authentication is on in etcd, and no user was shown"

# etcd 3.4 sends these with various codes (a snapshot without the right is `Unknown`), so the message decides.
_KINDS: tuple[tuple[str, type[EtcdRefused]], ...] = (
    ("permission denied", EtcdDenied),
    ("invalid auth token", EtcdTokenEnded),
    ("revision of auth store is old", EtcdTokenEnded),
    ("auth: revision in header is old", EtcdTokenEnded),  # the same in 3.5.1, with the code `Unknown`
    ("user name is empty", EtcdTokenEnded),
    ("invalid user ID or password", EtcdLoginRefused),
    ("CommonName of client", EtcdLoginRefused),
    ("has been compacted", EtcdCompacted),
    ("database space exceeded", EtcdNoSpace),
    ("requested lease not found", EtcdLeaseGone),
    ("etcdserver: not leader", EtcdNotLeader),
    ("in sync with leader", EtcdLearnerBehind),
)
# Sent before anything is proposed, so another member may be asked, even for a write.
_NOT_BEGUN = (
    *(NO_LEADER, "proposal dropped", "too many requests"),
    *("not supported for learner", "not capable", "unhealthy cluster"),
)
# Cancelled, Unknown, DeadlineExceeded, Aborted, Internal, Unavailable, DataLoss: do not say what was done.
_INCONCLUSIVE = frozenset({1, 2, 4, 10, 13, UNAVAILABLE, 15})
_CODES_OF_HTTP = {400: INVALID_ARGUMENT, 401: UNAUTHENTICATED, 403: PERMISSION_DENIED, 404: UNIMPLEMENTED}
_HINTS = {
    "CommonName of client": "with authentication on, etcd's gateway takes no client certificate with a common name",
    "user name is empty": NO_USER,
}


def refused_error(endpoint: str, failure: Failure) -> EtcdRefused:
    """The failure as an instance of its class."""
    kind = next((kind for words, kind in _KINDS if words in failure.message), EtcdRefused)
    hint = next((hint for words, hint in _HINTS.items() if words in failure.message), failure.message)
    return kind(endpoint, hint, failure.code)


def missing_right(path: str, username: str, prefix: str) -> str:
    """The right that a call to this path of the gateway lacks, and the commands that grant it."""
    if path.startswith(("/cluster/", "/maintenance/")):
        return f"the user {username} needs the role root: etcdctl user grant-role {username} root"
    return (
        f"the user {username} needs a role with readwrite on {prefix}: etcdctl role grant-permission ROLE "
        f"--prefix=true readwrite {prefix}; etcdctl user grant-role {username} ROLE"
    )


def unavailable(endpoint: str, failure: Failure) -> EtcdUnavailable:
    """The failure, if another member may be asked."""
    return (EtcdNoLeader if failure.message == NO_LEADER else EtcdUnavailable)(endpoint, failure.message)


def meaning(failure: Failure, *, write: bool) -> Meaning:
    """Whether etcd refused, another member may be asked, or it is unknown whether the write was done."""
    if any(words in failure.message for words in _NOT_BEGUN):
        return "elsewhere"
    if failure.code not in _INCONCLUSIVE or any(words in failure.message for words, _ in _KINDS):
        return "refused"
    return "unknown" if write else "elsewhere"


def read_failure(status: int, content: bytes) -> Failure:
    """The error in an answer of any form: etcd 3.4's and 3.6's, of calls and of streams, or plain text."""
    try:
        found = msgspec.json.decode(content)
    except BAD_JSON:
        found = None
    if isinstance(found, dict):
        failure = failure_in(found)
        if failure is not None:
            return failure
    code = _CODES_OF_HTTP.get(status, 2)
    text = content[:MAX_REASON_CHARS].decode(errors="replace").strip()
    if code == UNIMPLEMENTED:
        text = "there is no JSON gateway of etcd's here (status 404)"
    return Failure(code, one_line(text) or f"answered with status {status}")


def failure_in(answer: dict[str, object]) -> Failure | None:
    """The error in a decoded answer or line of a stream; None if there is none."""
    inner = answer.get("error")
    details = inner if isinstance(inner, dict) else answer
    message, code = details.get("message", inner), details.get("code", details.get("grpc_code", 2))
    if not isinstance(message, str) or not (message or "error" in answer):
        return None
    return Failure(code if isinstance(code, int) else 2, one_line(message) or "an error without a message")


def one_line(text: str) -> str:
    """Printable, on one line, and not too long."""
    flat = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return flat if len(flat) <= MAX_REASON_CHARS else flat[: MAX_REASON_CHARS - 1] + "…"
