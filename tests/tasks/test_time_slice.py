"""Turns: who does much at once lets others run in between, and not too often."""

from __future__ import annotations

from unittest.mock import patch

from trio.testing import MockClock, assert_checkpoints

from heliosd.hub import time_slice
from heliosd.hub.time_slice import TURN_SECONDS, TimeSlice


async def test_a_turn_is_over_when_its_time_is_and_after_a_rest_another_begins(
    autojump_clock: MockClock,
) -> None:
    at = 100.0
    with patch.object(time_slice, "perf_counter", lambda: at):
        one = TimeSlice()
        assert not one.over
        at += TURN_SECONDS * 0.9
        assert not one.over
        at += TURN_SECONDS * 0.2
        assert one.over
        with assert_checkpoints():
            await one.pause()
        assert not one.over
