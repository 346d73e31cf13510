"""One measurement: a fresh server on one CPU, the load client on another, and what a delivery cost by each mode."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .certificate import write_certificate
from .load import Connected, Load, LoadFailed, Window, loading
from .process import BUILD, Running, Task
from .results import BLOCKED_SHARE, BURST, Case, Mode, Sample
from .scrape import LAG, QUEUED, buckets, quantile, scraped, value
from .servers import Server

FILL_SECONDS = 1.5
"""Of lockstep, until those who are not read have no room left; less than heliosd waits for them."""


BEATEN = {Mode.LOCKSTEP, Mode.BURSTS, Mode.BLOCKED}
"""Modes in which the load client says when; for the others heliosd is started with nothing of the benchmark's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """How long what lasts."""

    idle: float = 1.0
    warmup: float = 0.5
    paced: float = 2.0
    lockstep: float = 1.0


@dataclass(frozen=True, slots=True)
class Bench:
    """The two CPUs and the times that all measurements of a run share."""

    server_cpu: int
    load_cpu: int
    seconds: Seconds = Seconds()
    deflate: bool = False

    def measure(self, server: Server, case: Case, modes: frozenset[Mode], message_bytes: int) -> Sample:
        """Raises ServerFailed or LoadFailed: also when a client is refused or lost, or nothing arrives."""
        tls = case.alone is Mode.TLS
        beats, beating = os.pipe()
        try:
            with tempfile.TemporaryDirectory(prefix="heliosd-bench-") as scratch:
                task = Task(
                    interval=case.interval,
                    message_bytes=message_bytes,
                    clients=case.clients,
                    cpu=self.server_cpu,
                    scratch=Path(scratch),
                    beats=beats if modes & BEATEN else None,
                    certificate=Path(scratch, "certificate.pem") if tls else None,
                    own_tokens=case.alone is Mode.ACCEPTS,
                )
                if task.certificate is not None:
                    write_certificate(task.certificate)
                with (
                    contextmanager(server.start)(task) as running,
                    loading(
                        BUILD / ("load_tls" if tls else "load"),
                        running,
                        cpu=self.load_cpu,
                        eager=self.load_cpu != self.server_cpu,
                        beats=beating,
                        deflate=self.deflate and server.name == "heliosd",
                    ) as load,
                ):
                    return self._sample(load, running, case, modes)
        finally:
            os.close(beats)
            os.close(beating)

    def _sample(self, load: Load, running: Running, case: Case, modes: frozenset[Mode]) -> Sample:
        blocked = Mode.BLOCKED in modes
        idle = load.count(self.seconds.idle)
        idle_share = idle.cpu_seconds / idle.seconds
        connected = load.connect(case.clients, round(case.clients * BLOCKED_SHARE) if blocked else 0)
        load.rest(self.seconds.warmup)
        sample = _of_connecting(case, connected, load.count(0.0), idle_share)
        if Mode.PACED in modes:
            window = load.count(self.seconds.paced)
            due = case.clients * window.seconds / case.interval
            sample = replace(
                sample,
                paced_us=_cost_us(running, window, idle_share),
                paced_p50_ms=window.p50_ms,
                paced_p99_ms=window.p99_ms,
                arrived=window.deliveries / due,
                message_bytes=window.payload_bytes / window.deliveries,
                rss_kib=_rss_kib(case, connected, window),
            )
        if Mode.LOCKSTEP in modes:
            exports = running.name == "heliosd" and case.alone is None
            before = buckets(scraped(running), LAG) if exports else {}
            window = load.rounds(self.seconds.lockstep)
            after = buckets(scraped(running), LAG) if exports else {}
            sample = replace(
                sample,
                flood_us=_cost_us(running, window, idle_share),
                flood_p99_ms=window.p99_ms,
                lag_p99_ms=quantile(before, after, 0.99) * 1000,
                message_bytes=window.payload_bytes / window.deliveries,
            )
        if Mode.BURSTS in modes:
            window = load.rounds(self.seconds.lockstep, BURST)
            sample = replace(sample, burst_us=_cost_us(running, window, idle_share))
        if blocked:
            load.block()
            load.rounds(FILL_SECONDS)
            if running.name == "heliosd" and value(scraped(running), QUEUED) < case.clients * BLOCKED_SHARE:
                raise LoadFailed(f"{running.name}: who is not read is not blocked")
            window = load.rounds(self.seconds.lockstep)
            sample = replace(sample, blocked_us=_cost_us(running, window, idle_share))
        return sample


def _of_connecting(case: Case, connected: Connected, then: Window, idle_share: float) -> Sample:
    return Sample(
        rss_kib=_rss_kib(case, connected, then),
        idle_percent=idle_share * 100,
        accepts=case.clients / connected.seconds,
        accept_us=(connected.cpu_seconds - idle_share * connected.seconds) / case.clients * 1e6,
    )


def _rss_kib(case: Case, connected: Connected, window: Window) -> float:
    return (window.resident_after - connected.resident_before) / case.clients / 1024


def _cost_us(running: Running, window: Window, idle_share: float) -> float:
    if not window.deliveries:
        raise LoadFailed(f"{running.name}: nothing arrived")
    return (window.cpu_seconds - idle_share * window.seconds) / window.deliveries * 1e6
