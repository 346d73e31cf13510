"""How far one request has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class RequestProgress:
    """How far a request has come; valid also after it was cancelled."""

    then: Callable[[], None] | None = None
    """Called when the request is about to be sent."""
    sent: bool = False
    greeted: bool = False
    """This request has begun a TLS handshake."""
    _greeting: Any = None

    async def trace(self, name: str, info: Any) -> None:
        """httpcore calls this at each step. No checkpoint here: a socket that was just opened has no owner yet."""
        if name.endswith("connect_tcp.complete"):
            self._greeting = info["return_value"]
        elif name.endswith("start_tls.started"):
            self.greeted = True
        elif name.endswith("start_tls.complete"):
            self._greeting = None
        elif name.endswith("send_request_headers.started"):
            self.sending()

    def sending(self) -> None:
        """The request is about to be sent."""
        self.sent = True
        if self.then is not None:
            self.then()

    def abandon(self) -> None:
        """Close the connection if its TLS handshake was cancelled: httpcore leaves it open."""
        if self.greeted and self._greeting is not None:
            self._greeting.get_extra_info("socket").close()
