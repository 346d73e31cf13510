"""The JSON bodies of requests to etcd's gateway. Pure.

Keys and values are bytes in Python and base64 in JSON; member ids are hexadecimal text in Python, as etcdctl prints
them, and decimal text in JSON; lease ids are decimal text in both. Source: etcd's `rpc.proto`, 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

MAX_REQUEST_BYTES = 1_572_864
"""etcd's default for a whole write (`--max-request-bytes`)."""
MAX_LEASE_SECONDS = 9_000_000_000
NO_LEASE = "0"
_MEMBER_ID = re.compile("[0-9a-f]{1,16}")


class Compare(Struct, frozen=True):
    """One condition of a transaction. Made by `absent`, `mod_is` or `value_is`."""

    key: bytes
    target: Literal["CREATE", "MOD", "VALUE"]
    wanted: int | bytes


class Put(Struct, frozen=True):
    """Write a key. etcd refuses two writes of one key in one transaction."""

    key: bytes
    value: bytes
    lease: str = NO_LEASE


class Delete(Struct, frozen=True):
    """Delete a key, or all from it to before `end`."""

    key: bytes
    end: bytes | None = None


class Get(Struct, frozen=True):
    """Read a key, or all from it to before `end`, in the order of the keys."""

    key: bytes
    end: bytes | None = None


Op = Put | Delete | Get


def absent(key: bytes) -> Compare:
    """The key does not exist."""
    return Compare(key, "CREATE", 0)


def mod_is(key: bytes, revision: int) -> Compare:
    """The key was last written at this revision; 0: it does not exist."""
    return Compare(key, "MOD", revision)


def value_is(key: bytes, value: bytes) -> Compare:
    """The key exists and has this value."""
    return Compare(key, "VALUE", value)


def put(key: bytes, value: bytes, lease: str = NO_LEASE) -> Put:
    """Write the key, under the lease if one is given."""
    return Put(key, value, lease)


def delete(key: bytes, end: bytes | None = None) -> Delete:
    """Delete the key, or all from it to before `end`."""
    return Delete(key, end)


def get(key: bytes, end: bytes | None = None) -> Get:
    """Read the key, or all from it to before `end`."""
    return Get(key, end)


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`: `end` for the whole prefix."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def encode(body: dict[str, Any]) -> bytes:
    """The body of a request; bytes in it become base64."""
    return msgspec.json.encode(body)


def range_body(
    key: bytes, end: bytes | None = None, *, limit: int = 0, revision: int = 0, serializable: bool = False
) -> bytes:
    """For /kv/range."""
    return encode(
        _span(key, end) | {"limit": str(limit), "revision": str(revision), "serializable": serializable}
    )


def txn_body(compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> bytes:
    """For /kv/txn."""
    return encode(
        {
            "compare": [_compare(compare) for compare in compares],
            "success": [_operation(op) for op in then],
            "failure": [_operation(op) for op in otherwise],
        }
    )


def watch_body(key: bytes, end: bytes | None, start_revision: int) -> bytes:
    """For /watch: from `start_revision` on (0: from now), with progress replies while nothing changes."""
    asked = _span(key, end) | {"start_revision": str(start_revision), "progress_notify": True}
    return encode({"create_request": asked})


def member_add_body(peer_urls: Sequence[str], *, learner: bool) -> bytes:
    """For /cluster/member/add."""
    return encode({"peerURLs": list(peer_urls), "isLearner": learner})


def member_body(member_id: str) -> bytes:
    """For /cluster/member/remove and /cluster/member/promote. Raises ValueError if the id is not hexadecimal."""
    return encode({"ID": decimal(member_id)})


def move_leader_body(target_id: str) -> bytes:
    """For /maintenance/transfer-leadership. Raises ValueError if the id is not hexadecimal."""
    return encode({"targetID": decimal(target_id)})


def lease_grant_body(seconds: int) -> bytes:
    """For /lease/grant; etcd chooses the id."""
    return encode({"TTL": str(seconds)})


def lease_body(lease: str) -> bytes:
    """For /lease/keepalive and /lease/revoke."""
    return encode({"ID": lease})


def authenticate_body(username: str, password: str) -> bytes:
    """For /auth/authenticate."""
    return encode({"name": username, "password": password})


def user_body(username: str) -> bytes:
    """For /auth/user/get."""
    return encode({"name": username})


def decimal(member_id: str) -> str:
    """The id in the gateway's form. Raises ValueError if it is not lower-case hexadecimal of up to 64 bits."""
    if not _MEMBER_ID.fullmatch(member_id):
        raise ValueError(f"not the id of a member: {member_id!r}")
    return str(int(member_id, 16))


def _span(key: bytes, end: bytes | None) -> dict[str, Any]:
    return {"key": key} if end is None else {"key": key, "range_end": end}


def _compare(compare: Compare) -> dict[str, Any]:
    name = {"CREATE": "create_revision", "MOD": "mod_revision", "VALUE": "value"}[compare.target]
    wanted = compare.wanted if isinstance(compare.wanted, bytes) else str(compare.wanted)
    return {"key": compare.key, "target": compare.target, "result": "EQUAL", name: wanted}


def _operation(op: Op) -> dict[str, Any]:
    match op:
        case Put():
            return {"request_put": {"key": op.key, "value": op.value, "lease": op.lease}}
        case Delete():
            return {"request_delete_range": _span(op.key, op.end)}
        case Get():
            return {"request_range": _span(op.key, op.end)}
