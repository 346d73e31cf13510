"""What the measured figures must be: ratios of one run, and a few sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan

from .results import BURST, Case, Mode, Results, changes, figure, figures, median_of, ratios

LEAST_ARRIVED = 0.95


@dataclass(frozen=True, slots=True)
class TargetResult:
    """One target and what was measured of it, round by round."""

    what: str
    rounds: Sequence[float]
    limit: float
    at_least: bool = False

    @property
    def measured(self) -> float:
        """The median of the rounds; nan if nothing was measured."""
        return median_of(self.rounds)

    @property
    def spread(self) -> str:
        """The least and the most of the rounds; "" where there were not two."""
        return f"{min(self.rounds):.2f}–{max(self.rounds):.2f}" if len(self.rounds) > 1 else ""

    @property
    def held(self) -> bool:
        """What was not measured does not hold."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    @property
    def word(self) -> str:
        return "holds" if self.held else "not measured" if isnan(self.measured) else "MISSED"

    def __str__(self) -> str:
        measured = "" if isnan(self.measured) else f"{self.measured:.3f}, "
        return f"target: {self.what} {self.wanted}: {measured}{self.word}"


def judged(results: Results) -> list[TargetResult]:
    """Every target, those about what was not measured included."""
    return [*_fan_out(results), *_latency_and_scale(results), *_clients(results), *_storms(results)]


def too_few(results: Results) -> list[str]:
    """Servers that dropped messages: that is cheap, so their cost means nothing."""
    return [
        f"{case.server} delivered {arrived:.0%} of what was due to {case.clients:,} clients: its cost means nothing"
        for case in results
        if (arrived := figure(results, "arrived", case)) < LEAST_ARRIVED
    ]


_HUBS = (("go", 0.40), ("go-prepared", 0.60), ("centrifugo", 0.5))

_LIMITS = {
    # By io_uring, which is what "auto" takes where it can.
    ("heliosd", 1000, "paced"): (("c", 0.95), *_HUBS),
    ("heliosd", 1000, "lockstep"): (("c", 1.0), *_HUBS),
    ("heliosd", 5000, "paced"): (("c", 1.0), *_HUBS),
    ("heliosd", 5000, "lockstep"): (("c", 1.0), *_HUBS),
    ("heliosd-write", 1000, "paced"): (("c", 1.35), ("picows", 1.10)),
    ("heliosd-write", 1000, "lockstep"): (("c", 1.25),),
    ("heliosd-write", 5000, "paced"): (("c", 1.35), ("picows", 1.10)),
    ("heliosd-write", 5000, "lockstep"): (("c", 1.25),),
}
"""A delivery's CPU, in ratio to others': at most so much."""


def _fan_out(results: Results) -> Iterator[TargetResult]:
    for (server, clients, word), limits in _LIMITS.items():
        name = "paced_us" if word == "paced" else "flood_us"
        engine = " by os.write" if server == "heliosd-write" else ""
        for base, limit in limits:
            rounds = ratios(results, name, Case(server, clients), Case(base, clients))
            what = f"CPU a delivery{engine}, {word}, {clients:,} clients, × {base}"
            yield TargetResult(what, rounds, limit)


def _latency_and_scale(results: Results) -> Iterator[TargetResult]:
    for clients, base, limit in ((1000, "go", 0.5), (5000, "c", 0.9)):
        rounds = ratios(results, "paced_p99_ms", Case("heliosd", clients), Case(base, clients))
        yield TargetResult(f"p99, paced, {clients:,} clients, × {base}", rounds, limit)
    rounds = ratios(results, "paced_us", Case("heliosd", 10_000), Case("heliosd", 5000))
    yield TargetResult("CPU a delivery, paced, 10,000 clients, × 5,000 clients", rounds, 1.3)
    for clients in (5000, 10_000):
        lag = figures(results, "lag_p99_ms", Case("heliosd", clients, Mode.LAG))
        yield TargetResult(f"p99 of the loop's lag, lockstep, {clients:,} clients, ms", lag, 0.5)


def _clients(results: Results) -> Iterator[TargetResult]:
    many = Case("heliosd", 5000)
    rss = figures(results, "rss_kib", many)
    yield TargetResult("RSS a connection, 5,000 clients, KiB", rss, 4.0)
    for word, case, limit in (
        ("one token", many, 1.3),
        ("a token each", Case("heliosd", 5000, Mode.ACCEPTS), 1.1),
    ):
        rounds = ratios(results, "accepts", case, Case("go", 5000))
        yield TargetResult(f"accepts/s, 5,000 clients with {word}, × go", rounds, limit, at_least=True)
    encrypted = Case("heliosd", 1000, Mode.TLS)
    rounds = ratios(results, "paced_us", encrypted, Case("go-prepared", 1000, Mode.TLS))
    yield TargetResult("CPU a delivery, TLS, paced, 1,000 clients, × go-prepared", rounds, 0.85)
    rounds = ratios(results, "accepts", encrypted, Case("go", 1000, Mode.TLS))
    yield TargetResult("accepts/s, TLS, 1,000 clients, × go", rounds, 1.0, at_least=True)
    rss = figures(results, "rss_kib", encrypted)
    yield TargetResult("RSS a connection, TLS, 1,000 clients, KiB", rss, 20.0)


def _storms(results: Results) -> Iterator[TargetResult]:
    rounds = changes(results, Case("heliosd", 1000, Mode.BLOCKED), "blocked_us", "flood_us")
    yield TargetResult("CPU a delivery with 200 of 1,000 clients blocked, × none blocked", rounds, 1.2)
    rounds = ratios(results, "burst_us", Case("heliosd", 1000), Case("c", 1000))
    yield TargetResult(f"CPU a delivery, {BURST} messages at once, 1,000 clients, × c", rounds, 0.3)
