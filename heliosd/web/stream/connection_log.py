"""Log lines for clients that join, leave or are refused: one each, or a count where there are many in a second.

After a node is lost thousands may come to this one in a second. Their lines would cost more than admitting them.
"""

from __future__ import annotations

import structlog
import trio

from heliosd.hub.client import HubClient

LINES_A_SECOND = 50

log = structlog.get_logger(__name__)


class ConnectionLog:
    """Logs `client joined`, `client left` and `client refused`; beyond 50 lines in a second only their numbers."""

    def __init__(self) -> None:
        self._since = 0.0
        self._lines = 0
        self._suppressed = {"joined": 0, "left": 0, "refused": 0}
        self._overflow = trio.Event()

    def joined(self, client: HubClient) -> None:
        """`client` is about to join the hub."""
        if self._has_room("joined"):
            log.info("client joined", **_of(client))

    def left(self, client: HubClient, reason: str) -> None:
        """`client` has left it."""
        if self._has_room("left"):
            log.info(
                "client left",
                **_of(client),
                reason=reason,
                code=client.close_reason.code if client.close_reason is not None else None,
                sent=client.sent,
                dropped=client.dropped,
            )

    def refused(self, address: str, status: int, reason: str) -> None:
        """A request for a WebSocket, or one of a foreign page, was answered with `status`."""
        if self._has_room("refused"):
            log.info("client refused", address=address, status=status, reason=reason)

    async def run(self) -> None:
        """Log the number of suppressed lines when their second is over, until cancelled."""
        while True:
            await self._overflow.wait()
            await trio.sleep_until(self._since + 1.0)
            self._sum_up()

    def _has_room(self, what: str) -> bool:
        now = trio.current_time()
        if now >= self._since + 1.0:
            self._sum_up()
            self._since = now
            self._lines = 0
        self._lines += 1
        if self._lines <= LINES_A_SECOND:
            return True
        self._suppressed[what] += 1
        self._overflow.set()
        return False

    def _sum_up(self) -> None:
        if any(self._suppressed.values()):
            log.info("more clients joined, left or were refused", **self._suppressed)
            self._suppressed = dict.fromkeys(self._suppressed, 0)
        self._overflow = trio.Event()


def _of(client: HubClient) -> dict[str, str]:
    return {
        "client": client.id,
        "user": client.identity.user_id,
        "address": client.address,
        "transport": client.stream_kind,
    }
