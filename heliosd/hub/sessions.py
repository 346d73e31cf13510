"""What the hub and one client say to each other: joining, the client's commands, leaving.

Everything here is synchronous. What must not happen while some clients have a message and others have not waits for
the boundary between two messages (`publisher.py`).
"""

from __future__ import annotations

from functools import partial
from typing import assert_never

import trio
from msgspec import UNSET

from heliosd.protocol import server_messages
from heliosd.protocol.client_commands import AskStatus, Authenticate, BadCommand, Command, Ping, Subscribe
from heliosd.protocol.close_codes import TOO_MANY_MESSAGES
from heliosd.protocol.history import Cursor, Excerpt

from . import delivery
from .client import HubClient
from .connections import Connections
from .event_log import EventLog
from .publisher import Publisher
from .status_messages import StatusMessages
from .token_bucket import MAX_REFUSED_IN_A_ROW
from .token_expiry import TokenExpiry


class ClientSessions:
    """Lets clients join and leave, and executes their commands."""

    def __init__(
        self,
        connections: Connections,
        log: EventLog,
        publisher: Publisher,
        status_messages: StatusMessages,
        token_expiry: TokenExpiry,
    ) -> None:
        self._connections = connections
        self._log = log
        self._publisher = publisher
        self._status_messages = status_messages
        self._token_expiry = token_expiry
        self._deferred: dict[str, int] = {}
        """By client, commands that wait for the boundary. Those that come later wait behind them."""

    # -- joining and leaving -----------------------------------------------------------------------------------

    def join(self, client: HubClient, cursor: Cursor | None = None, excerpt: Excerpt | None = None) -> None:
        """Register `client` and give it `status` first; with a cursor `welcome` first, then what it missed. What
        `EventLog.missed` has read of that need not be read here, where all others wait.

        Takes effect between two messages, never inside one: the replay ends where the live events begin.
        """
        self._publisher.at_boundary(partial(self._join, client, cursor, excerpt))

    def join_now(self, client: HubClient, greeting: bytes) -> bool:
        """The same without a cursor for a client that was admitted in this very step, with `greeting` before all
        else, in one write. False: some clients have a message that others have not, and nothing was done."""
        if self._publisher.publishing or client.transport.pending:
            return False
        self._register(client)
        status = self._status_messages.status(self._log.history, client.subscription)
        delivery.begin(client, greeting, status)
        self._connections.settle(client)
        self._watch(client)
        return True

    def _join(self, client: HubClient, cursor: Cursor | None, excerpt: Excerpt | None) -> None:
        if client.close_reason is not None:
            return
        self._register(client)
        history = self._log.history
        first = [self._status_messages.status(history, client.subscription)]
        if cursor is not None:
            history.expire(self._connections.now().wall)
            replay = history.since(cursor, client.subscription, excerpt)
            first = [self._status_messages.welcome_message(client, history, replay), *replay.events, *first]
        delivery.deliver_first(client, first)
        self._connections.settle(client)
        self._watch(client)
        # Its token may have been revoked, or its user removed, since it was admitted.
        self._token_expiry.recheck(client)

    def _register(self, client: HubClient) -> None:
        self._connections.add(client)
        self._publisher.groups.add(client)

    def _watch(self, client: HubClient) -> None:
        self._token_expiry.watch(client)
        if self._connections.closing is not None:
            self._connections.end(client, self._connections.closing, send_waiting=True)

    def leave(self, client: HubClient) -> None:
        """Forget `client`. Its connection's task calls this first of all when it ends, before it closes the
        socket."""
        if client in self._connections:
            self._publisher.groups.remove(client)
            self._publisher.throttle.forget(client)
            self._token_expiry.forget(client)
        self._connections.remove(client)

    # -- commands ----------------------------------------------------------------------------------------------

    def execute(self, client: HubClient, command: Command | BadCommand) -> None:
        """Execute a client's command and answer it, in the order of the commands.

        Those beyond the rate are refused, and its connection is ended if they are too many. Both are decided when a
        command comes, not when its turn comes: so what waits for the boundary is bounded for each client.
        """
        limits = self._connections.settings.current.websocket
        if not client.takes(trio.current_time(), limits.messages_per_second, limits.messages_burst):
            if client.bucket is not None and client.bucket.refused >= MAX_REFUSED_IN_A_ROW:
                self._connections.end(client, TOO_MANY_MESSAGES)
                return
            client_id = command.client_id if isinstance(command, BadCommand) else command.id
            command = BadCommand("too many messages", "rate_limited", client_id=client_id)
        waits = client.id in self._deferred or client not in self._connections
        at_boundary = waits or isinstance(command, AskStatus | Subscribe)
        if at_boundary and self._publisher.publishing:
            self._deferred[client.id] = self._deferred.get(client.id, 0) + 1
            self._publisher.at_boundary(partial(self._execute_deferred, client, command))
        else:
            self._execute(client, command)

    def _execute_deferred(self, client: HubClient, command: Command | BadCommand) -> None:
        self._deferred[client.id] -= 1
        if not self._deferred[client.id]:
            del self._deferred[client.id]
        if client in self._connections and client.close_reason is None:
            self._execute(client, command)

    def _execute(self, client: HubClient, command: Command | BadCommand) -> None:
        at = self._connections.now().wall
        client_id = command.client_id if isinstance(command, BadCommand) else command.id
        send = partial(self._connections.send, client)
        match command:
            case Ping():
                send(server_messages.of_pong(at, command.data, client_id))
            case AskStatus():
                # Its `as_of_seq` must not run ahead of the events that this client has been given.
                status = self._status_messages.status(self._log.history, client.subscription, fresh=True)
                if client_id is UNSET:
                    send(status, None)
                else:
                    send(server_messages.answering(status, client_id), client_id)
            case Subscribe():
                self._subscribe(client, command)
            case Authenticate():
                self._token_expiry.present(client, command)
            case BadCommand():
                error = server_messages.of_error(
                    str(command), command.code, at, field=command.field, client_id=client_id
                )
                send(error)
            case _:
                assert_never(command)

    def _subscribe(self, client: HubClient, command: Subscribe) -> None:
        if client in self._connections:
            self._publisher.groups.remove(client)
            delivery.subscribe(client, command.subscription)
            self._publisher.groups.add(client)
        at = self._connections.now().wall
        self._connections.send(client, server_messages.of_subscription(command.subscription, at, command.id))
        for value in self._publisher.throttle.resubscribe(client, trio.current_time()):
            self._connections.send(client, value)
