"""Log lines: one event a line, readable on a terminal and JSON otherwise, without secrets.

What goes to systemd's journal has the priority of its level in front, `<6>` for info (sd-daemon(3)), which the
journal takes off. Lines that repeat are capped (`log_cap.py`).

Everything goes through the standard library's root logger, so that heliosd's own lines (structlog or
`logging.getLogger`), Hypercorn's and Quart's have the same format, level and filter for secrets.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
import trio
from structlog.typing import EventDict, Processor, WrappedLogger

from .log_cap import LogCap

HIDDEN = "[hidden]"

SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A JWT's first part is base64url of `{"`. A part of a token is hidden as well.
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_=-]*){0,4}"), HIDDEN),
    (re.compile(r"(?i)\b((?:token|ticket|password|secret)(?:=|%3D))[^\s&;,\"'#)\]}]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bbearer\.)[^\s,;\"')\]}]+"), rf"\1{HIDDEN}"),
    (
        re.compile(r"(?i)\b((?:proxy-)?authorization\b[\"']?\s*[:=,]\s*b?[\"']?)[^\r\n\"',)\]}]+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{HIDDEN}"),
)
# A text that matches a pattern above contains the first or, if it is ASCII, one of the second. Most do not.
_JWT_START = "eyJ"
_SECRET_WORDS = ("token", "ticket", "password", "secret", "bearer", "basic", "authorization")
_SECRET_NAMES = frozenset(
    {"password", "password_hash", "token", "ticket", "secret", "authorization", "cookie", "jwt", "jwt_secret"}
)
_MAX_DEPTH = 6
SUM_UP_SECONDS = 5.0
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
"""From which level on, and syslog's number."""
_caps = [LogCap()]
"""The one in force. `configure` begins a new one."""
AUDIT = "heliosd.audit"
"""Its lines say who did what: they are written at every `level`."""
_QUIET = ("hypercorn", "quart", "httpx", "httpcore", "h2", "hpack", "asyncio")


def configure(
    level: Literal["debug", "info", "warning", "error"],
    format: Literal["auto", "console", "json"],  # noqa: A002
    stream: TextIO | None = None,
) -> None:
    """Log to `stream` (None: standard error) from `level` on, who did what at every level; "auto" is console on a
    terminal, else JSON.

    May be called again at any time; it then applies to existing loggers too.
    """
    target = sys.stderr if stream is None else stream
    terminal = target.isatty()
    console = format == "console" or (format == "auto" and terminal)
    renderer: Processor
    if console:
        renderer = structlog.dev.ConsoleRenderer(colors=terminal, pad_event_to=0, pad_level=False)
    else:
        renderer = structlog.processors.JSONRenderer()
    handler = _Lines(target)
    sum_up()
    _caps[:] = [LogCap()]
    handler.addFilter(_caps[0])
    formatter = _PriorityFormatter if _is_journal(target) else structlog.stdlib.ProcessorFormatter
    handler.setFormatter(
        formatter(
            foreign_pre_chain=[*_COMMON, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                hide_secrets,
                *([on_one_line] if console else []),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Lines)]:
        root.removeHandler(old)
    root.addHandler(handler)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(threshold)
    logging.getLogger(AUDIT).setLevel(min(threshold, logging.INFO))
    for name in _QUIET:
        # Their INFO lines are about their own work; ours name the events.
        logging.getLogger(name).setLevel(
            logging.DEBUG if level == "debug" else max(threshold, logging.WARNING)
        )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_COMMON,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace what looks like a token, a ticket or a password, in texts at any depth."""
    return {str(name): _hidden(name, value, _MAX_DEPTH) for name, value in event.items()}


def on_one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Write control, invisible and direction characters as escapes. A traceback keeps its lines, indented."""
    cleaned = {_escaped(name): _escaped_deep(value) for name, value in event.items() if name != "exception"}
    if "exception" in event:
        lines = str(event["exception"]).split("\n")
        cleaned["exception"] = "\n".join(f"    {_escaped(line)}" for line in lines)
    return cleaned


def sum_up() -> None:
    """Log how many lines were left out since the last time, if any were."""
    _caps[0].sum_up()


async def sum_up_regularly() -> None:
    """`sum_up` every few seconds, until cancelled."""
    while True:
        await trio.sleep(SUM_UP_SECONDS)
        sum_up()


class _PriorityFormatter(structlog.stdlib.ProcessorFormatter):
    """Puts a priority in front of each line."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def _is_journal(stream: TextIO) -> bool:
    """Whether what is written there goes to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class _Lines(logging.StreamHandler[TextIO]):
    """heliosd's handler; its class marks it among others."""


_COMMON: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def _hidden(name: object, value: object, depth: int) -> object:
    if isinstance(name, str) and name.lower() in _SECRET_NAMES and value:
        return HIDDEN
    match value:
        case str():
            return _cleaned(value)
        case None | bool() | int() | float():
            return value
        case Mapping() if depth:
            return {
                _hidden(None, str(key), depth): _hidden(key, inner, depth - 1) for key, inner in value.items()
            }
        case list() | tuple() | set() | frozenset() if depth:
            return [_hidden(None, inner, depth - 1) for inner in value]
        case _:
            # Bytes, exceptions and other objects are replaced by their text, which is cleaned as well.
            return _hidden(None, _text(value), depth)


def _cleaned(text: str) -> str:
    if text.isascii() and _JWT_START not in text:
        lower = text.lower()
        if not any(word in lower for word in _SECRET_WORDS):
            return text
    for pattern, shown in SECRETS:
        text = pattern.sub(shown, text)
    return text


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _escaped_deep(value: object) -> object:
    match value:
        case str():
            return _escaped(value)
        case dict():
            return {_escaped(str(key)): _escaped_deep(inner) for key, inner in value.items()}
        case list():
            return [_escaped_deep(inner) for inner in value]
        case _:
            return value


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in line
    )
