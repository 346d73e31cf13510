"""Single values of the configuration file: each reader takes what TOML holds and returns what a struct holds.

A reader raises `InvalidValue`, whose text completes the sentence "KEY: …". It does not know the value's key.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from ipaddress import ip_network
from typing import TypeVar

from .addresses import Listen, host_port, member_address, member_id, parse_origin, split_url
from .alert_condition import AlertCondition, parse_condition
from .password_hashes import is_argon2id

_T = TypeVar("_T")

MAX_SOCKET_PATH_BYTES = 107
MAX_ALERTS = 100
MAX_SECONDS = 100 * 365 * 86_400.0

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|[smhd]))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9.]+)(ms|[smhd])", re.ASCII)


class InvalidValue(ValueError):
    """A value that cannot be used; the text says what is expected."""


def duration(text: str) -> float:
    """Seconds of a duration such as "15m", "1h30m", "250ms", "1.5s", "365d". Raises `InvalidValue`."""
    if not _DURATION.fullmatch(text):
        raise InvalidValue('must be seconds, or a duration such as "250ms", "15m", "1h30m" or "365d"')
    parts = _DURATION_PART.findall(text)
    units = [unit for _, unit in parts]
    if len(set(units)) != len(units):
        raise InvalidValue("must not name a unit twice")
    return math.fsum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def seconds(low: float = 0.01, high: float = MAX_SECONDS) -> Callable[[object], float]:
    """A reader of durations, as a number of seconds or as text."""

    def read(value: object) -> float:
        if not isinstance(value, str):
            return number(low, high, " s")(value)
        return number(low, high, " s")(duration(value))

    return read


def number(low: float, high: float, unit: str = "") -> Callable[[object], float]:
    """A reader of finite numbers from `low` to `high`."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidValue(f"must be a number, not {_kind(value)}")
        # NaN fails every comparison, and so do infinities and integers beyond a float.
        if not low <= value <= high:
            raise InvalidValue(f"must be from {low:.16g}{unit} to {high:.16g}{unit}")
        return float(value)

    return read


def whole(low: int, high: int) -> Callable[[object], int]:
    """A reader of integers from `low` to `high`."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValue(f"must be a whole number, not {_kind(value)}")
        if not low <= value <= high:
            raise InvalidValue(f"must be from {low} to {high}")
        return value

    return read


def whole_or_auto(low: int, high: int) -> Callable[[object], int | None]:
    """A reader of integers from `low` to `high`; None for "auto"."""

    def read(value: object) -> int | None:
        if value == "auto":
            return None
        if isinstance(value, str):
            raise InvalidValue(f'must be "auto" or a whole number from {low} to {high}')
        return whole(low, high)(value)

    return read


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue(f"must be true or false, not {_kind(value)}")
    return value


def text(value: object) -> str:
    """One line of text, possibly empty, without characters that hide or move others."""
    if not isinstance(value, str):
        raise InvalidValue(f"must be text, not {_kind(value)}")
    if not value.isprintable():
        raise InvalidValue("must not contain control or invisible characters")
    if len(value) > 4096:
        raise InvalidValue("must be at most 4096 characters")
    return value


def for_system(value: object) -> str:
    """Some text that the system takes as a file's name or a program's argument: not every locale has every
    character."""
    given = some_text(value)
    try:
        os.fsencode(given)
    except UnicodeEncodeError:
        raise InvalidValue("has characters that the locale's encoding does not have") from None
    return given


def some_text(value: object) -> str:
    if not text(value):
        raise InvalidValue("must not be empty")
    return text(value)


def one_of(*choices: str) -> Callable[[object], str]:
    """A reader of one of a few words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise InvalidValue(f"must be one of {', '.join(choices)}")
        return value

    return read


