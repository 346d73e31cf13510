"""The times that `heliosd history` takes, about the days on which clocks are changed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from heliosd.cli.exits import Usage
from heliosd.cli.history import events_table, moment
from heliosd.cli.report import Cell


@pytest.fixture(autouse=True)
def berlin() -> Iterator[None]:
    """Set ahead on 2026-03-29 at 01:00 UTC, from 02:00 to 03:00; set back on 2026-10-25 at 01:00 UTC, from 03:00 to
    02:00."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def meant(text: str, now: str) -> datetime:
    """What a user means who asks at this time, in UTC."""
    found = moment(text, utc(now).astimezone(), "--since")
    assert isinstance(found, datetime)
    return found.astimezone(UTC)


def test_a_date_has_the_offset_of_its_own_season() -> None:
    assert meant("2026-07-01T12:00", "2026-12-01T12:00") == utc("2026-07-01T10:00")
    assert meant("2026-12-01T12:00", "2027-07-01T12:00") == utc("2026-12-01T11:00")
    assert meant("2026-03-28", "2026-03-29T12:00") == utc("2026-03-27T23:00")
    assert meant("2026-07-01T12:00+05:00", "2026-12-01T12:00") == utc("2026-07-01T07:00")


def test_a_time_of_day_before_the_clocks_were_changed_has_the_offset_of_then() -> None:
    # The clocks were set ahead since, this night and the day before.
    assert meant("01:30", "2026-03-29T10:00") == utc("2026-03-29T00:30")
    assert meant("23:00", "2026-03-29T10:00") == utc("2026-03-28T22:00")
    assert meant("03:00", "2026-03-29T10:00") == utc("2026-03-29T01:00")
    # And back.
    assert meant("01:30", "2026-10-25T10:00") == utc("2026-10-24T23:30")
    assert meant("23:00:05", "2026-10-25T10:00") == utc("2026-10-24T21:00:05")
    assert meant("11:00", "2026-10-25T10:00") == utc("2026-10-25T10:00")


def test_a_time_that_was_twice_is_the_last_one() -> None:
    assert meant("02:30", "2026-10-25T10:00") == utc("2026-10-25T01:30")
    assert meant("02:30", "2026-10-25T01:10") == utc("2026-10-25T00:30")  # at 02:10 for the second time
    assert meant("02:30", "2026-10-25T00:10") == utc("2026-10-24T00:30")


def test_a_duration_is_not_changed_by_the_clocks() -> None:
    assert meant("12h", "2026-03-29T10:00") == utc("2026-03-28T22:00")


def test_a_date_whose_utc_no_clock_has_is_wrong_usage() -> None:
    for text in ("0001-01-01", "9999-12-31T23:59", "0001-01-01T00:30+05:00", "999999d", "9" * 400 + "d"):
        with pytest.raises(Usage, match=re.escape(text)):
            meant(text, "2026-03-29T10:00")


def shown(*timestamps: str) -> tuple[str, list[str | None]]:
    """The title of the table of events of these times, and the times in it, in the summer of 2026."""
    events = [{"seq": 1, "type": "snapshot", "timestamp": each, "data": {}} for each in timestamps]
    table = events_table(events, utc("2026-07-01T12:00").astimezone())
    return table.title, [cell.text for _, cell, _ in table.rows if isinstance(cell, Cell)]


def test_the_title_names_the_zone_of_the_times_and_not_of_now() -> None:
    assert shown("2026-01-15T12:00:00Z") == ("Events, times in CET", ["2026-01-15 13:00:00"])
    assert shown() == ("Events, times in CEST", [])


def test_an_event_that_changes_several_metrics_has_a_row_for_each() -> None:
    reset = {"seq": 7, "type": "custom_metrics", "timestamp": "2026-07-01T10:00:00Z"}
    table = events_table([reset | {"data": {"a": None, "b": None}}], utc("2026-07-01T12:00").astimezone())
    assert [(row[0], row[2].value) for row in table.rows if isinstance(row[2], Cell)] == [
        (7, "metric a deleted"),
        (7, "metric b deleted"),
    ]


def test_times_on_both_sides_of_a_change_of_the_clocks_name_their_zones_themselves() -> None:
    assert shown("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z") == (
        "Events",
        ["2026-10-25 02:30:00 CEST", "2026-10-25 02:30:00 CET"],
    )
