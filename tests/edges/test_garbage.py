"""Clients that come, hear something and go leave nothing behind that only the garbage collector could free."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import trio

from tests.support.whole_daemon import RunningDaemon, whole_daemon

CLIENTS = 40


async def visit(house: RunningDaemon) -> None:
    client = await house.connect({})
    assert await client.text() is not None
    await client.stream.aclose()


async def test_clients_that_come_and_go_leave_no_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(60):
        async with whole_daemon(tmp_path, monkeypatch) as house:
            await visit(house)
            gc.collect()
            gc.disable()
            try:
                for _ in range(CLIENTS):
                    await visit(house)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                left = [thing for thing in gc.garbage if type(thing).__module__.startswith("heliosd")]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
    # One each would be forty; the simulated source's own odds and ends are none of theirs.
    assert len(left) < CLIENTS / 4, left
