"""Clients from which nothing comes any more (`websocket.read_timeout`), and which of them are closed."""

from __future__ import annotations

import trio

from heliosd.protocol.close_codes import SILENT

from .connections import Connections

ANSWER_SECONDS = 0.5
"""A client's time to answer the last ping, or a quarter of `read_timeout` if that is less."""
LATE_SECONDS = 0.1
"""Who wakes later than that was kept from running."""


class SilenceWatch:
    """Closes every WebSocket from which nothing has come for `read_timeout`.

    Just before, the client is pinged once more. It is closed only if this process ran on time from that ping on: a
    process that was stopped (SIGSTOP, a suspended machine) sent no pings, and the answers to earlier ones may lie
    unread in its sockets.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._settings = connections.settings
        self._changed = trio.Event()
        self._settings.on_change(self._look_again)

    async def run(self) -> None:
        """Runs until cancelled."""
        pinged: dict[str, float] = {}
        while True:
            pinged, due = await self._look(pinged)
            asleep = trio.current_time()
            with trio.move_on_at(due):
                await self._changed.wait()
            self._changed = trio.Event()
            if trio.current_time() - max(due, asleep) > LATE_SECONDS:
                pinged.clear()

    async def _look(self, pinged: dict[str, float]) -> tuple[dict[str, float], float]:
        """Pings or closes those who are silent; `pinged` says which were pinged already, and when. Returns the same
        of those who still are, and when to look again."""
        timeout, now = self._settings.current.websocket.read_timeout, trio.current_time()
        answer_seconds = min(ANSWER_SECONDS, timeout / 4)
        silent_since = now - timeout + answer_seconds
        waiting: dict[str, float] = {}
        due = now + timeout - answer_seconds
        async for client in self._connections.in_turns():
            if client.stream_kind != "websocket" or client.close_reason is not None:
                continue
            if client.heard > silent_since:
                due = min(due, client.heard + timeout - answer_seconds)
                continue
            since = pinged.get(client.id)
            if since is not None and now >= since + answer_seconds:
                self._connections.end(client, SILENT)
                continue
            if since is None:
                since = now
                self._connections.ping(client)
            waiting[client.id] = since
            due = min(due, since + answer_seconds)
        return waiting, due

    def _look_again(self) -> None:
        self._changed.set()
