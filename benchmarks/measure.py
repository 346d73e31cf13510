"""One measurement: fresh servers on one CPU, their load clients on another, and what a delivery cost by each mode.

The servers that are compared are all up and take turns of half a second: a shared machine has good and bad moments
that last longer, and meet all of them. Who is not asked for anything costs next to nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from .certificate import write_certificate
from .load import Connected, Load, LoadFailed, Window, loading
from .process import BUILD, Running, Task
from .results import BLOCKED_SHARE, BURST, Case, Mode, Sample, is_heliosd
from .scrape import LAG, QUEUED, buckets, quantile, scraped, value
from .servers import Server

FILL_SECONDS = 1.5
"""Of lockstep, until those who are not read have no room left; less than heliosd waits for them."""

TURNS = 3
"""So often each server's turn comes in a mode; the median of its turns counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """How long what lasts."""

    idle: float = 0.5
    idle_daemon: float = 2.0
    """heliosd has a cluster to simulate; what it costs by itself is taken off all the rest."""
    warmup: float = 0.5
    paced: float = 0.5
    """A turn, but one message at least."""
    lockstep: float = 0.4
    """A turn."""
    lag: float = 8.0


@dataclass(frozen=True, slots=True)
class _Started:
    """A server with its clients."""

    case: Case
    running: Running
    load: Load
    idle_share: float
    connected: Connected
    rss_kib: float

    @property
    def is_ours(self) -> bool:
        return is_heliosd(self.running.name)

    def cost_us(self, windows: Sequence[Window], *, idle_too: bool = False) -> float:
        """The median of what a delivery cost in each, without what it costs when idle unless `idle_too`."""
        idle_share = 0.0 if idle_too else self.idle_share
        return median(
            (window.cpu_seconds - idle_share * window.seconds) / window.deliveries * 1e6 for window in windows
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """The two CPUs and the times that all measurements of a run share."""

    server_cpu: int
    load_cpu: int
    seconds: Seconds = Seconds()
    deflate: bool = False

    def measure(
        self, compared: Sequence[tuple[Server, Case]], modes: frozenset[Mode], message_bytes: int
    ) -> dict[Case, Sample]:
        """What each did. Where heliosd is among them it comes first, and the others send as much as it does.

        Raises ServerFailed or LoadFailed: also when a client is refused or lost, or nothing arrives.
        """
        with ExitStack() as all_up:
            started: list[_Started] = []
            for server, case in compared:
                one = all_up.enter_context(self._started(server, case, modes, message_bytes))
                started.append(one)
                if one.is_ours and not modes & {Mode.ACCEPTS, Mode.LAG}:
                    message_bytes = _bytes_a_message(one, case)
            windows = self._windows(started, modes)
            return {one.case: self._sample(one, modes, windows) for one in started}

    @contextmanager
    def _started(
        self, server: Server, case: Case, modes: frozenset[Mode], message_bytes: int
    ) -> Iterator[_Started]:
        """A server with its clients, which sends only on request."""
        tls = case.alone is Mode.TLS
        with ExitStack() as up:
            beats, beating = os.pipe()
            up.callback(os.close, beats)
            up.callback(os.close, beating)
            scratch = Path(up.enter_context(tempfile.TemporaryDirectory(prefix="heliosd-bench-")))
            task = Task(
                interval=case.interval,
                message_bytes=message_bytes,
                clients=case.clients,
                cpus=self._cpus(modes),
                scratch=scratch,
                beats=beats,
                certificate=scratch / "certificate.pem" if tls else None,
                own_tokens=case.alone is Mode.ACCEPTS,
            )
            if task.certificate is not None:
                write_certificate(task.certificate)
            running = up.enter_context(contextmanager(server.start)(task))
            load = up.enter_context(
                loading(
                    BUILD / ("load_tls" if tls else "load"),
                    running,
                    cpu=self.load_cpu,
                    eager=self.load_cpu != self.server_cpu,
                    beats=beating,
                    deflate=self.deflate and is_heliosd(server.name),
                )
            )
            load.hush()
            load.rest(self.seconds.warmup)
            idle = load.count(self.seconds.idle_daemon if is_heliosd(server.name) else self.seconds.idle)
            narrow = round(case.clients * BLOCKED_SHARE) if Mode.BLOCKED in modes else 0
            connected = load.connect(case.clients, narrow)
            load.rest(self.seconds.warmup)
            resident = load.count(0.0).resident_after - connected.resident_before
            yield _Started(
                case=case,
                running=running,
                load=load,
                idle_share=idle.cpu_seconds / idle.seconds,
                connected=connected,
                rss_kib=resident / case.clients / 1024,
            )

    def _cpus(self, modes: frozenset[Mode]) -> str:
        """One for the server; where its loop's lag is looked at, any, since other threads of it may be writing."""
        return f"{self.server_cpu},{self.load_cpu}" if Mode.LAG in modes else str(self.server_cpu)

    def _windows(
        self, started: Sequence[_Started], modes: frozenset[Mode]
    ) -> dict[tuple[Case, Mode], list[Window]]:
        """Turn by turn, what each server did in each mode."""
        seconds = self.seconds
        ask: dict[Mode, Callable[[_Started], Window]] = {
            Mode.PACED: lambda one: one.load.pace(max(seconds.paced, one.case.interval), one.case.interval),
            Mode.LOCKSTEP: lambda one: one.load.rounds(seconds.lockstep),
            Mode.BURSTS: lambda one: one.load.rounds(seconds.lockstep, BURST),
        }
        windows: dict[tuple[Case, Mode], list[Window]] = {}
        for _ in range(TURNS):
            for mode in [mode for mode in ask if mode in modes]:
                for one in started:
                    windows.setdefault((one.case, mode), []).append(_with_arrivals(one, ask[mode]))
        return windows

    def _sample(
        self, one: _Started, modes: frozenset[Mode], windows: dict[tuple[Case, Mode], list[Window]]
    ) -> Sample:
        case, load = one.case, one.load
        sample = _of_connecting(one)
        if paced := windows.get((case, Mode.PACED)):
            deliveries = sum(window.deliveries for window in paced)
            resident = paced[-1].resident_after - one.connected.resident_before
            sample = replace(
                sample,
                paced_us=one.cost_us(paced),
                paced_all_us=one.cost_us(paced, idle_too=True),
                paced_p50_ms=median(window.p50_ms for window in paced),
                paced_p99_ms=median(window.p99_ms for window in paced),
                arrived=deliveries / (case.clients * sum(window.rounds for window in paced)),
                message_bytes=sum(window.payload_bytes for window in paced) / deliveries,
                rss_kib=resident / case.clients / 1024,
            )
        if flood := windows.get((case, Mode.LOCKSTEP)):
            sample = replace(
                sample,
                flood_us=one.cost_us(flood),
                flood_p99_ms=median(window.p99_ms for window in flood),
                message_bytes=flood[-1].payload_bytes / flood[-1].deliveries,
            )
        if bursts := windows.get((case, Mode.BURSTS)):
            sample = replace(sample, burst_us=one.cost_us(bursts))
        if Mode.LAG in modes:
            before = buckets(scraped(one.running), LAG)
            load.rounds(self.seconds.lag)
            after = buckets(scraped(one.running), LAG)
            sample = replace(sample, lag_p99_ms=quantile(before, after, 0.99) * 1000)
        if Mode.BLOCKED in modes:
            load.block()
            load.rounds(FILL_SECONDS)
            if one.is_ours and value(scraped(one.running), QUEUED) < case.clients * BLOCKED_SHARE:
                raise LoadFailed(f"{one.running.name}: who is not read is not blocked")
            blocked = [
                _with_arrivals(one, lambda one: one.load.rounds(self.seconds.lockstep)) for _ in range(TURNS)
            ]
            sample = replace(sample, blocked_us=one.cost_us(blocked))
        return sample


def _bytes_a_message(one: _Started, case: Case) -> int:
    """Of what heliosd sends."""
    window = _with_arrivals(one, lambda one: one.load.pace(case.interval, case.interval))
    return round(window.payload_bytes / window.deliveries)


def _with_arrivals(one: _Started, ask: Callable[[_Started], Window]) -> Window:
    """The first window in which something arrived: on a busy machine a short one may end before."""
    for _ in range(20):
        window = ask(one)
        if window.deliveries:
            return window
    raise LoadFailed(f"{one.running.name}: nothing arrived")


def _of_connecting(one: _Started) -> Sample:
    took, clients = one.connected, one.case.clients
    return Sample(
        rss_kib=one.rss_kib,
        idle_percent=one.idle_share * 100,
        accepts=clients / took.seconds,
        accept_us=(took.cpu_seconds - one.idle_share * took.seconds) / clients * 1e6,
    )
