"""Subscriptions: which topics a client gets, which of their content, and how often.

`OutgoingMessage.filtered_for` applies a subscription, to live and replayed messages alike. Subscriptions are
immutable and equal by content, so that the hub encodes a message once for all clients with the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any

from .filters import (
    BadSubscription,
    ContentFilter,
    LatencyFilter,
    MetricsFilter,
    PeerFilter,
    StateFilter,
    parse_min_interval,
)


class Topic(IntFlag):
    """The seven topics that a client can subscribe to."""

    STATUS = 1
    LATENCY = 2
    UPTIME = 4
    SNAPSHOT = 8
    CUSTOM_METRICS = 16
    STATE_CHANGES = 32
    PEER_CHANGES = 64


EVERYTHING = Topic(sum(Topic))
NOTHING = Topic(0)

KEYS: dict[str, Topic] = {topic.name.lower(): topic for topic in Topic if topic.name is not None}
"""Key on the wire -> topic, in the order in which `subscribed` lists them."""

VALUES = Topic.STATUS | Topic.LATENCY | Topic.UPTIME | Topic.CUSTOM_METRICS
"""Topics with values, which may have a `min_interval`."""

_FILTERS: dict[Topic, type[ContentFilter]] = {
    Topic.LATENCY: LatencyFilter,
    Topic.CUSTOM_METRICS: MetricsFilter,
    Topic.STATE_CHANGES: StateFilter,
    Topic.PEER_CHANGES: PeerFilter,
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """The topics that a client gets, the filter of each, and the least interval between values."""

    topics: Topic = EVERYTHING
    filters: tuple[tuple[Topic, ContentFilter], ...] = ()
    min_intervals: tuple[tuple[Topic, float], ...] = ()
    _said: Mapping[str, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    """The objects as the client wrote them, for the `subscribed` answer."""
    metrics: MetricsFilter | bool = field(init=False, compare=False, repr=False)
    """Which custom metrics a `status` has for it; True: all, False: none."""

    def __post_init__(self) -> None:
        wanted, selection = self.wants(Topic.CUSTOM_METRICS), self.filter_for(Topic.CUSTOM_METRICS)
        narrowed = wanted and isinstance(selection, MetricsFilter)
        object.__setattr__(self, "metrics", selection if narrowed else wanted)

    def wants(self, topic: Topic) -> bool:
        """Whether messages of this topic are sent; those of the topic `NOTHING` always are."""
        return not topic or bool(self.topics & topic)

    def filter_for(self, topic: Topic) -> ContentFilter | None:
        """The topic's filter; None if it has none."""
        return next((content for filtered, content in self.filters if filtered is topic), None)

    def min_interval(self, topic: Topic) -> float:
        """The least seconds between two values of this topic; 0: no limit."""
        return next((seconds for slowed, seconds in self.min_intervals if slowed is topic), 0.0)

    def active(self) -> dict[str, bool | dict[str, Any]]:
        """The seven keys as in force, for the `subscribed` answer."""
        return {key: self._said.get(key, bool(self.topics & topic)) for key, topic in KEYS.items()}

    @classmethod
    def parse(cls, data: object) -> Subscription:
        """The subscription that a `subscribe` message's `data` describes: a key left out means false.

        Raises `BadSubscription` for an unknown key and for a value that is neither a boolean nor a filter.
        """
        if not isinstance(data, dict):
            raise BadSubscription("data must be an object with the topics to switch on", "data")
        topics = NOTHING
        filters: list[tuple[Topic, ContentFilter]] = []
        min_intervals: list[tuple[Topic, float]] = []
        for key, value in data.items():
            topic = KEYS.get(key)
            if topic is None:
                raise BadSubscription(
                    f"unknown topic {key[:64]!r}; known are {', '.join(KEYS)}", f"data.{key[:64]}"
                )
            if isinstance(value, dict):
                rest = dict(value)
                if topic & VALUES and "min_interval" in rest:
                    seconds = parse_min_interval(rest.pop("min_interval"), f"data.{key}.min_interval")
                    min_intervals.append((topic, seconds))
                content_filter = _filter(topic, rest, f"data.{key}")
                if content_filter is not None:
                    filters.append((topic, content_filter))
            elif not isinstance(value, bool):
                raise BadSubscription(f"{key} must be true, false or an object", f"data.{key}")
            if value is not False:
                topics |= topic
        said = {key: value for key, value in data.items() if isinstance(value, dict)}
        return cls(topics, tuple(filters), tuple(min_intervals), said)

    @classmethod
    def of_types(cls, types: str) -> Subscription:
        """The subscription that a query's comma list `?types=` describes. Raises `BadSubscription`."""
        topics = NOTHING
        for key in types.split(","):
            topic = KEYS.get(key.strip())
            if topic is None:
                raise BadSubscription(f"unknown topic {key[:64]!r}; known are {', '.join(KEYS)}", "types")
            topics |= topic
        return cls(topics)


def _filter(topic: Topic, said: dict[str, Any], field_name: str) -> ContentFilter | None:
    kind = _FILTERS.get(topic)
    if kind is None:
        if said:
            key = next(iter(said))
            raise BadSubscription(f"unknown key {key[:64]!r}", f"{field_name}.{key[:64]}")
        return None
    return kind.parse(said, field_name) if said else None


TO_EVERYTHING = Subscription()
"""A client's subscription until it sends another."""
