"""What a command prints: the same data as tables for people, and as JSON, YAML or TSV for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct, field

from .exits import OK
from .output import printable
from .yaml_text import yaml_text

FORMATS = ("table", "json", "yaml", "tsv")
PLAIN, BAD, GOOD, STRONG, FAINT = "", "31", "32", "1", "2"
"""Styles: the parameters of ANSI's "select graphic rendition"."""
_NARROWEST = 6


class Cell(Struct, frozen=True):
    """A cell in a style, or with another text for people than its value."""

    value: object
    style: str = ""
    text: str | None = None


class Table(Struct, frozen=True):
    """Rows under named columns, with a title in the upper border. Numbers stand to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    """Values as they are: texts, numbers, None (shown empty), or a `Cell`."""
    title: str = ""
    optional: Sequence[str] = ()
    """Columns that are left out, one after the other, while the table is wider than the terminal."""

    def without(self, column: str) -> Table:
        at = list(self.columns).index(column)
        return Table(
            [name for name in self.columns if name != column],
            [[cell for place, cell in enumerate(row) if place != at] for row in self.rows],
            self.title,
            [name for name in self.optional if name != column],
        )


class Report(Struct, frozen=True):
    """The outcome of a command."""

    data: Any
    """For JSON and YAML: of one shape, whatever the cluster's state."""
    tables: Sequence[Table] = ()
    text: str = ""
    """Lines for people, below the tables."""
    exit_code: int = field(default=OK)
    silent: bool = False
    """It was printed already."""


def rendered(report: Report, output: str, *, width: int | None = None, colour: bool = False) -> str:
    """The report in one of `FORMATS`, with its last line end. `width`: the terminal's columns, None: no limit."""
    match output:
        case "json":
            return json.dumps(report.data, indent=2, ensure_ascii=False) + "\n"
        case "yaml":
            return yaml_text(report.data)
        case "tsv":
            return "\n".join("".join(_tsv(table)) for table in report.tables)
        case _:
            parts = [
                "".join(f"{line}\n" for line in box(table, width, colour=colour)) for table in report.tables
            ]
            text = "".join(f"{line}\n" for line in report.text.splitlines())
            return "".join([*parts, text])


def box(table: Table, width: int | None = None, *, colour: bool = False) -> Iterator[str]:
    """The lines of one table. Wider than `width`, its optional columns are left out, and then its widest ones are
    shortened, which `…` shows."""
    rows = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in table.rows]
    texts = [[_text(cell.value) if cell.text is None else cell.text for cell in row] for row in rows]
    right = [
        bool(rows) and all(isinstance(row[at].value, int | float | None) for row in rows)
        for at in range(len(table.columns))
    ]
    sizes = [max(len(text) for text in column) for column in zip(table.columns, *texts, strict=True)]
    if width is not None and _width(sizes) > width:
        if present := [name for name in table.optional if name in table.columns]:
            yield from box(table.without(present[0]), width, colour=colour)
            return
        _fit(sizes, width, right)
    border = "+" + "+".join("-" * (size + 2) for size in sizes) + "+"
    title = f"+ {table.title} "
    if table.title and len(title) < len(border):
        yield title + border[len(title) :]
    else:
        if table.title:
            yield table.title if width is None else _shortened(table.title, width)
        yield border
    yield (
        "|"
        + "|".join(
            f" {_shortened(name, size):<{size}} " for name, size in zip(table.columns, sizes, strict=True)
        )
        + "|"
    )
    yield border
    for row, words in zip(rows, texts, strict=True):
        cells = [
            _styled(
                f" {_shortened(text, size):{'>' if to_right else '<'}{size}} ", cell.style if colour else ""
            )
            for text, size, cell, to_right in zip(words, sizes, row, right, strict=True)
        ]
        yield "|" + "|".join(cells) + "|"
    if rows:
        yield border


def _width(sizes: Sequence[int]) -> int:
    return sum(sizes) + 3 * len(sizes) + 1


def _fit(sizes: list[int], width: int, numbers: Sequence[bool]) -> None:
    """Shorten the widest columns of texts, one character at a time, until the table is no wider than `width`. A
    part of a number would be another number."""
    texts = [at for at, is_number in enumerate(numbers) if not is_number]
    while texts and _width(sizes) > width:
        widest = max(texts, key=lambda at: sizes[at])
        if sizes[widest] <= _NARROWEST:
            return
        sizes[widest] -= 1


def _shortened(text: str, size: int) -> str:
    return text if len(text) <= size else text[: max(0, size - 1)] + "…"


def _styled(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if style else text


def number_text(value: float) -> str:
    """A number in full: whole ones with all their digits, others as short as reads back the same."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e16 else repr(value)


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.1f}" if abs(value) >= 0.95 or value == 0 else f"{value:.3g}"
        case _:
            return printable(value)


def _tsv(table: Table) -> Iterator[str]:
    yield "\t".join(name.lower().replace(" ", "_") for name in table.columns) + "\n"
    for row in table.rows:
        values = [cell.value if isinstance(cell, Cell) else cell for cell in row]
        yield "\t".join(_tsv_text(value) for value in values) + "\n"


def _tsv_text(value: object) -> str:
    text = json.dumps(value) if isinstance(value, bool | int | float) else "" if value is None else str(value)
    for raw, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return text
