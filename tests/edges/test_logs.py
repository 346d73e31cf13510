"""Log lines: one a line, the same for everyone's loggers, and without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from heliosd.auth import tokens
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.config.model import Config
from heliosd.daemon import logs
from heliosd.daemon.log_cap import BURST, LINES_A_SECOND, LogCap
from heliosd.daemon.ready_line import log_ready

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


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_what_was_done_by_whom_is_logged_at_every_level(
    level: Literal["debug", "info", "warning", "error"],
) -> None:
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    structlog.get_logger("heliosd.audit").info("audit", user="eva")
    assert [(line["event"], line["level"]) for line in lines(stream)] == [("audit", "info")]


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
    for pattern, shown in logs.SECRETS:
        cleaned = pattern.sub(shown, cleaned)
    assert logs.hide_secrets(None, "", {"event": text}) == {"event": cleaned}


def test_lines_to_the_journal_have_their_priority_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+") as journal, (tmp_path / "file").open("w+") as file:
        found = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        for stream, expected in ((journal, ["<7>", "<6>", "<4>", "<3>", "<2>"]), (file, [""] * 5)):
            logs.configure("debug", "json", stream)
            for level in ("debug", "info", "warning", "error", "critical"):
                getattr(structlog.get_logger("heliosd"), level)("x", text="a\nb")
            stream.seek(0)
            whole = stream.read().splitlines()
            assert [line.partition("{")[0] for line in whole] == expected
            assert {json.loads(line[len(expected[0]) :])["text"] for line in whole} == {"a\nb"}
        journal.truncate(0)
        journal.seek(0)
        logs.configure("info", "console", journal)
        try:
            raise ValueError
        except ValueError:
            structlog.get_logger("heliosd").exception("failed")
        journal.seek(0)
        assert all(line.startswith("<3>") for line in journal.read().splitlines())


def test_lines_that_repeat_are_capped_and_their_number_is_logged() -> None:
    clock = [0.0]
    stream = io.StringIO()
    cap = LogCap(lambda: clock[0])
    handler = logging.StreamHandler(stream)
    handler.addFilter(cap)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    ours = logging.getLogger("heliosd")
    for number in range(1000):
        ours.warning("refused %s", number)
        ours.warning("audit", extra={"number": number})
    ours.error("refused %s", "by another level")
    ours.warning("another")
    written = stream.getvalue().splitlines()
    assert sum(line.startswith("refused") for line in written) == BURST + 1
    assert written.count("audit") == 1000
    assert written[-1] == "another"
    clock[0] += 2.0
    for number in range(1000):
        ours.warning("refused %s", number)
    cap.sum_up()
    assert len(stream.getvalue().splitlines()) == len(written) + 2 * LINES_A_SECOND + 1
    cap.sum_up()
    assert stream.getvalue().splitlines()[-1] == "log lines left out"
    assert stream.getvalue().count("log lines left out") == 1


async def test_the_daemon_sums_up_what_it_left_out(autojump_clock: MockClock) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logs.sum_up_regularly)
        for _ in range(BURST + 50):
            structlog.get_logger("heliosd").warning("again")
        await trio.sleep(2 * logs.SUM_UP_SECONDS)
        nursery.cancel_scope.cancel()
    *_, sum_of_it = lines(stream)
    assert sum_of_it["event"] == "log lines left out"
    assert 40 <= sum_of_it["lines"]["again"] <= 50


async def test_the_ready_line_names_a_socket_in_the_abstract_namespace(tmp_path: Path) -> None:
    with trio.socket.socket(socket.AF_UNIX) as bound:
        await bound.bind(f"\0{tmp_path}")
        bound.listen()
        with structlog.testing.capture_logs() as logged:
            log_ready([trio.SocketListener(bound)], Config())
    assert [line["address"] for line in logged] == [f"unix:@{tmp_path}"]
