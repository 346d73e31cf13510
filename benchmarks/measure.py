"""One measurement: a fresh server on one CPU, the load client on another, and what a delivery cost by each mode."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from math import isnan, nan
from pathlib import Path
from statistics import median

from .certificate import write_certificate
from .load import Connected, Load, LoadFailed, Window, loading
from .process import BUILD, Running, Task
from .scrape import LAG, QUEUED, buckets, quantile, scraped, value
from .servers import Server

BURST = 8
"""Messages that are due in the same moment."""

BLOCKED_SHARE = 0.2
FILL_SECONDS = 1.5
"""Of lockstep, until those who are not read have no room left; less than heliosd waits for them."""


class Mode(StrEnum):
    PACED = "paced"
    LOCKSTEP = "lockstep"
    BURSTS = "bursts"
    BLOCKED = "blocked"
    TLS = "tls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """How long what lasts."""

    idle: float = 1.0
    warmup: float = 1.0
    paced: float = 2.0
    lockstep: float = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """A server with so many clients. `special` is a mode that needs clients of its own."""

    server: str
    clients: int
    special: Mode | None = None

    @property
    def interval(self) -> float:
        """Seconds between two status messages when they are paced."""
        return 0.1 if self.clients <= 1000 else 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one server did in one round. nan: not measured."""

    idle_percent: float = nan
    """Of its CPU, with no client."""
    accepts: float = nan
    """Connections upgraded a second."""
    accept_us: float = nan
    """The server's CPU time for each."""
    rss_kib: float = nan
    """Resident memory a connection, above that of the server with no client."""
    message_bytes: float = nan
    """Mean payload of the messages received."""
    paced_us: float = nan
    """The server's CPU time a delivery in microseconds, user and system, without what it costs when idle."""
    paced_p50_ms: float = nan
    paced_p99_ms: float = nan
    arrived: float = nan
    """Messages received over the status messages due; above 1 when there are messages of other types."""
    flood_us: float = nan
    flood_p99_ms: float = nan
    lag_p99_ms: float = nan
    """Of heliosd's loop, in lockstep."""
    burst_us: float = nan
    """A delivery's, with `BURST` messages in the same moment."""
    blocked_us: float = nan
    """A delivery's to those who read, while `BLOCKED_SHARE` of all do not."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The two CPUs and the times that all measurements of a run share."""

    server_cpu: int
    load_cpu: int
    seconds: Seconds = Seconds()
    deflate: bool = False

    def measure(self, server: Server, case: Case, modes: frozenset[Mode], message_bytes: int) -> Sample:
        """Raises ServerFailed or LoadFailed: also when a client is refused or lost, or nothing arrives."""
        tls = case.special is Mode.TLS
        beats, beating = os.pipe()
        try:
            with tempfile.TemporaryDirectory(prefix="heliosd-bench-") as scratch:
                task = Task(
                    interval=case.interval,
                    message_bytes=message_bytes,
                    clients=case.clients,
                    cpu=self.server_cpu,
                    scratch=Path(scratch),
                    beats=None if modes == {Mode.PACED} else beats,
                    certificate=Path(scratch, "certificate.pem") if tls else None,
                )
                if task.certificate is not None:
                    write_certificate(task.certificate)
                with (
                    contextmanager(server.start)(task) as running,
                    loading(
                        BUILD / ("load_tls" if tls else "load"),
                        running,
                        cpu=self.load_cpu,
                        beats=beating,
                        deflate=self.deflate and server.name == "heliosd",
                    ) as load,
                ):
                    return self._sample(load, running, case, modes)
        finally:
            os.close(beats)
            os.close(beating)

    def _sample(self, load: Load, running: Running, case: Case, modes: frozenset[Mode]) -> Sample:
        blocked = case.special is Mode.BLOCKED
        idle = load.count(self.seconds.idle)
        idle_share = idle.cpu_seconds / idle.seconds
        connected = load.connect(case.clients, round(case.clients * BLOCKED_SHARE) if blocked else 0)
        load.rest(self.seconds.warmup)
        sample = _of_connecting(case, connected, idle_share)
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
                rss_kib=(window.resident_after - connected.resident_before) / case.clients / 1024,
            )
        if Mode.LOCKSTEP in modes or blocked:
            exports = running.name == "heliosd" and case.special is None
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


def medians(samples: list[Sample]) -> Sample:
    """Of each figure the median; of `arrived` the least."""
    figures = {
        field.name: [figure for sample in samples if not isnan(figure := getattr(sample, field.name))]
        for field in fields(Sample)
    }
    middle = {name: median(of) for name, of in figures.items() if of}
    if figures["arrived"]:
        middle["arrived"] = min(figures["arrived"])
    return Sample(**middle)


def _of_connecting(case: Case, connected: Connected, idle_share: float) -> Sample:
    return Sample(
        idle_percent=idle_share * 100,
        accepts=case.clients / connected.seconds,
        accept_us=(connected.cpu_seconds - idle_share * connected.seconds) / case.clients * 1e6,
    )


def _cost_us(running: Running, window: Window, idle_share: float) -> float:
    if not window.deliveries:
        raise LoadFailed(f"{running.name}: nothing arrived")
    return (window.cpu_seconds - idle_share * window.seconds) / window.deliveries * 1e6
