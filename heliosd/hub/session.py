"""The clients' side of the hub: who joins, what it is given first, what it asks, and when it leaves.

Everything here is synchronous: it happens between two messages of the hub's loop, as a whole. What must not happen
inside of one, while some have it and some have not, waits for its end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import assert_never

import trio

from heliosd.auth.access import Access
from heliosd.clock import Instant
from heliosd.config.model import Settings
from heliosd.protocol import server_messages
from heliosd.protocol.client_commands import AskStatus, Authenticate, BadCommand, Command, Ping, Subscribe
from heliosd.protocol.close_codes import TOO_MANY_MESSAGES, CloseReason
from heliosd.protocol.history import Cursor, Replay
from heliosd.protocol.message import OutgoingMessage

from .client import HubClient
from .connections import Connections
from .event_log import EventLog
from .recipient_groups import RecipientGroups
from .status_messages import StatusMessages
from .token_bucket import MAX_REFUSED_IN_A_ROW
from .token_expiry import TokenExpiry
from .value_throttle import ValueThrottle
from .welcome import welcome_message

STATUS_SHARED_SECONDS = 0.05
"""Clients that join within so long, with nothing told in between, share one status: thousands may come back at
once."""


class Session(Connections):
    """What the hub and one client say to each other. `_fanning_out` is the loop's to set."""

    def __init__(
        self,
        settings: Settings,
        log: EventLog,
        access: Access,
        now: Callable[[], Instant],
        pumps: trio.Nursery,
    ) -> None:
        super().__init__(settings, now, pumps)
        self.log = log
        self._status_messages: StatusMessages | None = None
        self._groups = RecipientGroups()
        self._throttle = ValueThrottle()
        self._fanning_out = False
        self._between: list[Callable[[], None]] = []
        self._status: tuple[tuple[str, int], float, OutgoingMessage] | None = None
        self.token_expiry = TokenExpiry(access, now, send=self.send, end=self.end, release=self._release)
        settings.on_change(lambda: self.token_expiry.recheck(self._clients.values()))

    @property
    def between_messages(self) -> bool:
        """No message has been given to some clients and not yet to others."""
        return not self._fanning_out

    def join(self, client: HubClient, cursor: Cursor | None = None) -> None:
        """Register `client` and give it `status` first; with a cursor `welcome` first, then what it missed.

        Takes effect between two messages, never inside one: the replay ends where the live events begin.
        """
        self._at_boundary(partial(self._join, client, cursor))

    def join_now(self, client: HubClient, greeting: bytes) -> bool:
        """The same without a cursor for one who was admitted in this very step, with `greeting` before all else, in
        one write. False: it is not the moment, and nothing was done."""
        if self._fanning_out or client.transport.pending:
            return False
        self._register(client)
        status = self._status_message()
        self._count([status])
        self._settle([(client, client.begin(greeting, status), ())])
        self._follow(client)
        return True

    def _at_boundary(self, action: Callable[[], None]) -> None:
        """Do it now, or, in the middle of a fan-out, as soon as everybody has that message: who is among the
        receivers, and of what, must not change while some have it and some have not."""
        if self._fanning_out:
            self._between.append(action)
        else:
            action()

    def _join(self, client: HubClient, cursor: Cursor | None) -> None:
        if client.close_reason is not None:
            return
        self._register(client)
        status = self._status_message()
        if cursor is None:
            self.send(client, status)
        else:
            self.log.history.expire(self._now().wall)
            replay = self.log.history.since(cursor, client.subscription)
            missed = [self._welcome(client, replay), *replay.events, status]
            self._count(missed)
            self._settle([(client, client.deliver_replay(missed), ())])
        self._follow(client)
        # Its token may have been revoked, or its user removed, since it was let in.
        self.token_expiry.recheck([client])

    def _register(self, client: HubClient) -> None:
        self._add(client)
        self._groups.add(client)

    def _follow(self, client: HubClient) -> None:
        self.token_expiry.watch(client)
        if self._closing is not None:
            self.end(client, self._closing, flush=True)

    def leave(self, client: HubClient) -> None:
        """Forget `client`. Its connection's task calls this first of all when it ends, before it closes the
        socket."""
        client.is_ending(CloseReason(1006, "connection lost"))
        if self._remove(client):
            self._groups.remove(client)
            self._throttle.forget(client)
            self.token_expiry.forget(client)

    def execute(self, client: HubClient, command: Command | BadCommand) -> None:
        """Do what a client's message says, and answer it, if it does not come too often."""
        at = self._now().wall
        limits = self._settings.current.websocket
        if not client.takes(trio.current_time(), limits.messages_per_second, limits.messages_burst):
            if client.bucket is not None and client.bucket.refused >= MAX_REFUSED_IN_A_ROW:
                self.end(client, TOO_MANY_MESSAGES)
            else:
                self.send(client, server_messages.of_error("too many messages", "rate_limited", at))
            return
        match command:
            case Ping():
                self.send(client, server_messages.of_pong(at, command.data, command.id))
            case AskStatus():
                # Its `as_of_seq` must not run ahead of the events that this client has been given.
                self._at_boundary(partial(self._send_status, client, command))
            case Subscribe():
                self._at_boundary(partial(self._subscribe, client, command))
            case Authenticate():
                self.token_expiry.present(client, command)
            case BadCommand():
                answer = server_messages.of_error(
                    str(command), command.code, at, field=command.field, client_id=command.client_id
                )
                self.send(client, answer)
            case _:
                assert_never(command)

    def _send_status(self, client: HubClient, command: AskStatus) -> None:
        assert self._status_messages is not None
        self.send(client, self._status_messages.status(self.log.history.seq, command.id))

    def _subscribe(self, client: HubClient, command: Subscribe) -> None:
        waiting = self._throttle.take(client)
        if client.id in self._clients:
            self._groups.remove(client)
            client.subscription = command.subscription
            self._groups.add(client)
        self.send(client, server_messages.of_subscription(command.subscription, self._now().wall, command.id))
        for value in waiting:
            mine = value.filtered_for(command.subscription)
            if mine is not None:
                self.send(client, mine)

    # -- what a client is told of its own ------------------------------------------------------------------------

    def _status_message(self) -> OutgoingMessage:
        """`status` with all in it that has been told; made once for all who need it in the same moment."""
        assert self._status_messages is not None, "the hub's loop has been started"
        as_of, now = (self.log.history.epoch, self.log.history.seq), trio.current_time()
        made = self._status
        if made is None or made[0] != as_of or now - made[1] > STATUS_SHARED_SECONDS:
            made = self._status = as_of, now, self._status_messages.status(self.log.history.seq)
        return made[2]

    def _welcome(self, client: HubClient, replay: Replay) -> OutgoingMessage:
        return welcome_message(client, self.log.history, replay, self._now().wall)
