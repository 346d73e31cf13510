"""What one connection may be sent, in which order: the rules of docs/protocol.md for a client of any subscription.

Pure: the messages of a connection, and every event that happened meanwhile, in; violations out.
`promise_checker.py` collects both from a running daemon. Nothing of heliosd is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

KEYS = ("status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes")
KEY_OF_EVENT = {
    "state_change": "state_changes",
    "peer_change": "peer_changes",
    "snapshot": "snapshot",
    "custom_metrics": "custom_metrics",
}
KEY_OF_VALUE = {
    "status_update": "status",
    "latency": "latency",
    "uptime": "uptime",
    "custom_metrics": "custom_metrics",
}
EVERYTHING: Mapping[str, Any] = dict.fromkeys(KEYS, True)
ANSWERS = ("pong", "subscribed", "status", "error")

Message = dict[str, Any]


def _one_of(name: str, globs: list[str] | None) -> bool:
    return globs is None or any(fnmatchcase(name, glob) for glob in globs)


def content(message: Mapping[str, Any], wanted: Mapping[str, Any]) -> Any:
    """What a subscription leaves of an event's data, or of a value of custom metrics; None: nothing is sent."""
    asked = wanted.get(KEY_OF_EVENT[message["type"]], False)
    data = message["data"]
    if not isinstance(asked, dict):
        return data if asked else None
    match message["type"]:
        case "peer_change":
            fits = _one_of(data["peer_id"], asked.get("peers"))
            return data if fits and _one_of(data["event_type"], asked.get("events")) else None
        case "state_change":
            return data if _one_of(data["new_state"], asked.get("states")) else None
        case "custom_metrics":
            labels = asked.get("labels", {}).items()
            left = {
                name: metric
                for name, metric in data.items()
                if _one_of(name, asked.get("names"))
                and (metric is None or labels <= metric["labels"].items())
            }
            return left or None
        case _:
            return data


@dataclass
class Record:
    """One connection as its client saw it: what it asked for and what came, in order."""

    name: str
    wanted: Mapping[str, Any] = field(default_factory=lambda: EVERYTHING)
    """The subscription of the upgrade."""
    cursor: tuple[str, int] | None = None
    """What it resumed from."""
    messages: list[Message] = field(default_factory=list)
    questions: list[tuple[int, Any]] = field(default_factory=list)
    """The `id` of every question, with the subscription that it asks for (None: another question)."""

    def newest(self) -> int:
        """The highest number that stands in a message."""
        numbers = [0]
        for message in self.messages:
            numbers.append(message.get("seq", 0))
            if message["type"] == "gap":
                numbers.append(message["data"]["to_seq"])
            elif message["type"] == "status":
                numbers.append(message["data"]["as_of_seq"])
        return max(numbers)


@dataclass
class _Position:
    """Where a connection stands."""

    wanted: list[Mapping[str, Any]]
    """The subscriptions that may have been in force since `known`: more than one around a `subscribed`."""
    known: int | None = None
    """Every event up to here was sent, named by a gap, or stands in a status."""
    metrics: dict[str, str] = field(default_factory=dict)
    """`updated_at` of each metric in the newest status or message."""
    deleted: set[str] = field(default_factory=set)


def violations(record: Record, events: Mapping[int, Message]) -> Iterator[str]:
    """Everything in a connection of one epoch that the protocol does not allow. `events`: all that happened."""
    at = _Position([record.wanted], record.cursor[1] if record.cursor else None)
    open_questions = list(record.questions)
    for number, message in enumerate(record.messages):
        kind = message["type"]
        where = f"{record.name}, message {number} ({kind})"
        asked_for = [subscription for _, subscription in open_questions if subscription is not None]
        for broken in _of_message(message, number, at, asked_for, record, events):
            yield f"{where}: {broken}; {_circumstances(record, number, at, asked_for)}"
        if "id" in message and kind in ANSWERS:
            ids = [asked for asked, _ in open_questions]
            if message["id"] not in ids:
                yield f"{where}: answers {message['id']}, which was not asked or was answered"
            else:
                skipped = open_questions[: ids.index(message["id"])]
                if any(isinstance(asked, int) for asked, _ in skipped):
                    yield f"{where}: answers {message['id']} before {[asked for asked, _ in skipped]}"
                _, subscription = open_questions[ids.index(message["id"])]
                del open_questions[: ids.index(message["id"]) + 1]
                if kind == "subscribed":
                    at.wanted.append(subscription)


def _circumstances(record: Record, number: int, at: _Position, asked_for: Sequence[Mapping[str, Any]]) -> str:
    """What somebody needs who looks for the cause: what came before, and the subscriptions in question."""
    came = [
        (message["type"], message.get("seq", message.get("id", "")))
        for message in record.messages[max(0, number - 8) : number]
    ]
    return (
        f"before it came {came}, subscribed to {at.wanted}, asked for {list(asked_for)}, from {record.cursor}"
    )


