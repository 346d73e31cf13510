"""AsyncAPI 3.0 of `/ws/cluster`, made from the table of messages (https://www.asyncapi.com/docs/reference/specification/v3.0.0)."""

from __future__ import annotations

from typing import Any

from heliosd import __version__
from heliosd.protocol.client_commands import COMMANDS, MAX_ID_LENGTH
from heliosd.protocol.close_codes import CLOSE_CODES
from heliosd.protocol.message_data import MESSAGES, MessageType
from heliosd.protocol.subscription import KEYS

from .schemas import Schemas

_CLIENT_ID = {
    "description": "Chosen by the client; the answer repeats it.",
    "anyOf": [{"type": "string", "maxLength": MAX_ID_LENGTH}, {"type": "integer"}],
}
_TIME = {"type": "string", "format": "date-time"}
_PARAMETERS = {
    "token": "A JWT, where no `Authorization` header can be sent.",
    "ticket": "From `POST /api/auth/ticket`, in place of a token; works once.",
    "epoch": "With `after`: the numbering that the last event of this client was of.",
    "after": "Replay the events after this number of `epoch`; `now`: only learn both, from `welcome`.",
    "types": f"The topics to get, with commas between: {', '.join(KEYS)}.",
    "filter": "The `data` of a `subscribe` message, as JSON.",
}


def asyncapi() -> dict[str, Any]:
    """The document. `send` is what the daemon sends, `receive` what it takes."""
    taken = [kind.data for kind in COMMANDS.values() if kind.data is not None]
    schemas = Schemas(sent=[kind.data for kind in MESSAGES.values()], taken=taken)
    messages = {_sent(name): _message(name, kind, schemas) for name, kind in MESSAGES.items()}
    commands = {
        _taken(name): _command(name, kind.data, kind.summary, schemas) for name, kind in COMMANDS.items()
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "heliosd",
            "version": __version__,
            "description": "What a Raft cluster does, pushed as it happens. A client should ignore types and "
            "fields that it does not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "cluster": {
                "address": "/ws/cluster",
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in (*messages, *commands)
                },
                "bindings": {"ws": {"method": "GET", "query": _query(), "bindingVersion": "0.1.0"}},
                "x-close-codes": {
                    str(number): {"meaning": code.meaning, "reconnect": code.reconnect.value}
                    for number, code in CLOSE_CODES.items()
                },
            }
        },
        "operations": {
            "sendMessages": _operation("send", messages),
            "takeCommands": _operation("receive", commands),
        },
        "components": {
            "messages": messages | commands,
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _sent(name: str) -> str:
    return f"{name}_message"


def _taken(name: str) -> str:
    return f"{name}_command"


def _operation(action: str, messages: dict[str, Any]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/cluster"},
        "messages": [{"$ref": f"#/channels/cluster/messages/{name}"} for name in messages],
        "security": [{"$ref": "#/components/securitySchemes/token"}],
    }


def _query() -> dict[str, Any]:
    properties = {name: {"type": "string", "description": text} for name, text in _PARAMETERS.items()}
    return {"type": "object", "properties": properties}


def _message(name: str, kind: MessageType, schemas: Schemas) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": {"const": name}, "timestamp": _TIME}
    required = ["type", "timestamp"]
    if kind.numbered or name == "custom_metrics":
        text = "Counts events from 1 without a hole, within an epoch."
        fields["seq"] = {"type": "integer", "minimum": 1, "description": text}
    if kind.numbered:
        fields["provisional"] = {
            "type": "boolean",
            "description": "True, and no `seq`: not in the cluster's log yet; it follows with a number.",
        }
    if name == "custom_metrics":
        fields["reason"] = {
            "enum": ["expired"],
            "description": "Why metrics were deleted, if by no client: nobody wrote to them for their `ttl`.",
        }
    if kind.answers:
        fields["id"] = {**_CLIENT_ID, "description": f"Of the {' or '.join(kind.answers)} that it answers."}
    fields["data"] = schemas.of(kind.data)
    required += [] if name == "pong" else ["data"]
    described = {"name": name, "title": name, "summary": kind.summary}
    if kind.topic is not None:
        described["description"] = f"Sent to those who subscribe to `{kind.topic}`."
    return {**described, "payload": {"type": "object", "properties": fields, "required": required}}


def _command(name: str, data: Any, summary: str, schemas: Schemas) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": {"const": name}, "id": _CLIENT_ID}
    required = ["type"]
    if data is not None:
        fields["data"] = schemas.of(data)
        required += [] if name == "ping" else ["data"]
    payload = {"type": "object", "properties": fields, "required": required}
    return {"name": name, "title": name, "summary": summary, "payload": payload}
