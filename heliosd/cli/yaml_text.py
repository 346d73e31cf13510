"""JSON values as YAML (1.2, block style). A text stands in double quotes wherever YAML could read it otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*", re.ASCII)
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""What YAML 1.1 or 1.2 reads as something else than a text."""


def yaml_text(value: Any) -> str:
    """One document, with its line end."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    match value:
        case Mapping() if value:
            for key, item in value.items():
                yield from _item(f"{_scalar(key)}:", item)
        case list() | tuple() if value:
            for item in value:
                lines = list(_lines(item))
                yield f"- {lines[0]}"
                yield from (f"  {line}" for line in lines[1:])
        case _:
            yield _scalar(value)


def _item(head: str, value: Any) -> Iterator[str]:
    if value and isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        yield head
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, float) and "e" in repr(value) and "." not in repr(value):
        # YAML 1.1 reads 1e-05 as a text.
        mantissa, _, exponent = repr(value).partition("e")
        return f"{mantissa}.0e{exponent if exponent[0] in '+-' else '+' + exponent}"
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    """A character of a text in double quotes; YAML has no surrogate pairs."""
    return char if char.isprintable() else f"\\U{ord(char):08x}"
