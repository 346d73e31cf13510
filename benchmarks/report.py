"""The results for people to read: docs/benchmarks.md, with its plot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import isnan

from .machine import description
from .measure import TURNS
from .plot import Series, plotted
from .process import HERE
from .results import Results, figure
from .servers import Server
from .table import Table, markdown, tables
from .targets import TargetResult

DOCS = HERE.parent / "docs"
NAMES = {
    "heliosd": "heliosd",
    "heliosd-write": "heliosd, os.write",
    "heliosd-uring": "heliosd, io_uring",
    "c": "C send() loop",
    "c-uring": "C, io_uring",
    "go": "Go, WriteJSON",
    "go-prepared": "Go, PreparedMessage",
    "centrifugo": "Centrifugo",
    "websockets": "websockets",
    "picows": "picows",
}


def write(
    results: Results,
    verdicts: Sequence[TargetResult],
    doubts: Sequence[str],
    servers: Sequence[Server],
    rounds: int,
    seconds: float,
    minutes: float,
) -> None:
    """Writes both files anew."""
    (DOCS / "benchmarks.svg").write_text(
        plotted(
            "CPU-µs a delivery",
            [("paced", series(results, "paced_us")), ("lockstep flood", series(results, "flood_us"))],
        )
    )
    targets = Table(
        "Targets",
        ("heliosd's", "must be", "is", "of the rounds", ""),
        tuple(
            (
                verdict.what,
                verdict.wanted,
                "–" if isnan(verdict.measured) else f"{verdict.measured:.3f}",
                verdict.spread,
                verdict.word,
            )
            for verdict in verdicts
        ),
    )
    command, of_rounds = "make bench", f"medians of {rounds} rounds"
    if rounds == 1:
        command, of_rounds = 'make bench BENCH_ARGS="--rounds 1"', "one round"
    services = [
        "# What a delivery costs, measured",
        f"Written by `{command}`; [benchmarks/README.md](../benchmarks/README.md) says what runs and how it is "
        "measured. Absolute\nfigures differ from machine to machine and from day to day: only the ratios of one "
        "run say anything.",
        f"{datetime.now(UTC):%Y-%m-%d}, {description()}; {of_rounds} of {TURNS} turns each, "
        f"paced ones of {seconds:g} s, the whole in {minutes:.0f} minutes.",
        "\n".join(f"- {NAMES[server.name]}: {server.version()}" for server in servers),
        "![CPU-µs a delivery against the number of clients](benchmarks.svg)",
        "## Targets",
        "Of the rounds: the least and the most of them. What differs more than that from another run may be the "
        "machine, whose send() is\nmore or less of a delivery.",
        *doubts,
        markdown(targets),
        "## Figures",
        "Paced: 10 messages a second to 100 and 1,000 clients, 2 a second to more. Flood: lockstep, the next "
        "message when everybody\nhas the last one. CPU is the server process's, user and system, for a message to "
        "one client.",
    ]
    for table in tables(results):
        services += [f"### {table.title}", markdown(table)]
    (DOCS / "benchmarks.md").write_text("\n\n".join(services) + "\n")


def series(results: Results, name: str) -> list[Series]:
    """For each server the figure against the number of its ordinary clients."""
    points: dict[str, list[tuple[float, float]]] = {}
    for case in results:
        if case.alone is None and (value := figure(results, name, case)) > 0:
            points.setdefault(case.server, []).append((case.clients, value))
    return [Series(server, NAMES[server], tuple(sorted(at))) for server, at in points.items()]
