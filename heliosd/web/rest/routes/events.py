"""The event stream, and the history page by page."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

from heliosd.errors import Invalid
from heliosd.protocol.history import Excerpt, Refusal
from heliosd.web.problems import NotReadYet
from heliosd.web.rest.route import Answer, Call, Nothing
from heliosd.web.stream.query import Query, cursor_of, subscription_of


class StreamQuery(Struct, frozen=True):
    """Where to start and what to get, as on the WebSocket's upgrade."""

    epoch: str | UnsetType = UNSET
    after: str | UnsetType = UNSET
    types: str | UnsetType = UNSET
    filter: str | UnsetType = UNSET


class Span(Struct, frozen=True):
    """A page of the history."""

    epoch: str | UnsetType = UNSET
    after: str | UnsetType = UNSET
    types: str | UnsetType = UNSET
    filter: str | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class HistoryPageBody(Struct, frozen=True):
    """`events` are the bytes that the WebSocket sent. `more`: further ones that the query lets through are kept."""

    epoch: str
    oldest_seq: int
    seq: int
    events: tuple[Raw, ...]
    more: bool


class HistoryGone(Struct, frozen=True):
    """Some events after the requested one are not known here."""

    error: str
    reason: Refusal
    epoch: str
    oldest_seq: int
    seq: int


_REFUSALS: dict[Refusal, str] = {
    "epoch_changed": "That numbering of events has ended",
    "too_old": "Events after that one are no longer kept",
    "ahead": "That event has not happened",
}


async def stream_events(call: Call[StreamQuery, Nothing]) -> Answer:
    query = _query(call.query)
    cursor, subscription = cursor_of(query, call.last_event_id), subscription_of(query)
    body = call.services.streams.open(call.who, cursor, subscription, str(call.address))
    # Without this header nginx buffers the stream.
    return Answer(body=body, headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})


async def show_history(call: Call[Span, Nothing]) -> Answer:
    query = _query(call.query)
    cursor, subscription = cursor_of(query), subscription_of(query)
    if not call.services.events.readable:
        raise NotReadYet
    if cursor is not None and call.services.events.behind(cursor):
        await call.services.events.reach(cursor)
    history = call.services.events.history
    history.expire(call.now.wall)
    if cursor is None:
        epoch, after = history.epoch, history.oldest_seq - 1
    elif cursor.after is None:
        raise Invalid("after must be a whole number below 2^53", field="after")
    else:
        epoch, after = cursor.epoch, cursor.after
    excerpt = Excerpt(after, call.query.limit, subscription)
    await call.services.events.read(excerpt, epoch)
    history = call.services.events.history
    refusal = history.reason_to_refuse(epoch, excerpt.looked_at)
    if refusal is not None:
        gone = HistoryGone(_REFUSALS[refusal], refusal, history.epoch, history.oldest_seq, history.seq)
        return Answer(status=410, body=gone)
    events = tuple(Raw(event.payload) for event in excerpt.events)
    return Answer(body=HistoryPageBody(history.epoch, history.oldest_seq, history.seq, events, excerpt.more))


def _query(said: Struct) -> Query:
    fields: dict[str, Any] = structs.asdict(said)
    return {name: [value] for name, value in fields.items() if isinstance(value, str)}