def _of_message(
    message: Message,
    number: int,
    at: _Position,
    asked_for: Sequence[Mapping[str, Any]],
    record: Record,
    events: Mapping[int, Message],
) -> Iterator[str]:
    """`asked_for`: subscriptions whose `subscribed` has not come. They may be in force already."""
    kind, data = message["type"], message.get("data", {})
    if kind == "welcome":
        if number:
            return
        resumed = data["recovered"] and record.cursor is not None
        at.known = record.cursor[1] if resumed and record.cursor else data["seq"]
    elif "seq" in message:
        yield from _of_event(message, at, events)
    elif kind == "gap":
        first, last = data["from_seq"], data["to_seq"]
        if at.known is not None and first <= at.known:
            yield f"the gap {first} to {last} begins at or before {at.known}, which is known"
        yield from _missing(at, first - 1, events)
        named = [events[seq] for seq in range(first, last + 1) if seq in events]
        counts = _possible_counts(named, [*at.wanted, *asked_for])
        if data["dropped"] not in counts:
            yield f"the gap {first} to {last} says that {data['dropped']} were dropped, and it is {counts}"
        at.known = max(last, at.known or 0)
        at.wanted = at.wanted[-1:]
    elif kind == "status":
        as_of = data["as_of_seq"]
        if at.known is not None:
            if as_of < at.known:
                yield f"as of {as_of}, after {at.known} was known"
            # Of its time is the subscription that was in force when it was made, answered or not.
            yield from _missing(at, as_of, events, asked_for)
        at.known = as_of
        at.wanted = at.wanted[-1:]
        at.metrics = {name: metric["updated_at"] for name, metric in data["custom_metrics"].items()}
        at.deleted = set()
    elif kind in KEY_OF_VALUE:
        yield from _of_value(message, at)


def _possible_counts(events: Sequence[Message], subscriptions: Sequence[Mapping[str, Any]]) -> set[int]:
    """How many of the events may have been let through, where each subscription in turn takes effect somewhere
    among them, or not yet."""
    counts = [{0}, *(set[int]() for _ in subscriptions[1:])]
    for event in events:
        before = set[int]()
        for place, wanted in enumerate(subscriptions):
            before = before | counts[place]
            step = content(event, wanted) is not None
            counts[place] = {count + step for count in before}
    return set().union(*counts)


def _of_event(message: Message, at: _Position, events: Mapping[int, Message]) -> Iterator[str]:
    seq = message["seq"]
    if at.known is not None and seq <= at.known:
        yield f"seq {seq} after {at.known} was known"
    happened = events.get(seq)
    if happened is None or happened["type"] != message["type"]:
        yield f"seq {seq} is not what happened: {happened}"
        return
    if all(content(happened, wanted) != message["data"] for wanted in at.wanted):
        yield f"seq {seq} is not what was asked for: {str(message['data'])[:200]}"
    elif len(at.wanted) > 1 and content(happened, at.wanted[-1]) != message["data"]:
        yield f"seq {seq} is of the subscription before: {str(message['data'])[:200]}"
    yield from _missing(at, seq - 1, events)
    at.known = max(seq, at.known or 0)
    at.wanted = at.wanted[-1:]
    if message["type"] == "custom_metrics":
        for name, metric in message["data"].items():
            if metric is None:
                at.deleted.add(name)
                at.metrics.pop(name, None)
            else:
                at.deleted.discard(name)
                at.metrics[name] = metric["updated_at"]


def _of_value(message: Message, at: _Position) -> Iterator[str]:
    key = KEY_OF_VALUE[message["type"]]
    if not at.wanted[-1].get(key):
        yield "a value that the subscription does not let through"
    if message["type"] != "custom_metrics":
        return
    if content(message, at.wanted[-1]) != message["data"]:
        yield f"values that the subscription does not let through: {sorted(message['data'])}"
    for name, metric in message["data"].items():
        if name in at.deleted:
            yield f"a value of {name} after its deletion"
        if metric["updated_at"] < at.metrics.get(name, ""):
            yield f"a value of {name} that is older than the one before it"
        at.metrics[name] = max(metric["updated_at"], at.metrics.get(name, ""))


def _missing(
    at: _Position,
    up_to: int,
    events: Mapping[int, Message],
    asked_for: Sequence[Mapping[str, Any]] = (),
) -> Iterator[str]:
    """Events that every subscription in question lets through, and that neither came nor were named."""
    subscriptions = [*at.wanted, *asked_for]
    if at.known is None:
        return
    for seq in range(at.known + 1, up_to + 1):
        happened = events.get(seq)
        if happened is not None and all(content(happened, wanted) is not None for wanted in subscriptions):
            yield f"seq {seq} never came: {str(happened)[:200]}"


def picture(messages: list[Message]) -> dict[str, Any] | None:
    """The custom metrics as a client shows them after these messages; None before the first status."""
    metrics: dict[str, Any] | None = None
    for message in messages:
        if message["type"] == "status":
            metrics = dict(message["data"]["custom_metrics"])
        elif message["type"] == "custom_metrics" and metrics is not None:
            for name, metric in message["data"].items():
                if metric is None:
                    metrics.pop(name, None)
                else:
                    metrics[name] = metric
    return metrics
