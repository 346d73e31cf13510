"""The forms of what etcd's JSON gateway answers, field by field, for `etcd_codec`. Pure.

Names are those of etcd's `rpc.proto` as the gateway writes them. What is zero is left out, hence the defaults.
"""

from __future__ import annotations

import msgspec


class KeyValue(msgspec.Struct, kw_only=True):
    key: bytes
    value: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0
    lease: str = "0"


class Header(msgspec.Struct):
    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0
    raft_term: int = 0


class Range(msgspec.Struct):
    header: Header = msgspec.field(default_factory=Header)
    kvs: list[KeyValue] = []
    more: bool = False
    count: int = 0


class Response(msgspec.Struct):
    response_range: Range | None = None


class Txn(msgspec.Struct):
    header: Header
    succeeded: bool = False
    responses: list[Response] = []


class Event(msgspec.Struct):
    kv: KeyValue
    type: str = "PUT"


class Watch(msgspec.Struct):
    header: Header
    events: list[Event] = []
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""


class Status(msgspec.Struct, rename="camel"):
    header: Header
    version: str
    db_size: int = 0
    leader: int = 0
    raft_index: int = 0
    raft_term: int = 0
    raft_applied_index: int = 0
    is_learner: bool = False
    errors: tuple[str, ...] = ()


class Member(msgspec.Struct):
    id: int = msgspec.field(name="ID")
    name: str = ""
    peer_urls: tuple[str, ...] = msgspec.field(name="peerURLs", default=())
    client_urls: tuple[str, ...] = msgspec.field(name="clientURLs", default=())
    is_learner: bool = msgspec.field(name="isLearner", default=False)


class Members(msgspec.Struct):
    members: list[Member] = []
    member: Member | None = None


class Lease(msgspec.Struct):
    id: str = msgspec.field(name="ID", default="0")
    ttl: int = msgspec.field(name="TTL", default=0)


class Blob(msgspec.Struct):
    blob: bytes = b""
    remaining_bytes: int = 0


class Token(msgspec.Struct):
    token: str


class Version(msgspec.Struct):
    etcdserver: str


class Line(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw()
