"""What a client asked for.

A subscription is decided by `wants`, and by nothing else, whether a message is live or replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag


class Topic(IntFlag):
    """The seven things that a client can switch on and off (CONTRACT: `subscribe`)."""

    STATUS = 1
    LATENCY = 2
    UPTIME = 4
    SNAPSHOT = 8
    CUSTOM_METRICS = 16
    STATE_CHANGES = 32
    PEER_CHANGES = 64


EVERYTHING = Topic(127)
NOTHING = Topic(0)

KEYS: dict[str, Topic] = {topic.name.lower(): topic for topic in Topic if topic.name is not None}
"""Key on the wire -> topic, in the order in which `subscribed` lists them."""


class BadSubscription(ValueError):
    """What a client sent as a subscription is not one; `field` names the wrong key."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which topics a client gets. Immutable: a new `subscribe` replaces it whole."""

    topics: Topic = EVERYTHING

    def wants(self, topic: Topic) -> bool:
        return bool(self.topics & topic)

    def active(self) -> dict[str, bool]:
        """The seven keys as in force, for the `subscribed` answer."""
        return {key: bool(self.topics & topic) for key, topic in KEYS.items()}

    @classmethod
    def parse(cls, data: object) -> Subscription:
        """The subscription that a `subscribe` message's `data` describes: a key left out means false.

        Raises `BadSubscription` for an unknown key or a value that is not a boolean.
        """
        if not isinstance(data, dict):
            raise BadSubscription("data must be an object with the topics to switch on", "data")
        topics = NOTHING
        for key, value in data.items():
            topic = KEYS.get(key)
            if topic is None:
                raise BadSubscription(f"unknown topic {key!r}; known are {', '.join(KEYS)}", f"data.{key}")
            if not isinstance(value, bool):
                raise BadSubscription(f"{key} must be true or false", f"data.{key}")
            if value:
                topics |= topic
        return cls(topics)


TO_EVERYTHING = Subscription()
"""What a client has from the start, until it says otherwise."""
