"""A client's text becomes a command, or an error that names what is wrong."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from heliosd.protocol.client_commands import AskStatus, Authenticate, BadCommand, Ping, Subscribe, parse
from heliosd.protocol.subscription import EVERYTHING, NOTHING, Topic


def test_helios_messages_are_understood_with_their_timestamp() -> None:
    text = (
        '{"type":"subscribe","timestamp":"2024-01-15T10:30:00Z","data":{"status":true,"peer_changes":true}}'
    )
    command = parse(text)
    assert isinstance(command, Subscribe)
    assert command.subscription.topics == Topic.STATUS | Topic.PEER_CHANGES


def test_unsubscribe_is_a_subscription_to_nothing() -> None:
    command = parse('{"type":"unsubscribe"}')
    assert isinstance(command, Subscribe)
    assert command.subscription.topics == NOTHING


def test_all_seven_are_everything() -> None:
    keys = ["status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes"]
    text = msgspec.json.encode({"type": "subscribe", "data": dict.fromkeys(keys, True)}).decode()
    command = parse(text)
    assert isinstance(command, Subscribe)
    assert command.subscription.topics == EVERYTHING


def test_a_pings_data_is_kept_to_the_letter() -> None:
    command = parse('{"type":"ping","data":{"n": 1.50, "s":"\\u00e9"},"id":"a"}')
    assert isinstance(command, Ping)
    assert bytes(command.data) == b'{"n": 1.50, "s":"\\u00e9"}'  # type: ignore[arg-type]
    assert command.id == "a"


def test_a_newer_token_is_understood_and_never_shown() -> None:
    command = parse('{"type":"auth","id":1,"data":{"token":"secret"}}')
    assert command == Authenticate(1, "secret")
    assert "secret" not in repr(command)


def test_an_id_may_be_a_whole_number() -> None:
    assert parse('{"type":"status","id":7}') == AskStatus(7)
    assert parse('{"type":"status"}') == AskStatus(UNSET)


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("", "bad_json", None),
        ("{", "bad_json", None),
        ("[]", "bad_json", None),
        ('"ping"', "bad_json", None),
        ("NaN", "bad_json", None),
        ('{"type":"ping"} x', "bad_json", None),
        ("\ufeff{}", "bad_json", None),
        ("{}", "bad_field", "type"),
        ('{"type":7}', "bad_field", "type"),
        ('{"type":null}', "bad_field", "type"),
        ('{"type":"subscribed"}', "unknown_type", "type"),
        ('{"type":"subscribe"}', "bad_field", "data"),
        ('{"type":"subscribe","data":{"statuses":true}}', "bad_field", "data.statuses"),
        ('{"type":"subscribe","data":{"status":"yes"}}', "bad_field", "data.status"),
        ('{"type":"subscribe","data":null}', "bad_field", "data"),
        (f'{{"type":"subscribe","data":{{"status":{"9" * 400}}}}}', "bad_field", "data.status"),
        (f'{{"type":"subscribe","data":{{"status":{"9" * 5000}}}}}', "bad_field", "data"),
        ('{"type":"subscribe","data":{"status":{"min_interval":1e999}}}', "bad_field", "data"),
        ('{"type":"auth"}', "bad_field", "data.token"),
        ('{"type":"auth","data":{"token":7}}', "bad_field", "data.token"),
        ('{"type":"auth","data":{"token":"x","more":1}}', "bad_field", "data.token"),
        ('{"type":"ping","id":true}', "bad_field", "id"),
        ('{"type":"ping","id":1.5}', "bad_field", "id"),
        ('{"type":"ping","id":9007199254740992}', "bad_field", "id"),
        ('{"type":"ping","id":"' + "x" * 65 + '"}', "bad_field", "id"),
    ],
)
def test_what_cannot_be_served_is_named(text: str, code: str, field: str | None) -> None:
    with pytest.raises(BadCommand) as refused:
        parse(text)
    assert (refused.value.code, refused.value.field) == (code, field)


def test_an_error_repeats_the_id_of_the_message_that_caused_it() -> None:
    with pytest.raises(BadCommand) as refused:
        parse('{"type":"subscribe","id":"q7","data":{"x":true}}')
    assert refused.value.client_id == "q7"


@pytest.mark.parametrize(
    ("text", "client_id"),
    [
        (r'{"type":"ping","id":7,"data":"\ud800"}', 7),
        (r'{"type":"subscribe","data":{"\ud800":true},"id":"q"}', "q"),
        (r'{"type":"ping","id":"\ud800"}', UNSET),
        (r'{"type":"ping","id":true,"data":"\ud800"}', UNSET),
        (r'{"type":"ping","data":"\ud800"}', UNSET),
        (r'["\ud800"]', UNSET),
        ('{"type":"ping","id":7,"data":[1,', UNSET),
        (f'{{"id":7,"type":"ping","data":"\\ud800","n":{"9" * 5000}}}', UNSET),
    ],
)
def test_what_cannot_be_read_is_answered_with_the_id_that_is_in_it(text: str, client_id: object) -> None:
    with pytest.raises(BadCommand) as refused:
        parse(text)
    assert (refused.value.code, refused.value.client_id) == ("bad_json", client_id)


ANY_JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)


@given(st.text() | ANY_JSON.map(repr))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with suppress(BadCommand):
        parse(text)


@pytest.mark.parametrize("kind", ["subscribe", "ping"])
def test_a_deep_nest_is_refused_and_not_followed(kind: str) -> None:
    nest = "[" * 100_000 + "]" * 100_000
    with pytest.raises(BadCommand):
        parse(f'{{"type":"{kind}","data":{nest}}}')
