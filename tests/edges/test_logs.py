"""Log lines: one a line, the same for everyone's loggers, and without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from heliosd.auth import tokens
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.daemon import logs

TOKEN, _ = tokens.issue(
    KeyRing(SigningKey(bytes(range(32)))), issuer="heliosd", subject="eva", roles=(), now=0, ttl=9
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def unrecorded() -> None:
    """What follows is not for pytest to record: a lone surrogate cannot pass from one of its processes to
    another."""
    logging.getLogger().handlers.clear()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_where_no_person_reads() -> None:
    stream = io.StringIO()
    logs.configure("info", "auto", stream)
    structlog.get_logger("heliosd.daemon").info("ready", address="127.0.0.1:8080", clients=3)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "ready",
        "address": "127.0.0.1:8080",
        "clients": 3,
        "level": "info",
        "logger": "heliosd.daemon",
    }


def test_a_line_is_for_people_on_a_terminal() -> None:
    stream = Terminal()
    logs.configure("info", "auto", stream)
    structlog.get_logger("heliosd.daemon").info("ready", address="127.0.0.1:8080")
    assert "ready" in stream.getvalue()
    assert "127.0.0.1:8080" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_the_format_can_be_chosen() -> None:
    person, program = io.StringIO(), Terminal()
    logs.configure("info", "console", person)
    logging.getLogger("heliosd").info("one")
    logs.configure("info", "json", program)
    logging.getLogger("heliosd").info("two")
    assert "one" in person.getvalue()
    assert "{" not in person.getvalue()
    assert "\x1b" not in person.getvalue()
    assert [line["event"] for line in lines(program)] == ["two"]


@pytest.mark.parametrize("name", ["heliosd.store", "hypercorn.error", "quart.app", "another"])
def test_every_librarys_logger_speaks_the_same_way(name: str) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger(name).warning("slow %s", "disk", extra={"path": "/data"})
    (line,) = lines(stream)
    assert (line["event"], line["path"], line["level"], line["logger"]) == (
        "slow disk",
        "/data",
        "warning",
        name,
    )


def test_the_level_holds_and_can_be_changed_while_running() -> None:
    stream = io.StringIO()
    ours, theirs, library = (
        structlog.get_logger("a"),
        logging.getLogger("b"),
        logging.getLogger("hypercorn.error"),
    )
    for level in ("warning", "info", "error", "debug"):
        logs.configure(level, "json", stream)
        for log in (ours, theirs, library):
            log.info(level)
    assert [(line["logger"], line["event"]) for line in lines(stream)] == [
        ("a", "info"),
        ("b", "info"),
        ("a", "debug"),
        ("b", "debug"),
        ("hypercorn.error", "debug"),
    ]


SECRETS = [
    f"GET /ws/cluster?token={TOKEN} HTTP/1.1",
    f"GET /ws/cluster?TOKEN={TOKEN}&x=1",
    "GET /ws/cluster?a=b&ticket=canary-ticket-0123 HTTP/1.1",
    "/ws/cluster?ticket%3Dcanary-ticket-0123",
    f"Sec-WebSocket-Protocol: heliosd.v1, bearer.{TOKEN}",
    "heliosd.v1, bearer.canary-0123",
    f"Authorization: Bearer {TOKEN}",
    "authorization: Basic canary0123==",
    "{'Authorization': 'Bearer canary-0123'}",
    "[(b'authorization', b'Bearer canary-0123')]",
    "bearer canary-0123456",
    TOKEN,
    TOKEN.rpartition(".")[0],
    TOKEN[:40],
    f"x{TOKEN}x",
]


def assert_clean(text: str) -> None:
    assert "canary" not in text
    for part in TOKEN.split("."):
        assert part not in text
        assert part[:30] not in text


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("format", ["json", "console"])
def test_no_secret_reaches_a_line_whatever_part_of_it_it_is_in(secret: str, format: str) -> None:  # noqa: A002
    stream = io.StringIO()
    logs.configure("debug", format, stream)  # type: ignore[arg-type]
    ours, theirs = structlog.get_logger("heliosd"), logging.getLogger("hypercorn.error")
    ours.info(secret)
    ours.info("x", target=secret, deep={"headers": [(secret, secret), {secret: secret.encode()}]})
    ours.info("x", error=ValueError(secret))
    theirs.warning(secret)
    theirs.warning("got %s", secret, extra={"target": secret})
    try:
        raise ValueError(secret)
    except ValueError:
        ours.exception("failed")
        theirs.exception("failed")
    assert stream.getvalue().count("ValueError: ") == 2
    assert_clean(stream.getvalue())


@pytest.mark.parametrize("name", ["password", "token", "ticket", "Authorization", "password_hash", "secret"])
def test_what_is_named_a_secret_is_hidden_as_a_whole(name: str) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    structlog.get_logger("heliosd").info("login", **{name: "canary", "body": {name: ["canary"]}})
    assert_clean(stream.getvalue())


@pytest.mark.parametrize(
    "text", ["peer_id=node-2", "/api/cluster/status?epoch=ab&after=7", "token_expiring", "1.5.2"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    unrecorded()
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("heliosd").info(text)
    assert lines(stream)[0]["event"] == text


HOSTILE = "eva\r\n2026-01-01 [info] forged\x1b[2J\x1b]0;x\x07\u2028\u2029\u202e\x85\x00\ud800"


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_value_cannot_break_its_line_or_steer_a_terminal(format: str) -> None:  # noqa: A002
    unrecorded()
    stream = io.StringIO()
    logs.configure("info", format, stream)  # type: ignore[arg-type]
    log = structlog.get_logger("heliosd")
    log.info(HOSTILE, user=HOSTILE, deep={HOSTILE: [HOSTILE]})
    logging.getLogger("quart").warning("from %s", HOSTILE)
    assert len(stream.getvalue().splitlines()) == 2
    assert stream.getvalue().replace("\n", "").isprintable()
    assert "eva\\r\\n2026" in stream.getvalue()


def test_json_keeps_a_hostile_value_whole() -> None:
    unrecorded()
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    structlog.get_logger("heliosd").info("x", user=HOSTILE)
    assert lines(stream)[0]["user"] == HOSTILE


def test_a_traceback_is_indented_so_that_none_of_its_lines_can_pass_for_a_line_of_the_log() -> None:
    unrecorded()
    stream = io.StringIO()
    logs.configure("info", "console", stream)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        structlog.get_logger("heliosd").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text()))
def test_any_text_makes_exactly_one_line(event: str, values: dict[str, str]) -> None:
    for format in ("json", "console"):  # noqa: A001
        stream = io.StringIO()
        logs.configure("info", format, stream)
        structlog.get_logger("heliosd").info("%s", event, deep=values)
        assert len(stream.getvalue().splitlines()) == 1


PIECES = [
    *("token", "TICKET=", "Password=", "secret%3D", "eyJ", "bearer.", "Bearer ", "basic ", "Authorization: "),
    *("abcdefgh", ".x-y_z", "=", " ", "&", "\u212a", "\u017f", "\u0130", "\n"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_no_text_with_a_secret_passes_for_one_without(text: str) -> None:
    cleaned = text
    for pattern, shown in logs._SECRETS:
        cleaned = pattern.sub(shown, cleaned)
    assert logs.hide_secrets(None, "", {"event": text}) == {"event": cleaned}
