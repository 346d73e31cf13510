"""What one client asked, subscribed to and was sent, in the terms of `order_model.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Filter = Callable[[str, Any], Any]
"""A subscription: what it lets through of a message of this type with this data; None: nothing. Where the data is
None: True, if it has that type at all."""


EVENTS = {"state_change", "peer_change", "custom_metrics"}
WHOLE = {"status_update", "latency", "uptime"}
"""Values that replace the one before as a whole."""


class Violation(Exception):
    """A rule was broken."""


@dataclass
class Question:
    """What a client asked: `at` is the number of the newest event of `epoch` when it took effect."""

    kind: str
    epoch: str
    at: int
    subscription: Filter | None = None
    held: bool = False
    """The client was held before it had the answer."""
    moment: int = 0
    """The newest moment when it took effect."""
    on_the_way: int = 0
    """How many messages more may be of before it: they had left the queue when it took effect."""


@dataclass(frozen=True)
class Stretch:
    """A subscription, from the event after `at` in `epoch` on. `narrows`: earlier events that were held, too."""

    epoch: str
    at: int
    wanted: Filter
    narrows: bool = False


def let_through(filters: Iterable[Filter], kind: str, data: Any) -> Any:
    """What all of these let through."""
    for wanted in filters:
        data = None if data is None else wanted(kind, data)
    return data


def moment_of(message: Mapping[str, Any]) -> int:
    """The newest moment that a value or a status shows; 0 for all else."""
    if message["type"] == "custom_metrics" and "seq" not in message:
        return max(int(view["value"]) for view in message["data"].values())
    return int((message.get("data") or {}).get("moment", 0))
