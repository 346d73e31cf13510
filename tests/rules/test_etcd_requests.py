"""What is asked of etcd."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.etcd.client import requests
from heliosd.cluster.etcd.client.responses import read_members

ANY_BYTES = st.binary(min_size=1, max_size=40)


def test_a_transaction_has_its_keys_as_base64_and_its_numbers_as_text() -> None:
    body = requests.txn_body(
        [requests.absent(b"\x00\xff"), requests.mod_is(b"a", 2**62), requests.value_is(b"b", b"x")],
        [requests.put(b"a", b"x", "6277914559069042948"), requests.delete(b"a", b"b")],
        [requests.get(b"a")],
    )
    assert json.loads(body) == {
        "compare": [
            {"key": "AP8=", "target": "CREATE", "result": "EQUAL", "create_revision": "0"},
            {"key": "YQ==", "target": "MOD", "result": "EQUAL", "mod_revision": "4611686018427387904"},
            {"key": "Yg==", "target": "VALUE", "result": "EQUAL", "value": "eA=="},
        ],
        "success": [
            {"request_put": {"key": "YQ==", "value": "eA==", "lease": "6277914559069042948"}},
            {"request_delete_range": {"key": "YQ==", "range_end": "Yg=="}},
        ],
        "failure": [{"request_range": {"key": "YQ=="}}],
    }


@given(ANY_BYTES, ANY_BYTES)
def test_the_end_of_a_prefix_is_behind_all_that_begins_with_it_and_before_all_else(
    prefix: bytes, other: bytes
) -> None:
    end = requests.prefix_end(prefix)
    inside = prefix <= other and (end == b"\0" or other < end)  # "\0" is etcd's word for "no end"
    assert inside == (other.startswith(prefix) or (end == b"\0" and other >= prefix))
    assert requests.prefix_end(b"/heliosd/") == b"/heliosd0"


@given(st.integers(1, 2**64 - 1))
def test_ids_go_to_etcd_in_the_numbers_they_came_in(number: int) -> None:
    member = read_members(b'{"members":[{"ID":"%d"}]}' % number)[0]
    assert json.loads(requests.member_body(member.id)) == {"ID": str(number)}


@pytest.mark.parametrize("text", ["", "node-1", "0x5", "1" * 17, "-1", " 5", "g", "5_5"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the id of a member"):
        requests.member_body(text)
