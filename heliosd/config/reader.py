"""A value of the configuration file together with its key path, so that every mistake can name its key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from heliosd.errors import ConfigProblem

from .lines import shown
from .values import InvalidValue, for_system, text

Read = Callable[["ConfigReader"], Any]


class ConfigReader(Struct, frozen=True):
    """One value at its key path. Mistakes at or below it are collected in `problems`."""

    key: str
    value: object
    folder: Path
    """Where relative paths start."""
    problems: list[ConfigProblem] = field(default_factory=list)

    def add_problem(self, message: str) -> None:
        """Record a mistake at this key."""
        self.problems.append(ConfigProblem(self.key, message))

    def at(self, name: str, value: object) -> ConfigReader:
        """The value of one key of this table."""
        key = f"{self.key}.{shown(name)}" if self.key else shown(name)
        return ConfigReader(key, value, self.folder, self.problems)

    def read_table(self, readers: Mapping[str, Read], required: Collection[str] = ()) -> dict[str, Any]:
        """The keys of this table that could be read, in the order of `readers`."""
        given = self.given()
        found = {}
        for name, reader in readers.items():
            if name in given:
                for value in self.at(name, given[name]).attempt(reader):
                    found[name] = value
            elif name in required:
                self.at(name, None).add_problem("is missing")
        for name in (name for name in given if name not in readers):
            near = difflib.get_close_matches(name, readers, n=1)
            self.at(name, None).add_problem(
                f"unknown key; did you mean {near[0]}?" if near else "unknown key"
            )
        return found

    def free_table(self, read_key: Read, reader: Read) -> dict[str, Any]:
        """A table whose keys the user chooses. A value that could not be read is None."""
        found = {}
        for name, value in self.given().items():
            self.at(name, name).attempt(read_key)
            found[name] = next(iter(self.at(name, value).attempt(reader)), None)
        return found

    def items(self, reader: Read) -> tuple[Any, ...]:
        """The elements of this list. An element that could not be read is None."""
        if not isinstance(self.value, list):
            raise InvalidValue("must be a list")
        return tuple(
            next(
                iter(ConfigReader(f"{self.key}[{index}]", value, self.folder, self.problems).attempt(reader)),
                None,
            )
            for index, value in enumerate(self.value)
        )

    def given(self) -> dict[str, object]:
        """This table as TOML has it. Raises `InvalidValue` if it is none."""
        if not isinstance(self.value, dict):
            raise InvalidValue("must be a table")
        return self.value

    def attempt(self, reader: Read) -> tuple[Any, ...]:
        """The value that `reader` returns, as a tuple of one; empty after a mistake, which is recorded."""
        try:
            return (reader(self),)
        except InvalidValue as mistake:
            self.add_problem(str(mistake))
            return ()


def plain(read_value: Callable[[object], Any]) -> Read:
    """A reader that looks at the value alone."""
    return lambda here: read_value(here.value)


def path(here: ConfigReader) -> Path | None:
    """A file's path, "" for none. A relative one starts at the folder of the configuration file."""
    if not text(here.value):
        return None
    given = for_system(here.value)
    try:
        return here.folder / Path(given).expanduser()
    except RuntimeError:
        raise InvalidValue("there is no such home directory") from None
