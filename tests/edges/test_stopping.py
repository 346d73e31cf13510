"""The whole daemon is stopped while its disk stands still."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
import trio

from heliosd.daemon import tree
from heliosd.hub.inbox import until
from heliosd.protocol.close_codes import GOING_AWAY
from heliosd.store.changes import Change
from heliosd.store.store import Store
from tests.support.deadlines import SECONDS
from tests.support.engines import on_both_engines
from tests.support.whole_daemon import Source, whole_daemon


@on_both_engines
@pytest.mark.parametrize("grace", [0.0, 0.2])
async def test_clients_get_1001_within_the_shortest_grace_though_an_event_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float, fanout: str
) -> None:
    save, stands_still = Store.save, False

    async def held(store: Store, changes: Sequence[Change]) -> None:
        if stands_still:
            await trio.sleep_forever()
        await save(store, changes)

    monkeypatch.setattr(Store, "save", held)
    with trio.fail_after(SECONDS):
        async with whole_daemon(tmp_path, monkeypatch, shutdown_grace=grace, fanout=fanout) as house:
            client = await house.connect({})
            await client.text()
            stands_still = True
            await house.source.publish(1)
            house.stop()
            while isinstance(last := await client.text(), bytes):
                pass
    assert last == GOING_AWAY.code


async def test_a_stop_waits_a_while_for_the_end_of_the_session_and_says_when_it_gave_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = trio.Event()

    async def close(_: Source) -> None:
        try:
            await trio.sleep_forever()
        finally:
            over.set()

    monkeypatch.setattr(Source, "close", close)
    monkeypatch.setattr(tree, "SESSION_END_SECONDS", 0.05)
    with trio.fail_after(SECONDS), structlog.testing.capture_logs() as logged:
        async with whole_daemon(tmp_path, monkeypatch) as house:
            house.stop()
            await over.wait()
            await until(lambda: bool(logged) and "was not stored in time" in logged[-1]["event"])
