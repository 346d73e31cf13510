"""The answers of etcd's JSON gateway as frozen values. Pure.

The gateway leaves out fields that are zero, writes 64-bit numbers as text, and bytes as base64. Ids of clusters and
members become lower-case hexadecimal text without leading zeros, as etcdctl prints them. Every `read_…` raises
`NotEtcd` if the answer is none of etcd's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from heliosd.errors import BAD_JSON

from . import wire_types as wire
from .errors import Failure, failure_in, one_line

T = TypeVar("T")


class NotEtcd(ValueError):
    """The answer is not one of etcd's; the text says why."""


class InStream(Exception):
    """A line of a stream (with status 200) is an error."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ResponseHeader(Struct, frozen=True):
    """Which member answered, with the `revision` of its keys (0: not given) and its `raft_term`."""

    cluster_id: str
    member_id: str
    revision: int
    raft_term: int


class KeyValue(Struct, frozen=True, kw_only=True):
    """One key as of some revision. After a deletion: no value, no lease, and the revision of the deletion."""

    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: str = "0"


class RangeResult(Struct, frozen=True):
    """`count` keys are in the range; `more`: because of the limit not all of them are in `kvs`."""

    header: ResponseHeader
    kvs: tuple[KeyValue, ...]
    more: bool
    count: int


class TxnResult(Struct, frozen=True):
    """`responses` has one item for each operation that ran: a get's keys, () for others."""

    header: ResponseHeader
    succeeded: bool
    responses: tuple[tuple[KeyValue, ...], ...]


class WatchEvent(Struct, frozen=True):
    """One change of one key."""

    kind: Literal["put", "delete"]
    kv: KeyValue


class WatchBatch(Struct, frozen=True):
    """One message of a watch. All changes of one revision come in one batch, in the order of revisions.

    `created`: the first one. No events and not created: a progress reply. `compact_revision` above 0: the requested
    start is compacted, up to that revision; the watch has ended (`canceled`).
    """

    header: ResponseHeader
    events: tuple[WatchEvent, ...]
    created: bool
    canceled: bool
    compact_revision: int
    reason: str


class MemberStatus(Struct, frozen=True):
    """One member's status. `leader` is "" if it knows none; `errors` as etcd writes them."""

    header: ResponseHeader
    version: str
    db_size: int
    leader: str
    raft_index: int
    raft_term: int
    raft_applied_index: int
    is_learner: bool
    errors: tuple[str, ...]
    db_size_quota: int = 0
    """Bytes; since etcd 3.6, else 0."""
    held_up: bool = False
    """Its database gives nothing at present: revision, sizes and errors are those of its status before."""


class RaftVars(Struct, frozen=True):
    """One member's Raft state from `/debug/vars`, a page that etcd serves to everybody. `leader` is "" if it knows
    none. Only a leader has `members`: the ids that it replicates to, its own and learners as well."""

    member_id: str
    term: int
    leader: str
    committed: int
    applied: int
    members: tuple[str, ...]


class EtcdMember(Struct, frozen=True):
    """One member of the cluster. `name` and `client_urls` are empty until its first start."""

    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool


@dataclass(frozen=True, slots=True)
class MemberList:
    """The members as one member lists them, in no particular order, and the term that it shows (0: none)."""

    members: tuple[EtcdMember, ...]
    raft_term: int = 0
    answer: bytes = field(default=b"", compare=False, repr=False)
    """The body in which it came; empty if it was put together."""


class Lease(Struct, frozen=True):
    """`seconds` is the time granted, or left after a renewal; 0: the lease has ended."""

    id: str
    seconds: int


class EtcdVersion(Struct, frozen=True):
    """The answer of /version: the server's version, such as "3.4.23"."""

    server: str

    @property
    def gateway(self) -> str:
        """The prefix of the JSON gateway's paths: 3.4 was the first with /v3."""
        numbers = [int(part) if part.isdecimal() else 0 for part in self.server.split(".")[:2]]
        return (
            "/v3" if numbers >= [3, 4] or numbers < [3, 0] else "/v3beta" if numbers == [3, 3] else "/v3alpha"
        )


def read_range(content: bytes) -> RangeResult:
    """The answer of /kv/range."""
    found = _decode(content, wire.RangeJson)
    return RangeResult(_header(found.header), _key_values(found.kvs), found.more, found.count)


def read_txn(content: bytes) -> TxnResult:
    """The answer of /kv/txn."""
    found = _decode(content, wire.TxnJson)
    results = tuple(
        _key_values(each.response_range.kvs) if each.response_range else () for each in found.responses
    )
    return TxnResult(_header(found.header), found.succeeded, results)


