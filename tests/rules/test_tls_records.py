"""Records of TLS, counted as they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heliosd.websocket.tls_records import RecordCount


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + b"?" * size


@given(st.lists(st.one_of(st.integers(0, 20), st.sampled_from([255, 256, 16_640]))), st.integers(1, 40_000))
def test_the_count_is_the_same_however_the_bytes_are_cut(sizes: list[int], piece: int) -> None:
    wire = b"".join(map(record, sizes))
    count = RecordCount()
    for at in range(0, len(wire), piece):
        count.add(wire[at : at + piece])
    assert (count.without_data, count.lacking) == (len(sizes), 0)


@given(st.integers(0, 16_640), st.integers(0, 16_640))
def test_it_says_what_the_last_record_lacks(size: int, come: int) -> None:
    count = RecordCount()
    count.add(record(3) + record(size)[: 5 + min(come, size)])
    assert count.lacking == max(0, size - come)


def test_records_with_data_make_up_for_as_many_without() -> None:
    count = RecordCount()
    for _ in range(1000):
        count.add(record(20) * 2)
        count.data_read()
    assert count.without_data == 0
    for _ in range(10):
        count.add(record(20) * 3)
        count.data_read()
    assert count.without_data == 10