def listen(value: object) -> Listen:
    """ "HOST:PORT", "[v6]:PORT" (port 0: any free one), "fd:N" from 3 on, or "unix:/PATH"."""
    given = some_text(value)
    kind, _, rest = given.partition(":")
    if kind == "unix":
        if not rest.startswith("/") or len(rest.encode()) > MAX_SOCKET_PATH_BYTES or "\0" in rest:
            raise InvalidValue(f'a Unix socket is "unix:/PATH" of at most {MAX_SOCKET_PATH_BYTES} bytes')
        return Listen(path=rest)
    if kind == "fd":
        if not re.fullmatch(r"[0-9]{1,6}", rest, re.ASCII) or int(rest) < 3:
            raise InvalidValue('an inherited socket is "fd:3" or higher')
        return Listen(fd=int(rest))
    host, port = _as_invalid_value(lambda: host_port(given, lowest_port=0))
    return Listen(host, port)


def base_path(value: object) -> str:
    """ "" or "/PREFIX", without a slash at its end."""
    given = text(value)
    if given and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", given, re.ASCII):
        raise InvalidValue('must be "" or a path such as "/helios", without a slash at its end')
    return given


def proxy(value: object) -> str:
    """An address or a network, or "unix"."""
    given = some_text(value)
    try:
        return given if given == "unix" else str(ip_network(given))
    except ValueError:
        raise InvalidValue('must be an address, a network such as "10.0.0.0/8", or "unix"') from None


def identifier(value: object) -> str:
    """A member's id."""
    given = text(value)
    return _as_invalid_value(lambda: member_id(given))


def address(value: object) -> str:
    """A member's HOST:PORT."""
    given = text(value)
    return _as_invalid_value(lambda: member_address(given))


def origin(value: object) -> str:
    """An Origin as browsers write it, in lower case; or "null"."""
    given = some_text(value)
    if given == "null":
        return given
    if given == "*":
        raise InvalidValue("there is no wildcard; every origin is named by itself")
    if parse_origin(given) is None:
        raise InvalidValue('must be scheme://host or scheme://host:port (http or https, no path), or "null"')
    return given.lower()


def url(value: object) -> str:
    """An http or https URL with a host and without user or password."""
    given = some_text(value)
    _as_invalid_value(lambda: split_url(given))
    return given


def url_or_nothing(value: object) -> str:
    return "" if value == "" else url(value)


def name(value: object) -> str:
    """A user's or role's name: up to 128 visible characters, composed, so that no two differ by encoding alone."""
    given = some_text(value)
    if len(given) > 128:
        raise InvalidValue("must be at most 128 characters")
    if given != given.strip() or not unicodedata.is_normalized("NFC", given):
        raise InvalidValue("must not begin or end with a space, and be in Unicode form NFC")
    return given


def alert_condition(value: object) -> AlertCondition:
    """What an alert waits for."""
    given = some_text(value)
    return _as_invalid_value(lambda: parse_condition(given))


def password_hash(value: object) -> str:
    """An argon2id hash."""
    if not isinstance(value, str) or not is_argon2id(value):
        raise InvalidValue("must be an argon2id hash as `heliosd hash-password` prints it")
    return value


def unlike(seen: set[str], what: str, reader: Callable[[object], str]) -> Callable[[object], str]:
    """The value that `reader` returns, which must not be in `seen`; it is added there."""

    def read(value: object) -> str:
        given = reader(value)
        if given in seen:
            raise InvalidValue(f"{what} {given!r} stands twice")
        seen.add(given)
        return given

    return read


def known(names: Collection[str], what: str) -> Callable[[object], str]:
    """A reader of one of `names`, as they are when it reads; a mistake lists them."""

    def read(value: object) -> str:
        given = text(value)
        if given not in names:
            raise InvalidValue(f"{given!r} is no {what}; there are {', '.join(sorted(names)) or 'none'}")
        return given

    return read


def _as_invalid_value(check: Callable[[], _T]) -> _T:
    try:
        return check()
    except ValueError as error:
        raise InvalidValue(str(error)) from None


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"
