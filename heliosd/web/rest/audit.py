"""A line in the log for every act of an administrator: who, from where, what, and with what result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

MAX_TEXT = 200
"""Characters of one field that a line shows."""

log = structlog.get_logger("heliosd.audit")


@dataclass(slots=True)
class Act:
    """What is known of one request, while it is carried out."""

    address: str
    route: str
    user: str = ""
    """ "": the token was not accepted."""
    fields: dict[str, Any] = field(default_factory=dict)

    def asked(self, *parts: msgspec.Struct) -> None:
        """These were the request's query string and body."""
        for part in parts:
            self.fields |= {name: _shortened(value) for name, value in msgspec.to_builtins(part).items()}

    def ended(self, status: int | None, reason: str | None = None) -> None:
        """It was answered with this status; None: the client left before, and may not know what came of it."""
        line = {"user": self.user, "address": self.address, "act": self.route, "fields": self.fields}
        why = {"reason": reason} if reason else {}
        if status in {401, 403}:
            log.warning("act refused", **line, status=status, **why)
        else:
            log.info("audit", **line, status=status, **why)


def _shortened(value: Any) -> Any:
    """Numbers and truths as they are; what is longer than a line should be is cut."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
