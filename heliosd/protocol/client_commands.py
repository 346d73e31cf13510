"""The wire format, inwards: a client's text -> a command, or what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from heliosd.errors import BAD_JSON

from .filters import BadSubscription
from .message_data import ErrorCode
from .server_messages import ClientId
from .subscribe_data import SubscribeData
from .subscription import NOTHING, Subscription

MAX_ID_LENGTH = 64
MAX_ID = 2**53 - 1
"""The largest whole number that every JSON reader represents exactly."""


class Ping(Struct, frozen=True):
    id: ClientId | UnsetType
    data: Raw | UnsetType
    """Any JSON; the pong repeats it byte for byte."""


class AskStatus(Struct, frozen=True):
    id: ClientId | UnsetType


class Subscribe(Struct, frozen=True):
    """Also `unsubscribe`: a subscription to nothing."""

    id: ClientId | UnsetType
    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A newer token for this connection. The repr leaves it out."""

    id: ClientId | UnsetType
    token: str = dataclass_field(repr=False)


Command = Ping | AskStatus | Subscribe | Authenticate


class BadCommand(Exception):
    """A client's message that cannot be served. `code` is for programs, the text for people."""

    def __init__(
        self,
        message: str,
        code: ErrorCode,
        *,
        field: str | None = None,
        client_id: ClientId | UnsetType = UNSET,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.client_id = client_id


class _CommandEnvelope(Struct, frozen=True):
    # Other keys (Helios' Go client sends a timestamp) are ignored.
    type: object = UNSET
    data: Raw | UnsetType = UNSET
    id: object = UNSET


_decode = msgspec.json.Decoder(_CommandEnvelope).decode


def parse(text: str) -> Command:
    """The command in one text message. Raises `BadCommand`."""
    try:
        envelope = _decode(text)
    except msgspec.ValidationError as wrong:
        raise BadCommand("a message must be a JSON object", "bad_json") from wrong
    except BAD_JSON as wrong:
        raise BadCommand(f"not JSON: {wrong}", "bad_json", client_id=_id_in(text)) from wrong
    client_id = _client_id(envelope.id)
    match envelope.type:
        case "ping":
            return Ping(client_id, envelope.data)
        case "status":
            return AskStatus(client_id)
        case "auth":
            return Authenticate(client_id, _token(envelope.data, client_id))
        case "unsubscribe":
            return Subscribe(client_id, Subscription(NOTHING))
        case "subscribe":
            return Subscribe(client_id, _subscription(envelope.data, client_id))
        case msgspec.UNSET:
            raise BadCommand("a message needs a type", "bad_field", field="type", client_id=client_id)
        case str() as unknown:
            raise BadCommand(
                f"unknown type {unknown[:64]!r}", "unknown_type", field="type", client_id=client_id
            )
        case _:
            raise BadCommand("type must be text", "bad_field", field="type", client_id=client_id)


def _client_id(value: object) -> ClientId | UnsetType:
    if value is UNSET:
        return UNSET
    if isinstance(value, str) and len(value) <= MAX_ID_LENGTH:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_ID:
        return value
    raise BadCommand(
        f"id must be a whole number or at most {MAX_ID_LENGTH} characters", "bad_field", field="id"
    )


def _id_in(text: str) -> ClientId | UnsetType:
    """The id of a message that could not be read, if the standard library can read it: it takes text with half of a
    surrogate pair in it, which msgspec does not."""
    try:
        client_id = _client_id(json.loads(text)["id"])
        str(client_id).encode()
    except (ValueError, KeyError, TypeError, RecursionError, BadCommand):
        return UNSET
    return client_id


class AuthData(Struct, frozen=True, forbid_unknown_fields=True):
    """A newer token of the same user."""

    token: str


def _token(data: Raw | UnsetType, client_id: ClientId | UnsetType) -> str:
    try:
        return msgspec.json.decode(b"null" if data is UNSET else data, type=AuthData).token
    except BAD_JSON as wrong:
        raise BadCommand(
            'auth needs data of the form {"token": "…"}', "bad_field", field="data.token", client_id=client_id
        ) from wrong


def _subscription(data: Raw | UnsetType, client_id: ClientId | UnsetType) -> Subscription:
    if data is UNSET:
        raise BadCommand("subscribe needs data", "bad_field", field="data", client_id=client_id)
    try:
        return Subscription.parse(msgspec.json.decode(data))
    except BadSubscription as wrong:
        raise BadCommand(str(wrong), "bad_field", field=wrong.field, client_id=client_id) from wrong
    except BAD_JSON as wrong:
        if "out of range" in str(wrong):  # JSON, but a number that fits no float
            raise BadCommand(str(wrong), "bad_field", field="data", client_id=client_id) from wrong
        raise BadCommand(f"not JSON: {wrong}", "bad_json", client_id=client_id) from wrong


class CommandType(Struct, frozen=True):
    """One type of message from a client. `data` is None where it has none."""

    data: Any
    summary: str


COMMANDS: Mapping[str, CommandType] = {
    "ping": CommandType(Any, "Answered by `pong` with the same data"),
    "status": CommandType(None, "Answered by `status`: the whole state as of now"),
    "subscribe": CommandType(SubscribeData, "Get these topics from now on; a topic left out is off"),
    "unsubscribe": CommandType(None, "Get no topic from now on"),
    "auth": CommandType(AuthData, "A newer token, before the one of this connection ends"),
}
"""Every message that a client may send, by its `type`."""
