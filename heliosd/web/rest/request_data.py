"""Reading what a client sent: JSON bodies and query strings, strictly.

Refused as `Invalid`, with the field where there is one: unknown fields, wrong types, duplicate keys, numbers that
are not finite or too large, text that is not UTF-8 or has half a surrogate pair, and nesting beyond Python's limit.
A body's Content-Type is ignored, because Helios' users send JSON with `curl -d`, which says
`application/x-www-form-urlencoded`; only multipart and compressed bodies are refused (`Unsupported`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from functools import cache
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from heliosd.errors import Invalid
from heliosd.web.problems import Unsupported

MAX_BODY_BYTES = 1024 * 1024
MAX_VALUES = 50_000
"""In one body: more would hold the event loop for some 20 ms."""
_MAX_PARAMETERS = 32
_MAX_ECHO = 100
_MAX_INTEGER_DIGITS = 300  # still finite as a float; nothing in the contract is an integer near it

B = TypeVar("B", bound=msgspec.Struct)


class _Unusable:
    """Takes the place of a number that is not finite or too large until its key is known."""


_UNUSABLE = _Unusable()


def check_body_form(content_type: str, content_encoding: str) -> None:
    """Raise `Unsupported` for multipart and compressed bodies."""
    if content_type.strip().lower().startswith("multipart/"):
        raise Unsupported("The body must be JSON")
    if content_encoding.strip().lower() not in {"", "identity"}:
        raise Unsupported("The body must not be compressed")


def read_body(raw: bytes, shape: type[B]) -> B:
    """The JSON object in `raw` as `shape`, or `Invalid`. An empty body reads as `{}`."""
    if raw.count(b",") > MAX_VALUES:
        raise Invalid(f"The body has more than {MAX_VALUES} values")  # no request needs a hundredth of them
    text = _utf8(raw)
    if not text.strip(" \t\r\n"):
        text = "{}"
    try:
        value = _parse(text)
    except RecursionError:
        raise Invalid("JSON nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Invalid(f"Not JSON: {error.msg} at character {error.pos}") from None
    if isinstance(value, _Unusable):
        raise Invalid("Number out of range")
    return _shaped(_without_nulls(value, shape), shape, strict=True)


def _without_nulls(value: object, shape: type[B]) -> object:
    """`value` without the optional fields that are null: Go and Java clients write an absent value so."""
    if not isinstance(value, dict) or None not in value.values():
        return value
    optional = _names(shape) - _required(shape)
    return {key: part for key, part in value.items() if part is not None or key not in optional}


@cache
def _names(shape: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(shape))


@cache
def _required(shape: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(shape) if field.required)


def read_query(query_string: bytes, shape: type[B]) -> B:
    """The parameters of a query string that `shape` knows; others are ignored, as proxies and caches add them.

    Raises `Invalid` for a known parameter given twice, of a wrong type, or out of range, and for a query string
    that is not UTF-8 or has more than 32 parameters.
    """
    known = _names(shape)
    found: dict[str, str] = {}
    for name, value in query_pairs(query_string) if query_string else ():
        if name not in known:
            continue
        if name in found:
            raise Invalid("Given more than once", field=name)
        found[name] = value
    return _shaped(found, shape, strict=False)


def query_pairs(query_string: bytes) -> list[tuple[str, str]]:
    """The decoded parameters in their order. Raises `Invalid` as `read_query` says."""
    try:
        return parse_qsl(
            query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:  # also UnicodeDecodeError
        raise Invalid("Malformed query string") from None


def _utf8(raw: bytes) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise Invalid("The body starts with a byte order mark")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Invalid("The body is not UTF-8") from None


def _parse(text: str) -> object:
    return json.loads(
        text,
        object_pairs_hook=_object,
        parse_constant=lambda _: _UNUSABLE,
        parse_float=lambda digits: number if math.isfinite(number := float(digits)) else _UNUSABLE,
        parse_int=lambda digits: int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else _UNUSABLE,
    )


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise Invalid("Duplicate key", field=_echo(key))
        for part in _flat(value):
            if isinstance(part, _Unusable):
                raise Invalid("Number out of range", field=_echo(key))
            if isinstance(part, str) and not _whole(part):
                raise Invalid("Half a surrogate pair", field=_echo(key))
        if not _whole(key):
            raise Invalid("Half a surrogate pair in a key")
        found[key] = value
    return found


def _flat(value: object) -> Iterable[object]:
    """`value`, or the elements of an array at any depth; objects in it have been checked already."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting.extend(part)
        else:
            yield part


def _whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _echo(key: str) -> str:
    """A key from the client as an answer may repeat it: short, and text that can be encoded."""
    return key[:_MAX_ECHO].encode("utf-8", "replace").decode()


_NAMED_KEY = re.compile(r"Object (?:contains unknown|missing required) field `(.*)`", re.DOTALL)
_WITH_PATH = re.compile(r"(?P<text>.*) - at (?:`key` in )?`\$\.?(?P<top>[A-Za-z_0-9]*)[^`]*`", re.DOTALL)


def _shaped(value: object, shape: type[B], *, strict: bool) -> B:
    try:
        return msgspec.convert(value, shape, strict=strict)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None


def _explained(message: str) -> Invalid:
    """msgspec's message (`Expected …, got … - at `$.field``) with the top-level field apart from the text."""
    with_path = _WITH_PATH.fullmatch(message)
    text, top = (with_path["text"], with_path["top"]) if with_path else (message, "")
    if key := _NAMED_KEY.fullmatch(text):
        text = "Unknown field" if "unknown" in text[:24] else "Missing field"
        top = top or _echo(key[1])
    return Invalid(text, field=top or None)
