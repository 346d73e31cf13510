"""Bodies as a real etcd 3.4.23 gave them, and what is read from them. Those marked 3.6 are made."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heliosd.cluster.etcd.client import errors
from heliosd.cluster.etcd.client.errors import Failure, meaning, refused_error
from heliosd.cluster.etcd.client.responses import (
    EtcdMember,
    EtcdVersion,
    InStream,
    KeyValue,
    Lease,
    NotEtcd,
    ResponseHeader,
    read_lease,
    read_lease_line,
    read_member_added,
    read_members,
    read_range,
    read_snapshot_line,
    read_status,
    read_token,
    read_txn,
    read_version,
    read_watch_line,
)
from heliosd.cluster.etcd.client.streams import LineSplitter

H = (
    b'"header":{"cluster_id":"324952591200643719","member_id":"16948573228802758431",'
    b'"revision":"2","raft_term":"2"}'
)
HEADER = ResponseHeader("48276a8f75b6a87", "eb356d8de07bd71f", 2, 2)
KV = KeyValue(key=b"a", value=b"x", create_revision=2, mod_revision=2, version=1)
KV_JSON = b'{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"eA=="}'
ANY_BYTES = st.binary(min_size=1, max_size=40)


# Answers.


def test_ids_are_hexadecimal_as_etcdctl_prints_them_also_above_2_to_the_63() -> None:
    found = read_range(b"{" + H + b"}")
    assert found.header == HEADER
    assert (found.kvs, found.more, found.count) == ((), False, 0)


def test_a_range_has_its_keys_as_bytes_and_numbers_as_numbers() -> None:
    found = read_range(b"{" + H + b',"kvs":[' + KV_JSON + b'],"more":true,"count":"7"}')
    assert (found.kvs, found.more, found.count) == ((KV,), True, 7)


def test_an_empty_value_and_a_lease_are_read() -> None:
    kv = (
        b'{"key":"AP8=","create_revision":"3","mod_revision":"3","version":"1","lease":"6277914559069042948"}'
    )
    (found,) = read_range(b"{" + H + b',"kvs":[' + kv + b'],"count":"1"}').kvs
    assert (found.key, found.value, found.lease) == (b"\x00\xff", b"", "6277914559069042948")


def test_a_transaction_tells_which_branch_ran_and_what_each_get_found() -> None:
    content = (
        b'{"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}},'
        b'{"response_range":{"header":{"revision":"2"},"kvs":[' + KV_JSON + b'],"count":"1"}},'
        b'{"response_delete_range":{"header":{"revision":"2"}}},'
        b'{"response_range":{"header":{"revision":"2"}}}],' + H + b"}"
    )
    found = read_txn(content)
    assert (found.succeeded, found.responses) == (True, ((), (KV,), (), ()))
    assert read_txn(b"{" + H + b"}").succeeded is False


def test_a_status_without_a_leader_says_so() -> None:
    content = (
        b"{"
        + H
        + b',"version":"3.4.23","dbSize":"24576","raftIndex":"14","raftTerm":"3","raftAppliedIndex":"13",'
        b'"errors":["etcdserver: no leader"],"dbSizeInUse":"24576"}'
    )
    found = read_status(content)
    assert (found.leader, found.errors, found.is_learner) == ("", ("etcdserver: no leader",), False)
    assert (found.version, found.db_size) == ("3.4.23", 24576)
    assert (found.raft_index, found.raft_applied_index, found.raft_term) == (14, 13, 3)


def test_a_status_names_the_leader_and_a_learner() -> None:
    content = (
        b"{" + H + b',"version":"3.4.23","dbSize":"36864","leader":"8331342282060374218","raftIndex":"13",'
        b'"raftTerm":"2","raftAppliedIndex":"13","dbSizeInUse":"24576","isLearner":true}'
    )
    found = read_status(content)
    assert (found.leader, found.is_learner) == ("739edfaa0866a0ca", True)


def test_members_are_read_with_one_that_has_not_started() -> None:
    first = b'{"ID":"3319814642761637952","name":"n1","peerURLs":["http://h:2380"],"clientURLs":["http://h:2379"]}'
    added = b'{"ID":"10636399217070435360","peerURLs":["http://127.0.0.1:23900"],"isLearner":true}'
    content = b"{" + H + b',"member":' + added + b',"members":[' + first + b"," + added + b"]}"
    learner = EtcdMember("939c14bbdeb9ec20", "", ("http://127.0.0.1:23900",), (), True)
    assert read_members(content) == (
        EtcdMember("2e1259d415f2a040", "n1", ("http://h:2380",), ("http://h:2379",), False),
        learner,
    )
    assert read_member_added(content) == learner
    with pytest.raises(NotEtcd):
        read_member_added(b"{" + H + b"}")


def test_leases_are_granted_kept_and_gone() -> None:
    lease = Lease("2324035560950181135", 10)
    assert read_lease(b"{" + H + b',"ID":"2324035560950181135","TTL":"10"}') == lease
    assert read_lease_line(b'{"result":{' + H + b',"ID":"2324035560950181135","TTL":"10"}}\n') == lease
    assert read_lease_line(b'{"result":{' + H + b',"ID":"77"}}').seconds == 0


def test_a_watch_tells_puts_and_deletions_in_order() -> None:
    line = (
        b'{"result":{' + H + b',"events":[{"kv":' + KV_JSON + b'},{"type":"DELETE","kv":{"key":"YQ==",'
        b'"mod_revision":"4"}}]}}'
    )
    batch = read_watch_line(line)
    assert [(event.kind, event.kv) for event in batch.events] == [
        ("put", KV),
        ("delete", KeyValue(key=b"a", mod_revision=4)),
    ]
    assert not batch.created
    assert not batch.canceled


def test_a_watch_begins_and_may_have_its_start_compacted_away() -> None:
    created = read_watch_line(b'{"result":{' + H + b',"created":true}}')
    assert (created.created, created.events, created.compact_revision) == (True, (), 0)
    gone = read_watch_line(b'{"result":{' + H + b',"canceled":true,"compact_revision":"2"}}')
    assert (gone.canceled, gone.compact_revision) == (True, 2)


def test_a_sign_of_progress_has_no_events() -> None:
    batch = read_watch_line(b'{"result":{' + H + b"}}")
    assert (batch.events, batch.created, batch.header.revision) == ((), False, 2)


def test_a_watch_that_is_refused_is_an_error_though_its_status_is_200() -> None:
    line = (
        b'{"result":{' + H + b',"watch_id":"-1","created":true,"canceled":true,"cancel_reason":'
        b'"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}'
    )
    with pytest.raises(InStream) as raised:
        read_watch_line(line)
    assert raised.value.failure.message == "etcdserver: permission denied"
    assert isinstance(refused_error("http://h", raised.value.failure), errors.EtcdDenied)
    assert meaning(raised.value.failure, write=False) == "refused"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (
            b'{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader",'
            b'"http_status":"Service Unavailable"}}',
            14,
        ),
        (b'{"error":{"code":14,"message":"etcdserver: no leader","details":[]}}', 14),  # 3.6
    ],
)
def test_an_error_inside_a_stream_is_raised(line: bytes, code: int) -> None:
    for read in (read_watch_line, read_lease_line, read_snapshot_line):
        with pytest.raises(InStream) as raised:
            read(line)
        assert raised.value.failure == Failure(code, "etcdserver: no leader")


def test_parts_of_a_snapshot_are_bytes() -> None:
    assert read_snapshot_line(b'{"result":{"remaining_bytes":"4096","blob":"AAEC"}}') == b"\x00\x01\x02"


def test_a_token_is_read() -> None:
    assert read_token(b"{" + H + b',"token":"CjcHfhiqAtPyrJqn.27"}') == "CjcHfhiqAtPyrJqn.27"


@pytest.mark.parametrize(
    ("server", "prefix"),
    [("3.4.23", "/v3"), ("3.3.27", "/v3beta"), ("3.2.1", "/v3alpha"), ("3.6.0-rc.1", "/v3"), ("4.0", "/v3")],
)
def test_the_prefix_of_the_gateway_goes_by_the_version(server: str, prefix: str) -> None:
    assert read_version(b'{"etcdserver":"' + server.encode() + b'","etcdcluster":"3.4.0"}') == EtcdVersion(
        server
    )
    assert EtcdVersion(server).gateway == prefix


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"<html>", b"\xff", b'{"header":5}', b"[" * 100_000, b"null"]
)
def test_what_is_not_etcd_is_reported_as_that(content: bytes) -> None:
    for read in (read_status, read_txn, read_token, read_version):
        with pytest.raises(NotEtcd):
            read(content)


# Streams.


@given(
    st.data(),
    st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b" ").strip()), max_size=8),
)
@example(None, [])
def test_lines_are_the_same_wherever_their_bytes_are_cut(
    data: st.DataObject | None, lines: list[bytes]
) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream))))) if data else []
    cut = LineSplitter()
    got: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += cut.feed(stream[start:end])
    assert got == [line for line in lines if line]
    assert cut.finish() == []


@given(st.integers(0, 400))
def test_a_watch_is_read_the_same_wherever_it_is_cut(place: int) -> None:
    first = b'{"result":{' + H + b',"created":true}}\n'
    second = b'{"result":{' + H + b',"events":[{"kv":' + KV_JSON + b"}]}}\n"
    stream = first + second
    cut = LineSplitter()
    lines = [*cut.feed(stream[:place]), *cut.feed(stream[place:])]
    assert [read_watch_line(line) for line in lines] == [read_watch_line(first), read_watch_line(second)]


def test_a_last_line_without_an_end_is_a_line() -> None:
    cut = LineSplitter()
    assert cut.feed(b'{"a"') == []
    assert cut.feed(b":1}") == []
    assert cut.finish() == [b'{"a":1}']
    assert cut.finish() == []


def test_a_line_that_does_not_end_is_not_kept_for_ever() -> None:
    cut = LineSplitter(max_bytes=10)
    assert cut.feed(b"123456789\n12345") == [b"123456789"]
    with pytest.raises(NotEtcd):
        cut.feed(b"678901")
