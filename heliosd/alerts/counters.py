"""What is counted of alerts for `/metrics`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class AlertCounters:
    """Totals since the daemon's start, and how things stand."""

    fired: Counter[str] = field(default_factory=Counter)
    """Alerts that became due, by alert's name, as the next two."""
    sent: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """Attempts to send that failed."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Alerts that will not be sent, by reason: `too_many`, `too_old`, `not_configured`."""
    missed_events: int = 0
    """Events of the log that were gone before they could be looked at."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Alerts that are not sent yet, by alert's name."""
    holding: dict[str, int] = field(default_factory=dict)
    """Conditions that hold and whose alert was sent, by alert's name."""
