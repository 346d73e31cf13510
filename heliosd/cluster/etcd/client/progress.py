"""How far one request has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class RequestProgress:
    """How far a request has come; valid also after it was cancelled."""

    then: Callable[[], None] | None = None
    """Called when the request is about to be sent."""
    sent: bool = False
    greeted: bool = False
    """This request has begun a TLS handshake."""

    def sending(self) -> None:
        """The request is about to be sent."""
        self.sent = True
        if self.then is not None:
            self.then()