def read_status(content: bytes) -> MemberStatus:
    """The answer of /maintenance/status."""
    found = _decode(content, wire.StatusJson)
    return MemberStatus(
        _header(found.header),
        found.version,
        found.db_size,
        _hex(found.leader),
        found.raft_index,
        found.raft_term,
        found.raft_applied_index,
        found.is_learner,
        tuple(map(one_line, found.errors)),
        found.db_size_quota,
    )


def read_header(content: bytes) -> ResponseHeader:
    """The header of any answer."""
    return _header(_decode(content, wire.AnyJson).header)


def read_raft_vars(content: bytes) -> RaftVars:
    """The page /debug/vars."""
    raft = _decode(content, wire.VarsJson).raft
    leader = "" if raft.lead == "0" else raft.lead
    return RaftVars(raft.id, raft.term, leader, raft.commit, raft.applied, tuple(sorted(raft.progress)))


def read_members(content: bytes) -> tuple[EtcdMember, ...]:
    """The members in the answers of /cluster/member/*, in no particular order."""
    return tuple(_member(each) for each in _decode(content, wire.MembersJson).members)


@lru_cache(maxsize=4)  # it is asked for several times a second, and its answer is mostly the same
def read_member_list(content: bytes) -> MemberList:
    """The answer of /cluster/member/list."""
    found = _decode(content, wire.MembersJson)
    return MemberList(tuple(map(_member, found.members)), found.header.raft_term, content)


def read_member_added(content: bytes) -> EtcdMember:
    """The new member in the answer of /cluster/member/add."""
    found = _decode(content, wire.MembersJson).member
    if found is None:
        raise NotEtcd("no member in the answer")
    return _member(found)


def read_lease(content: bytes) -> Lease:
    """The answer of /lease/grant."""
    found = _decode(content, wire.LeaseJson)
    return Lease(found.id, found.ttl)


def read_lease_line(line: bytes) -> Lease:
    """The line of /lease/keepalive. Raises `InStream`."""
    return read_lease(_result(line))


def read_watch_line(line: bytes) -> WatchBatch:
    """A line of /watch. Raises `InStream`, also for a watch that etcd ends for another reason than compaction."""
    found = _decode(_result(line), wire.WatchJson)
    if found.canceled and not found.compact_revision:
        # So are refusals: "rpc error: code = PermissionDenied desc = etcdserver: permission denied".
        reason = found.cancel_reason.rpartition(" desc = ")[2]
        raise InStream(Failure(2, one_line(reason or "etcd ended the watch")))
    events = tuple(
        WatchEvent("delete" if each.type == "DELETE" else "put", _key_value(each.kv)) for each in found.events
    )
    return WatchBatch(
        _header(found.header),
        events,
        found.created,
        found.canceled,
        found.compact_revision,
        one_line(found.cancel_reason),
    )


def read_snapshot_line(line: bytes) -> bytes:
    """The bytes in a line of /maintenance/snapshot. Raises `InStream`."""
    return _decode(_result(line), wire.BlobJson).blob


def read_roles(content: bytes) -> tuple[str, ...]:
    """The roles in the answer of /auth/user/get."""
    return tuple(_decode(content, wire.RolesJson).roles)


def read_token(content: bytes) -> str:
    """The answer of /auth/authenticate."""
    return _decode(content, wire.TokenJson).token


def read_version(content: bytes) -> EtcdVersion:
    """The answer of /version."""
    return EtcdVersion(one_line(_decode(content, wire.VersionJson).etcdserver))


def _decode(content: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind, strict=False)
    except BAD_JSON as error:
        raise NotEtcd(one_line(f"not an answer of etcd's: {error}")) from None


def _result(line: bytes) -> bytes:
    found = _decode(line, wire.LineJson)
    if found.result:
        return bytes(found.result)
    results: dict[str, Any] = _decode(line, dict[str, Any])
    raise InStream(failure_in(results) or Failure(2, "a line with neither result nor error"))


def _header(found: wire.HeaderJson) -> ResponseHeader:
    return ResponseHeader(_hex(found.cluster_id), _hex(found.member_id), found.revision, found.raft_term)


def _key_values(found: list[wire.KeyValueJson]) -> tuple[KeyValue, ...]:
    return tuple(map(_key_value, found))


def _key_value(found: wire.KeyValueJson) -> KeyValue:
    return KeyValue(
        key=found.key,
        value=found.value,
        create_revision=found.create_revision,
        mod_revision=found.mod_revision,
        version=found.version,
        lease=found.lease,
    )


def _member(found: wire.MemberJson) -> EtcdMember:
    return EtcdMember(_hex(found.id), found.name, found.peer_urls, found.client_urls, found.is_learner)


def _hex(number: int) -> str:
    return f"{number:x}" if number else ""
