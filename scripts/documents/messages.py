"""docs/messages.md: every message, with the type of each field, and every error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from heliosd.errors import Invalid
from heliosd.protocol.client_commands import COMMANDS, BadCommand, parse
from heliosd.protocol.close_codes import CLOSE_CODES
from heliosd.protocol.message_data import MESSAGES
from heliosd.web.rest.description.asyncapi import asyncapi
from heliosd.web.stream.query import cursor_of, subscription_of

from .examples import messages

HEAD = """\
# Every message, field by field

Made from the types of the code by `make documents`; a test fails when this page is out of date. What the messages
mean, and what may be relied on, is in [protocol.md](protocol.md). The same for programs: `/asyncapi.json` of any
daemon.

A field that is marked *optional* is left out where it has no value. Only what says "or null" is ever null. Times
are RFC 3339 in UTC with microseconds. Examples are broken into lines here; a message is one line.

Messages: {sent}. Commands: {taken}. Then [errors](#errors) and [close codes](#close-codes).
"""
WRONG_COMMANDS = (
    "hello",
    "[1]",
    '{"data":{}}',
    '{"type":1}',
    '{"type":"nope"}',
    '{"type":"ping","id":1.5}',
    '{"type":"subscribe"}',
    '{"type":"subscribe","data":true}',
    '{"type":"subscribe","data":{"x":true}}',
    '{"type":"subscribe","data":{"status":1}}',
    '{"type":"subscribe","data":{"status":{"x":1}}}',
    '{"type":"subscribe","data":{"status":{"min_interval":0}}}',
    '{"type":"subscribe","data":{"peer_changes":{"x":1}}}',
    '{"type":"subscribe","data":{"peer_changes":{"peers":[]}}}',
    '{"type":"subscribe","data":{"peer_changes":{"peers":["a*b*c*d*e*f*g*h*i*"]}}}',
    '{"type":"subscribe","data":{"peer_changes":{"events":["gone"]}}}',
    '{"type":"subscribe","data":{"state_changes":{"states":["leader"]}}}',
    '{"type":"subscribe","data":{"custom_metrics":{"names":[1]}}}',
    '{"type":"subscribe","data":{"custom_metrics":{"labels":{"a":1}}}}',
    '{"type":"auth"}',
    '{"type":"auth","data":{"token":"x","more":1}}',
)
WRONG_QUERIES: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {"types": ("",)},
    {"types": ("nope",)},
    {"types": ("status",), "filter": ("{}",)},
    {"filter": ("{",)},
    {"filter": ("[]",)},
    {"filter": ('{"peer_changes":{"events":["gone"]}}',)},
    {"after": ("5",)},
    {"epoch": ("E",)},
    {"after": ("now",), "epoch": ("E",)},
    {"epoch": ("E",), "after": ("-1",)},
    {"epoch": ("E",), "after": ("9007199254740992",)},
    {"epoch": ("a b",), "after": ("1",)},
    {"after": ("1", "2"), "epoch": ("E",)},
)
COMMAND_EXAMPLES: Mapping[str, Any] = {
    "ping": {"type": "ping", "id": 7, "data": {"any": ["JSON"]}},
    "status": {"type": "status", "id": 7},
    "subscribe": {
        "type": "subscribe",
        "id": 3,
        "data": {"peer_changes": {"peers": ["node-*"]}, "status": {"min_interval": 10}, "latency": False},
    },
    "unsubscribe": {"type": "unsubscribe", "id": 4},
    "auth": {"type": "auth", "id": "renew", "data": {"token": "eyJ…"}},
}


def messages_page() -> str:
    """The whole page."""
    described = asyncapi()
    return "\n".join(_parts(described)).rstrip("\n") + "\n"


def _parts(described: Mapping[str, Any]) -> Iterator[str]:
    sent = ", ".join(f"[`{name}`](#{name})" for name in MESSAGES)
    taken = ", ".join(f"[`{name}`](#the-command-{name})" for name in COMMANDS)
    yield HEAD.format(sent=sent, taken=taken)
    shapes, all_messages = described["components"]["schemas"], described["components"]["messages"]
    examples: dict[str, list[tuple[str, bytes]]] = {}
    for note, message in messages():
        examples.setdefault(message.type, []).append((note, message.payload))
    yield "## Messages from the server\n"
    used: list[str] = []
    for name, kind in MESSAGES.items():
        message = all_messages[f"{name}_message"]
        yield f"### `{name}`\n"
        yield f"{kind.summary}. {_delivery(name, kind.topic, kind.numbered, kind.answers)}\n"
        for note, payload in examples[name]:
            if note:
                yield f"{_capital(note)}:\n"
            yield f"```json\n{_broken(payload)}\n```\n"
        yield from _table(message["payload"], used)
        yield from _data(message["payload"]["properties"]["data"], shapes, used)
    yield "## Commands from the client\n"
    for name, command in COMMANDS.items():
        yield f"### The command `{name}`\n\n{command.summary}.\n"
        yield f"```json\n{json.dumps(COMMAND_EXAMPLES[name], ensure_ascii=False, separators=(',', ':'))}\n```\n"
        yield from _table(all_messages[f"{name}_command"]["payload"], used)
        part = all_messages[f"{name}_command"]["payload"]["properties"].get("data")
        if part is not None:
            yield from _data(part, shapes, used)
    yield "## Objects in them\n"
    done: set[str] = set()
    while waiting := [name for name in used if name not in done]:
        for name in waiting:
            done.add(name)
            yield f"### {name}\n"
            if text := shapes[name].get("description"):
                yield f"{_sentence(text)}\n"
            if shapes[name]["properties"]:
                yield from _table(shapes[name], used)
    yield from _errors()
    yield "## Close codes\n\n| code | meaning | reconnect? |\n| --- | --- | --- |"
    for number, code in CLOSE_CODES.items():
        pause = f" ({code.pause_seconds:g} s)" if code.pause_seconds else ""
        yield f"| {number} | {code.meaning} | {code.reconnect.value}{pause} |"


def _delivery(name: str, topic: str | None, numbered: bool, answers: tuple[str, ...]) -> str:
    said = []
    if name == "custom_metrics":
        said.append("With a `seq` it is an event, without one a value.")
    elif numbered:
        said.append("An event.")
    said.append(
        f"Sent to those who subscribe to `{topic}`." if topic else "Sent whatever the subscription is."
    )
    if answers:
        said.append(f"Also the answer to {' and '.join(f'`{answer}`' for answer in answers)}.")
    return " ".join(said)


def _data(part: Mapping[str, Any], shapes: Mapping[str, Any], used: list[str]) -> Iterator[str]:
    """The fields of `data`, where it is an object with fixed ones."""
    if "$ref" not in part:
        return
    shape = shapes[_name(part)]
    yield f"`data`: {_sentence(shape.get('description', ''))}\n"
    yield from _table(shape, used)


def _table(shape: Mapping[str, Any], used: list[str]) -> Iterator[str]:
    yield "| field | type | |\n| --- | --- | --- |"
    for name, part in shape["properties"].items():
        optional = "" if name in shape.get("required", ()) else "*optional* "
        text = part.get("description", "").replace("|", "\\|")
        yield f"| `{name}` | {_type(part, used)} | {optional}{text} |".replace("  |", " |")
    yield ""


def _type(part: Mapping[str, Any], used: list[str]) -> str:
    """A schema in words. What it refers to is added to `used`."""
    if "$ref" in part:
        name = _name(part)
        if name.endswith("Data"):
            return "object, see below"
        if name not in used:
            used.append(name)
        return f"[{name}](#{name.lower()})"
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return ", ".join(f"`{one}`" for one in part["enum"])
    if "anyOf" in part:
        kinds = [_type(one, used) for one in part["anyOf"]]
        if set(kinds) == {"whole number", "number"}:
            return "number"
        return " or ".join(kinds)
    match part.get("type"):
        case "array" if "prefixItems" in part:
            return f"list of {len(part['prefixItems'])}: {_type(part['prefixItems'][0], used)}"
        case "array":
            return f"list of {_type(part['items'], used)}"
        case "object":
            inner = part.get("additionalProperties")
            return f"object: name → {_type(inner, used)}" if isinstance(inner, dict) and inner else "object"
        case "integer":
            return "whole number"
        case "number":
            return "number"
        case "boolean":
            return "true or false"
        case "string":
            return "text" if part.get("format") != "date-time" else "text, RFC 3339"
        case "null":
            return "null"
        case _:
            return "any JSON"


def _name(part: Mapping[str, Any]) -> str:
    return str(part["$ref"].rpartition("/")[2])


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield (
        "What is answered to a wrong message, as `data` of an `error`. Beside these: `rate_limited` "
        '(`{"error":"too many messages","code":"rate_limited"}`), and `expired` for the token of an `auth` '
        '(`{"error":"Invalid token","code":"expired","field":"data.token"}`).\n'
    )
    yield "| sent | `error` | `code` | `field` |\n| --- | --- | --- | --- |"
    for text in WRONG_COMMANDS:
        try:
            parse(text)
        except BadCommand as wrong:
            field = f"`{wrong.field}`" if wrong.field else ""
            yield f"| `{text}` | {_cell(wrong)} | `{wrong.code}` | {field} |".replace("  |", " |")
        else:
            raise AssertionError(f"no error: {text}")
    yield "\nThe body of the 400 to a wrong query, before the upgrade or the event stream begins:\n"
    yield "| query | `error` | `field` |\n| --- | --- | --- |"
    for query in WRONG_QUERIES:
        shown = "&".join(f"{name}={value}" for name, values in query.items() for value in values)
        try:
            cursor_of(query)
            subscription_of(query)
        except Invalid as wrong:
            yield f"| `?{shown}` | {_cell(wrong)} | `{wrong.field}` |"
        else:
            raise AssertionError(f"no error: {shown}")
    yield ""


def _cell(error: Exception) -> str:
    return str(error).replace("|", "\\|").replace("*", "\\*")


def _broken(payload: bytes) -> str:
    """One line for each field of the message and of its `data`."""
    message = json.loads(payload)

    def compact(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    lines = []
    for key, value in message.items():
        if key == "data" and isinstance(value, dict) and len(compact(value)) > 100:
            inner = ",\n".join(f"   {compact(name)}:{compact(part)}" for name, part in value.items())
            lines.append(f'"data":{{\n{inner}}}')
        else:
            lines.append(f"{compact(key)}:{compact(value)}")
    head = ",".join(line for line in lines if not line.startswith('"data"'))
    data = [line for line in lines if line.startswith('"data"')]
    return f"{{{head}" + (f",\n {data[0]}}}" if data else "}")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return " ".join(text.split())
