"""The results as tables, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan

from .results import BURST, Case, Mode, Results, figure, ratio


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    figure: Callable[[Results, Case], float]
    form: str
    base: str = ""
    """Ratios to this server mean nothing in its own row."""


def _of(name: str) -> Callable[[Results, Case], float]:
    return lambda results, case: figure(results, name, case)


def _over(name: str, base: str) -> Callable[[Results, Case], float]:
    return lambda results, case: ratio(results, name, case, Case(base, case.clients, case.alone))


def _under_heliosd(name: str) -> Callable[[Results, Case], float]:
    return lambda results, case: ratio(results, name, Case("heliosd", case.clients, case.alone), case)


_COLUMNS = (
    _Column("paced µs", _of("paced_us"), ".2f"),
    _Column("× C", _over("paced_us", "c"), ".2f", "c"),
    _Column("heliosd is ×", _under_heliosd("paced_us"), ".2f", "heliosd"),
    _Column("with idle µs", _of("paced_all_us"), ".2f"),
    _Column("p50 ms", _of("paced_p50_ms"), ".1f"),
    _Column("p99 ms", _of("paced_p99_ms"), ".1f"),
    _Column("flood µs", _of("flood_us"), ".2f"),
    _Column("× C", _over("flood_us", "c"), ".2f", "c"),
    _Column("heliosd is ×", _under_heliosd("flood_us"), ".2f", "heliosd"),
    _Column(f"{BURST} at once µs", _of("burst_us"), ".2f"),
    _Column("blocked µs", _of("blocked_us"), ".2f"),
    _Column("lag p99 ms", _of("lag_p99_ms"), ".2f"),
    _Column("KiB a client", _of("rss_kib"), ".1f"),
    _Column("accepts/s", _of("accepts"), ".0f"),
    _Column("µs each", _of("accept_us"), ".0f"),
    _Column("idle CPU %", _of("idle_percent"), ".2f"),
    _Column("bytes", _of("message_bytes"), ".0f"),
    _Column("arrived", _of("arrived"), ".0%"),
)

_ALONE = {
    None: "",
    Mode.TLS: ", TLS 1.3",
    Mode.BLOCKED: ", lockstep, then every fifth is not read",
    Mode.ACCEPTS: ", each with a token of its own",
    Mode.LAG: ", lockstep, not pinned to one CPU",
}


def tables(results: Results) -> list[Table]:
    """One for each number of clients and way of connecting, in the order of measuring.

    Columns without any figure are left out.
    """
    groups: dict[tuple[int, Mode | None], list[Case]] = {}
    for case in results:
        groups.setdefault((case.clients, case.alone), []).append(case)
    return [_table(results, cases) for cases in groups.values()]


def _table(results: Results, cases: Sequence[Case]) -> Table:
    columns = [column for column in _COLUMNS if any(_cell(results, case, column) for case in cases)]
    first = cases[0]
    return Table(
        f"{first.clients:,} clients{_ALONE[first.alone]}",
        ("server", *(column.head for column in columns)),
        tuple((case.server, *(_cell(results, case, column) or "–" for column in columns)) for case in cases),
    )


def _cell(results: Results, case: Case, column: _Column) -> str:
    value = nan if column.base == case.server else column.figure(results, case)
    return "" if isnan(value) else format(value, column.form)


def plain(table: Table) -> str:
    """For a terminal: columns as wide as they need to be."""
    widths = [max(len(row[at]) for row in (table.head, *table.rows)) for at in range(len(table.head))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in (table.head, *table.rows)
    ]
    return "\n".join([table.title, *lines])


def markdown(table: Table) -> str:
    rule = ("---", *["---:"] * (len(table.head) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (table.head, rule, *table.rows))
