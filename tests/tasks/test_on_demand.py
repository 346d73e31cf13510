"""What is loaded when it is first asked for."""

from __future__ import annotations

import sys
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from heliosd.on_demand import SWITCH_SECONDS, OnDemand
from tests.support.deadlines import SECONDS


async def test_others_run_while_it_is_loaded_and_all_who_ask_get_the_same() -> None:
    usual, others_ran, loads = sys.getswitchinterval(), threading.Event(), []

    def load() -> object:
        loads.append(threading.current_thread())
        assert others_ran.wait(SECONDS)
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
        return object()

    late, got = OnDemand(load), []

    async def ask() -> None:
        got.append(await late.get())

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            others_ran.set()
    assert len(set(map(id, got))) == len(loads) == 1
    assert loads[0] is not threading.current_thread()
    assert await late.get() is got[0]
    assert sys.getswitchinterval() == pytest.approx(usual)


async def test_a_load_that_fails_is_tried_again() -> None:
    outcomes = [ImportError("no such module"), None]

    def load() -> str:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "loaded"

    late = OnDemand(load)
    with pytest.raises(ImportError, match="no such module"):
        await late.get()
    assert await late.get() == "loaded"
