"""The coming and going of clients, as the log tells it: one line each, or, where they come in crowds, counted.

After a node is lost thousands come to this one in a second. Their lines would cost more than letting them in, and
nobody could read them.
"""

from __future__ import annotations

import structlog
import trio

from heliosd.hub.client import HubClient

LINES_A_SECOND = 50

log = structlog.get_logger("heliosd.web.live")


class ConnectionLog:
    """Writes `client joined` and `client left`; of more than 50 lines in a second it says how many there were."""

    def __init__(self) -> None:
        self._since = 0.0
        self._lines = 0
        self._untold = {"joined": 0, "left": 0}
        self._crowded = trio.Event()

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

    async def run(self) -> None:
        """Tell the numbers of a crowd when its second is over, until cancelled."""
        while True:
            await self._crowded.wait()
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
        self._untold[what] += 1
        self._crowded.set()
        return False

    def _sum_up(self) -> None:
        if any(self._untold.values()):
            log.info("more clients joined and left", **self._untold)
            self._untold = dict.fromkeys(self._untold, 0)
        self._crowded = trio.Event()


def _of(client: HubClient) -> dict[str, str]:
    return {
        "client": client.id,
        "user": client.identity.user_id,
        "address": client.address,
        "transport": client.stream_kind,
    }
