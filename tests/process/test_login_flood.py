"""More logins than can be hashed: a few are, the rest are refused at once, and no other request waits for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from heliosd.auth.passwords import hash_password
from tests.attacks.target import Target
from tests.support.daemon_process import PASSWORD, Daemon, running, write_config
from tests.support.deadlines import SECONDS

RATE = 200
"""Logins a second."""
HASH_BYTES = 19_456 * 1024


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path, write_config(tmp_path, password_hash=hash_password(PASSWORD))) as started:
        assert started.token()  # what a login needs is loaded by the first one
        yield started


@dataclass
class Flood:
    """The statuses of the logins, and the durations of another client's requests meanwhile."""

    daemon: Daemon
    statuses: Counter[int] = field(default_factory=Counter)
    refused_seconds: list[float] = field(default_factory=list)
    canary_seconds: list[float] = field(default_factory=list)
    most_rss: int = 0
    over: bool = False

    async def run(self, seconds: float) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._canary)
            async with trio.open_nursery() as logins:
                start = trio.current_time()
                for number in range(int(RATE * seconds)):
                    await trio.sleep_until(start + number / RATE)
                    logins.start_soon(self._log_in, number)
            self.over = True

    async def _log_in(self, number: int) -> None:
        right = number % 4 == 0
        name, password = ("viewer", PASSWORD) if right else (f"guess-{number}", "guess")
        body = json.dumps({"username": name, "password": password})
        since = trio.current_time()
        answer = await self._ask(
            f"POST /api/auth/login HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}",
            body,
        )
        status = int(answer.split()[1])
        self.statuses[status] += 1
        if status in {429, 503}:
            assert b"\r\nretry-after: " in answer.lower()
            self.refused_seconds.append(trio.current_time() - since)

    async def _canary(self) -> None:
        while not self.over:
            since = trio.current_time()
            answer = await self._ask("GET /healthz HTTP/1.1")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            self.canary_seconds.append(trio.current_time() - since)
            self.most_rss = max(self.most_rss, self.daemon.rss_bytes())
            await trio.sleep(0.02)

    async def _ask(self, head: str, body: str = "") -> bytes:
        # By hand, since a real client costs more than what is measured.
        host, _, port = self.daemon.address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            lines = f"{head}\r\nHost: {self.daemon.address}\r\nConnection: close"
            await stream.send_all(f"{lines}\r\n\r\n{body}".encode())
            return b"".join([received async for received in stream])


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def test_of_a_flood_of_logins_two_are_hashed_at_once_and_the_rest_are_refused(daemon: Daemon) -> None:
    flood = Flood(daemon)
    before = daemon.rss_bytes()
    trio.run(flood.run, 1.5)
    assert set(flood.statuses) <= {200, 401, 429, 503}
    assert flood.statuses[503] > 0
    assert flood.statuses[200] > 0
    # A hash holds its memory while it runs: more than two at once would show.
    assert flood.most_rss - before < 3 * HASH_BYTES
    assert daemon.token()


@pytest.mark.extended
def test_thirty_right_logins_at_once_end_well_for_clients_that_obey_retry_after(daemon: Daemon) -> None:
    async def enter() -> None:
        target = Target("127.0.0.1", int(daemon.address.rpartition(":")[2]), "viewer", PASSWORD)
        assert await target.new_token()
        assert set(target.statuses) <= {200, 503}
        assert target.faults == []

    async def enter_all() -> None:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(enter)

    trio.run(enter_all)


async def hold_login(address: str) -> bytes:
    """The beginning of the answer to a login that sends all but the end of a body of 1 MiB."""
    host, _, port = address.rpartition(":")
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n"
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(trio.BrokenResourceError):  # refused by its head: the rest need not be read
                await stream.send_all(head + b" " * 1_048_013)

        nursery.start_soon(send)
        answer = await stream.receive_some(64)
        nursery.cancel_scope.cancel()
        return answer


@pytest.mark.extended
def test_logins_with_large_bodies_that_are_held_back_cost_no_memory(daemon: Daemon) -> None:
    answers: list[bytes] = []

    async def hold() -> None:
        answers.append(await hold_login(daemon.address))

    async def hold_many() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(hold)

    before = daemon.rss_bytes()
    trio.run(hold_many)
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 413 "}
    assert daemon.rss_bytes() - before < 16 * 1024 * 1024
    assert daemon.token()


@pytest.mark.slow
def test_a_flood_of_logins_keeps_no_other_client_waiting(daemon: Daemon) -> None:
    flood = Flood(daemon)
    trio.run(flood.run, 20.0)
    measured = {
        "statuses": dict(flood.statuses),
        "canary p50/p99 ms": [round(percentile(flood.canary_seconds, p) * 1000, 1) for p in (0.5, 0.99)],
        "refused p99 ms": round(percentile(flood.refused_seconds, 0.99) * 1000, 1),
    }
    print(json.dumps(measured))
    assert percentile(flood.canary_seconds, 0.99) <= 0.05, measured
