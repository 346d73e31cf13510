"""The JSON of etcd's gateway, field by field, for `responses.py`. Pure.

The names are those of etcd's `rpc.proto` as the gateway writes them. It leaves out zeros, hence the defaults.
"""

from __future__ import annotations

import msgspec


class KeyValueJson(msgspec.Struct, kw_only=True):
    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: str = "0"


class HeaderJson(msgspec.Struct):
    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


class RangeJson(msgspec.Struct):
    header: HeaderJson = msgspec.field(default_factory=HeaderJson)
    kvs: list[KeyValueJson] = []
    more: bool = False
    count: int = 0


class ResponseJson(msgspec.Struct):
    response_range: RangeJson | None = None


class TxnJson(msgspec.Struct):
    header: HeaderJson
    succeeded: bool = False
    responses: list[ResponseJson] = []


class EventJson(msgspec.Struct):
    kv: KeyValueJson
    type: str = "PUT"


class WatchJson(msgspec.Struct):
    header: HeaderJson
    events: list[EventJson] = []
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""


class StatusJson(msgspec.Struct, rename="camel"):
    header: HeaderJson
    version: str
    db_size: int = 0
    leader: int = 0
    raft_index: int = 0
    raft_term: int = 0
    raft_applied_index: int = 0
    is_learner: bool = False
    errors: tuple[str, ...] = ()
    db_size_quota: int = 0


class AnyJson(msgspec.Struct):
    header: HeaderJson


class RaftJson(msgspec.Struct):
    """etcd's `raft.Status` as `/debug/vars` shows it: ids in hexadecimal, "0" for none."""

    id: str
    term: int
    lead: str
    commit: int
    applied: int
    progress: dict[str, msgspec.Raw] = {}


class VarsJson(msgspec.Struct):
    raft: RaftJson = msgspec.field(name="raft.status")


class MemberJson(msgspec.Struct):
    id: int = msgspec.field(name="ID")
    name: str = ""
    peer_urls: tuple[str, ...] = msgspec.field(name="peerURLs", default=())
    client_urls: tuple[str, ...] = msgspec.field(name="clientURLs", default=())
    is_learner: bool = msgspec.field(name="isLearner", default=False)


class MembersJson(msgspec.Struct):
    members: list[MemberJson] = []
    header: HeaderJson = msgspec.field(default_factory=HeaderJson)
    member: MemberJson | None = None


class LeaseJson(msgspec.Struct):
    id: str = msgspec.field(name="ID", default="0")
    ttl: int = msgspec.field(name="TTL", default=0)


class BlobJson(msgspec.Struct):
    blob: bytes = b""
    remaining_bytes: int = 0


class RolesJson(msgspec.Struct):
    roles: list[str] = []


class TokenJson(msgspec.Struct):
    token: str


class VersionJson(msgspec.Struct):
    etcdserver: str


class LineJson(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw()
