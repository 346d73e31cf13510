"""What a server did, for the model of what its clients may be sent (`order_model.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """One numbered event. `data` None: it was lost in the cluster before the hub had it."""

    type: str
    data: Mapping[str, Any] | None
    moment: int = 0


@dataclass
class Server:
    """What has happened, as the hub was given it."""

    epochs: dict[str, dict[int, Event]] = field(default_factory=dict)
    """Of each epoch the events by number; the epochs in their order."""
    starts: dict[str, int] = field(default_factory=dict)
    """Of each epoch the number after which its events were sent live; those up to it could only be replayed."""
    metrics: dict[str, int] = field(default_factory=dict)
    """The moment at which each metric that exists was set."""
    ticks: dict[str, int] = field(default_factory=dict)
    """Of each value that is sent as a whole, the moment at which it was last due."""
    leader: str = ""
    peers: set[str] = field(default_factory=set)
    moment: int = 0

    def events(self, epoch: str) -> Mapping[int, Event]:
        """The events of an epoch by number."""
        return self.epochs.setdefault(epoch, {})
