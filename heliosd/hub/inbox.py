"""What the hub's loop takes: what happened, what moved, and that it is time to tell a value."""

from __future__ import annotations

from enum import Enum, auto

from heliosd.protocol.events import BackendItem


class Tick(Enum):
    """It is time to tell a value."""

    STATUS = auto()
    LATENCY = auto()
    UPTIME = auto()
    WATCHDOG = auto()
    """Nothing is told: it only makes the loop turn."""


HubItem = BackendItem | Tick
