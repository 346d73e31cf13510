"""What etcd's refusals and failures mean: bodies as a real etcd 3.4.23 gave them; those marked 3.6 are made."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.etcd.client import errors
from heliosd.cluster.etcd.client.errors import Failure, meaning, read_failure, refused_error, unavailable

PLAIN = [
    (
        400,
        b'{"error":"E","message":"etcdserver: duplicate key given in txn request","code":3}',
        errors.EtcdRefused,
    ),
    (403, b'{"error":"E","message":"etcdserver: permission denied","code":7}', errors.EtcdDenied),
    (401, b'{"error":"E","message":"etcdserver: invalid auth token","code":16}', errors.EtcdTokenEnded),
    (
        400,
        b'{"error":"E","message":"etcdserver: revision of auth store is old","code":3}',
        errors.EtcdTokenEnded,
    ),
    (500, b'{"error":"E","message":"auth: revision in header is old","code":2}', errors.EtcdTokenEnded),
    (400, b'{"error":"E","message":"etcdserver: user name is empty","code":3}', errors.EtcdLoginRefused),
    (
        400,
        b'{"error":"E","code":3,"message":"etcdserver: authentication failed, invalid user ID or password"}',
        errors.EtcdLoginRefused,
    ),
    (
        400,
        b"CommonName of client sending a request against gateway will be ignored and not used as expected\n",
        errors.EtcdLoginRefused,
    ),
    (
        500,
        b'{"error":{"grpc_code":2,"http_code":500,"message":"auth: permission denied","http_status":"X"}}',
        errors.EtcdDenied,
    ),
    (
        400,
        b'{"error":"E","message":"etcdserver: mvcc: required revision has been compacted","code":11}',
        errors.EtcdCompacted,
    ),
    (
        429,
        b'{"error":"E","message":"etcdserver: mvcc: database space exceeded","code":8}',
        errors.EtcdNoSpace,
    ),
    (404, b'{"error":"E","message":"etcdserver: requested lease not found","code":5}', errors.EtcdLeaseGone),
    (412, b'{"error":"E","message":"etcdserver: not leader","code":9}', errors.EtcdNotLeader),
    (
        412,
        b'{"error":"E","message":"etcdserver: can only promote a learner member which is in sync with leader",'
        b'"code":9}',
        errors.EtcdLearnerBehind,
    ),
    (404, b'{"code":5,"message":"etcdserver: member not found","details":[]}', errors.EtcdRefused),  # 3.6
]


@pytest.mark.parametrize(("status", "content", "kind"), PLAIN)
def test_each_refusal_is_a_class_and_certain_also_for_writes(
    status: int, content: bytes, kind: type[errors.EtcdRefused]
) -> None:
    failure = read_failure(status, content)
    error = refused_error("http://h:2379", failure)
    assert isinstance(error, kind)
    assert str(error).startswith("http://h:2379: ")
    assert meaning(failure, write=True) == meaning(failure, write=False) == "refused"


@pytest.mark.parametrize(
    ("status", "content", "write", "read"),
    [
        (503, b'{"error":"E","message":"etcdserver: request timed out","code":14}', "unknown", "elsewhere"),
        (500, b'{"error":"E","message":"context deadline exceeded","code":2}', "unknown", "elsewhere"),
        (503, b'{"error":"E","message":"etcdserver: server stopped","code":14}', "unknown", "elsewhere"),
        (503, b'{"error":"E","message":"transport is closing","code":14}', "unknown", "elsewhere"),
        (502, b"<html>Bad Gateway</html>", "unknown", "elsewhere"),
        (500, b"", "unknown", "elsewhere"),
        (503, b'{"error":"E","message":"etcdserver: no leader","code":14}', "elsewhere", "elsewhere"),
        (
            503,
            b'{"error":"E","message":"etcdserver: rpc not supported for learner","code":14}',
            "elsewhere",
            "elsewhere",
        ),
        (429, b'{"error":"E","message":"etcdserver: too many requests","code":8}', "elsewhere", "elsewhere"),
        (500, b'{"error":"E","message":"raft proposal dropped","code":2}', "elsewhere", "elsewhere"),
        (503, b'{"error":"E","message":"etcdserver: unhealthy cluster","code":14}', "elsewhere", "elsewhere"),
    ],
)
def test_whether_a_write_may_have_been_done_goes_by_what_etcd_says(
    status: int, content: bytes, write: str, read: str
) -> None:
    failure = read_failure(status, content)
    assert (meaning(failure, write=True), meaning(failure, write=False)) == (write, read)


def test_no_leader_is_a_class_of_its_own() -> None:
    assert type(unavailable("h", Failure(14, "etcdserver: no leader"))) is errors.EtcdNoLeader
    assert type(unavailable("h", Failure(14, "etcdserver: too many requests"))) is errors.EtcdUnavailable


def test_a_server_without_a_gateway_is_recognised() -> None:
    failure = read_failure(404, b"404 page not found\n")
    assert (failure.code, "no JSON gateway" in failure.message) == (errors.UNIMPLEMENTED, True)


@given(
    st.integers(300, 599),
    st.binary(max_size=300) | st.text().map(lambda text: json.dumps({"error": text}).encode()),
)
def test_an_error_is_one_printable_line_whatever_was_answered(status: int, content: bytes) -> None:
    failure = read_failure(status, content)
    assert failure.message
    assert failure.message.isprintable()
    assert len(failure.message) <= errors.MAX_REASON_CHARS
    assert str(refused_error("", failure)).isprintable()
