"""Where a client wants to start and what it wants to get, from a request's query. Pure.

Shared by the WebSocket upgrade, the event stream and the history.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

import msgspec

from heliosd.errors import BAD_JSON, Invalid
from heliosd.protocol.filters import BadSubscription
from heliosd.protocol.history import EPOCH_PATTERN, MAX_SEQ, Cursor
from heliosd.protocol.subscription import TO_EVERYTHING, Subscription

Query = Mapping[str, Sequence[str]]
"""Each parameter's values, decoded."""

_WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")


def parameters_of(query: str) -> Query:
    """What stands behind `?`, decoded as HTML forms write it; a parameter without a value has an empty one."""
    if not query or "&" in query or "%" in query or "+" in query:
        return parse_qs(query, keep_blank_values=True)
    name, _, value = query.partition("=")  # one, with nothing to decode in it: a token, as a rule
    return {name: [value]}


def cursor_of(query: Query, last_event_id: str | None = None) -> Cursor | None:
    """Where to resume: `?epoch=E&after=N`, `?after=now`, or a `Last-Event-ID: E:N`, which wins, since a browser's
    EventSource repeats its first query. None: nothing to resume. Raises `Invalid`."""
    if last_event_id:
        stopped_in, colon, seq = last_event_id.rpartition(":")
        if not colon:
            raise Invalid("Last-Event-ID must be EPOCH:SEQ", field="Last-Event-ID")
        return Cursor(_epoch(stopped_in, "Last-Event-ID"), whole_number(seq, "Last-Event-ID"))
    epoch, after = _one(query, "epoch"), _one(query, "after")
    if after is None:
        if epoch is not None:
            raise Invalid("epoch needs after", field="after")
        return None
    if after == "now":
        if epoch is not None:
            raise Invalid("after=now takes no epoch", field="epoch")
        return Cursor()
    if epoch is None:
        raise Invalid("after needs epoch", field="epoch")
    return Cursor(_epoch(epoch, "epoch"), whole_number(after, "after"))


def subscription_of(query: Query) -> Subscription:
    """What to get: `?filter= (a subscribe's data as JSON) or `?types=` (a comma list). Raises `Invalid`."""
    filtered, types = _one(query, "filter"), _one(query, "types")
    if filtered is not None and types is not None:
        raise Invalid("give filter or types, not both", field="types")
    try:
        if filtered is not None:
            return Subscription.parse(msgspec.json.decode(filtered))
        return Subscription.of_types(types) if types is not None else TO_EVERYTHING
    except BadSubscription as wrong:
        raise Invalid(str(wrong), field=wrong.field.replace("data", "filter", 1)) from wrong
    except BAD_JSON as wrong:
        raise Invalid(f"filter is not JSON: {wrong}", field="filter") from wrong


def whole_number(text: str, field: str) -> int:
    """A whole number from 0 to 2^53 - 1. Raises `Invalid`."""
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) > MAX_SEQ:
        raise Invalid(f"{field} must be a whole number below 2^53", field=field)
    return int(text)


def _epoch(text: str, field: str) -> str:
    if not EPOCH_PATTERN.fullmatch(text):
        raise Invalid("an epoch is 1 to 64 of A-Z a-z 0-9 _ -", field=field)
    return text


def _one(query: Query, name: str) -> str | None:
    values = query.get(name, ())
    if len(values) > 1:
        raise Invalid(f"{name} stands twice", field=name)
    return values[0] if values else None
