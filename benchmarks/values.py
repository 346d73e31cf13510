"""What a frozen value and a mutable object cost as a msgspec struct and as a dataclass with slots.

    python -m benchmarks.values

A line for each: to define the class, to make an object, to read and to set an attribute, in nanoseconds (medians of
7). The functions' calls are in it.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from msgspec import Struct

ROUNDS = 7


def frozen_struct() -> type[Any]:
    class Value(Struct, frozen=True):
        place: int
        name: str = ""
        share: float = 0.0

    return Value


def frozen_dataclass() -> type[Any]:
    @dataclass(frozen=True, slots=True)
    class Value:
        place: int
        name: str = ""
        share: float = 0.0

    return Value


def struct() -> type[Any]:
    class Value(Struct):
        place: int
        name: str = ""
        share: float = 0.0

    return Value


def slots_dataclass() -> type[Any]:
    @dataclass(slots=True)
    class Value:
        place: int
        name: str = ""
        share: float = 0.0

    return Value


def nanoseconds(do: Callable[[], object], times: int) -> float:
    return median(timeit.repeat(do, number=times, repeat=ROUNDS)) / times * 1e9


def main() -> None:
    """Print the table."""
    print(f"{'':20}{'class':>10}{'object':>10}{'read':>10}{'set':>10}")
    for define in (frozen_struct, frozen_dataclass, struct, slots_dataclass):
        shape = define()
        value = shape(1)

        def make(shape: type[Any] = shape) -> object:
            return shape(1, "name", 0.5)

        def read(value: Any = value) -> object:
            return value.place

        def store(value: Any = value) -> None:
            value.place = 2

        figures = [nanoseconds(define, 200), nanoseconds(make, 100_000), nanoseconds(read, 100_000)]
        row = "".join(f"{figure:10,.0f}" for figure in figures)
        change = (
            f"{nanoseconds(store, 100_000):10,.0f}" if define in {struct, slots_dataclass} else f"{'–':>10}"
        )
        print(f"{define.__name__:20}{row}{change}")


if __name__ == "__main__":
    main()
