"""The one table of close codes."""

from __future__ import annotations

from pathlib import Path

from heliosd.protocol import close_codes
from heliosd.protocol.close_codes import CLOSE_CODES, CloseReason

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def test_the_documentation_shows_the_table() -> None:
    section = PAGE.read_text().partition("| code | meaning | reconnect? |")[2].partition("\n\n")[0]
    shown = [line for line in section.splitlines() if line.strip() and not line.startswith("| ---")]
    assert shown == [
        f"| {code} | {row.meaning} | {row.reconnect.value} |" for code, row in CLOSE_CODES.items()
    ]


def test_every_reason_that_the_daemon_sends_has_a_code_of_the_table_and_fits_a_close_frame() -> None:
    reasons = [value for value in vars(close_codes).values() if isinstance(value, CloseReason)]
    assert reasons
    for reason in reasons:
        assert reason.code in CLOSE_CODES
        assert len(reason.reason.encode()) <= 123
