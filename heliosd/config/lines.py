"""On which lines of a TOML file its keys stand, for messages about mistakes."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
MAX_LINES = 200
"""Of one value; the mistakes in a longer one have no line."""
MAX_DEPTH = 16
"""Of tables in tables; no key of heliosd's is below the fourth."""
_INDEX = re.compile(r"\[[0-9]+\]$")


def shown(name: str) -> str:
    """A key as a path shows it: what is not a bare key is quoted and escaped, so that it stays on its line."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


class KeyLines:
    """The lines of all keys of a file, also of one that is not TOML as a whole."""

    def __init__(self, text: str) -> None:
        self._lines: dict[str, int] = {}
        self.twice: list[tuple[str, int, int]] = []
        """Keys that stand twice, with both lines."""
        tables: dict[str, int] = {}
        prefix = ""
        for number, statement in _statements(text):
            if statement.lstrip().startswith("["):
                prefix = self._header(statement, number, tables)
                continue
            for path in _paths(tomllib.loads(statement), prefix):
                self._add(path, number)

    def find(self, key: str) -> int | None:
        """The line of the key at this path; of its list, table or section where it has none of its own."""
        while key not in self._lines:
            shorter = _INDEX.sub("", key)
            shorter = shorter if shorter != key else key.rpartition(".")[0]
            if not shorter:
                return None
            key = shorter
        return self._lines[key]

    def _header(self, statement: str, number: int, tables: dict[str, int]) -> str:
        """Record `[a.b]` or `[[a.b]]`; the path of the table that it opens."""
        *_, path = _paths(tomllib.loads(statement), "")
        if not statement.lstrip().startswith("[["):
            self._add(path, number)
            return path
        array = path.rpartition("[")[0]
        path = f"{array}[{tables.get(array, 0)}]"
        tables[array] = tables.get(array, 0) + 1
        self._lines.setdefault(array, number)
        self._lines[path] = number
        return path

    def _add(self, path: str, number: int) -> None:
        if path in self._lines:
            self.twice.append((path, self._lines[path], number))
        self._lines.setdefault(path, number)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The headers and `key = value` of a file, each with its first line. What cannot be read is left out."""
    lines = text.splitlines()
    begin = 0
    while begin < len(lines):
        # A list or a text may go on over several lines.
        for end in range(begin + 1, min(begin + MAX_LINES, len(lines)) + 1):
            statement = "\n".join(lines[begin:end])
            try:
                found = tomllib.loads(statement)
            except (ValueError, RecursionError) as error:
                if "end of document" in str(error):
                    continue
                begin += 1
                break
            if found:
                yield begin + 1, statement
            begin = end
            break
        else:
            begin += 1


def _paths(value: dict[str, Any], prefix: str, depth: int = MAX_DEPTH) -> Iterator[str]:
    """The paths of all keys in a statement, those of inline tables too."""
    for name, inner in value.items():
        path = f"{prefix}.{shown(name)}" if prefix else shown(name)
        if isinstance(inner, dict) and inner and depth:
            yield from _paths(inner, path, depth - 1)
            continue
        yield path
        if isinstance(inner, list):
            for index, item in enumerate(inner):
                yield f"{path}[{index}]"
                if isinstance(item, dict) and depth:
                    yield from _paths(item, f"{path}[{index}]", depth - 1)
