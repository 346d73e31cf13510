"""What is kept of messages is bounded by their bytes."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.protocol.message import Kind, OutgoingMessage, merged
from heliosd.protocol.message_cache import cached_up_to
from heliosd.protocol.subscription import Subscription, Topic


@given(st.lists(st.binary(max_size=8), max_size=50))
def test_the_last_results_are_kept_as_many_as_there_is_room_for_and_one_at_least(asked: list[bytes]) -> None:
    derived: list[bytes] = []

    @cached_up_to(5, 20, len)
    def doubled(text: bytes) -> bytes:
        derived.append(text)
        return text * 2

    kept: list[bytes] = []
    for text in asked:
        before = len(derived)
        assert doubled(text) == text * 2
        assert (len(derived) == before) == (text in kept)
        kept = [*(each for each in kept if each != text), text]
        while len(kept) > 5 or (len(kept) > 1 and sum(map(len, kept)) > 20):
            kept.pop(0)


@pytest.mark.extended
def test_long_messages_that_were_filtered_and_merged_do_not_stay_in_memory() -> None:
    wanted = Subscription.parse({"custom_metrics": {"names": ["a*"]}})

    def values(serial: int) -> OutgoingMessage:
        metrics = ",".join(
            f'"m{number}_{serial}":{{"value":{number},"labels":{{}}}}' for number in range(4000)
        )
        payload = f'{{"type":"custom_metrics","data":{{{metrics}}}}}'.encode()
        return OutgoingMessage("custom_metrics", Kind.VALUE, Topic.CUSTOM_METRICS, payload)

    tracemalloc.start()
    try:
        for serial in range(12):
            assert values(serial).filtered_for(wanted) is None
            assert len(merged(values(serial), values(serial + 1)).payload) > 256 * 1024
        assert tracemalloc.get_traced_memory()[0] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
