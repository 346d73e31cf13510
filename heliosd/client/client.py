"""Following a cluster from Python: every event once and in order, or a `Gap` that names the missing ones.

    async with open_client("http://127.0.0.1:8080", Password("admin", secret)) as client:
        async for item in client:
            match item:
                case Message(type="peer_change", data=data):
                    print(data["event_type"], data["peer_id"])
                case Gap():
                    print("missed", item.from_seq, "to", item.to_seq)

The client logs in, connects, reconnects, resumes, renews its token, and pages through the history when more was
missed than a replay holds. A later run resumes from `client.cursor`: `open_client(…, since=cursor)`.
"""

from __future__ import annotations

import json
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

import msgspec
import trio
from msgspec import Struct

from heliosd.backoff import Backoff
from heliosd.errors import FollowingEnded
from heliosd.protocol.history import Cursor
from heliosd.protocol.message import EVENT_TOPICS, replayed
from heliosd.protocol.subscription import KEYS, Subscription

from .http_api import Credentials, ServerURL, TokenManager, open_http, parse_server_url
from .reconnect import LONGEST_SECONDS, ConnectionLost, TokenRefused, reconnect_backoff
from .resume import Gap, Message, OutOfOrder, ResumeState, read
from .websocket import Socket, open_socket, sole_error

STEADY_SECONDS = 10.0
"""A connection that lasted so long after its first message resets the backoff."""
RENEW_AGAIN_SECONDS = 3.0
PRESENT_AGAIN_SECONDS = 1.0
"""After a newer token that the daemon did not accept."""


class Connected(Struct, frozen=True):
    """The daemon has answered the upgrade; its `welcome` follows."""

    url: str


class Disconnected(Struct, frozen=True):
    """The connection ended or failed; the next attempt is made in `retry_in` seconds."""

    reason: str
    code: int | None
    """The close code; None: the connection was not opened."""
    retry_in: float


MAX_FILTER_BYTES = 7_000
"""A request's target may have 8 KiB; the path of a proxy and the place to resume from are in it as well."""

Item = Message | Gap | Connected | Disconnected


@asynccontextmanager
async def open_client(
    url: str,
    credentials: Credentials,
    *,
    subscription: Mapping[str, object] | None = None,
    since: Cursor | None = None,
    ssl_context: ssl.SSLContext | None = None,
    notices: bool = False,
    longest_wait: float = LONGEST_SECONDS,
    steady_seconds: float = STEADY_SECONDS,
    rng: random.Random | None = None,
) -> AsyncIterator[Client]:
    """Follow the daemon at `url` (`http://HOST:PORT` or `https://…`) for as long as the block lasts.

    `subscription` is the data of a `subscribe`, None everything; `since` the cursor of an earlier run, None now.
    `ssl_context` is for https, None the system's certificates. With `notices` the client also yields `Connected`
    and `Disconnected`. Between attempts to connect it waits at most `longest_wait` seconds, on top of what
    the daemon asks for, and shortly again after a connection that lasted `steady_seconds`. Raises ValueError for a
    wrong argument. Iterating raises `FollowingEnded`.

    For a slow consumer nothing is queued here: the socket is not read, so the daemon drops messages and sends
    `gap`.
    """
    server = parse_server_url(url)
    if since is not None and since.after is None:
        since = None
    if server.tls and ssl_context is None:
        ssl_context = ssl.create_default_context()
    parsed = None if subscription is None else Subscription.parse(dict(subscription))
    send, receive = trio.open_memory_channel[tuple[Item, Cursor | None]](0)
    client = Client(receive, since)
    with sole_error():
        async with (
            open_http(server, ssl_context if server.tls else None) as http,
            trio.open_nursery() as nursery,
        ):
            follower = _Follower(
                server=server,
                ssl_context=ssl_context if server.tls else None,
                tokens=TokenManager(http, credentials),
                following=ResumeState(since, whole=subscription is None),
                subscription=parsed,
                query={} if subscription is None else {"filter": _filter_text(subscription)},
                output=send,
                notices=notices,
                backoff=reconnect_backoff(rng or random.Random(), longest_wait),  # noqa: S311
                steady_seconds=steady_seconds,
                covered=since,
            )
            nursery.start_soon(client._run, follower)
            try:
                yield client
            finally:
                nursery.cancel_scope.cancel()
                receive.close()  # so that nobody waits for an item that never comes


class Client:
    """An async iterator of items. Cancelling a step of it loses nothing."""

    def __init__(
        self, receive: trio.MemoryReceiveChannel[tuple[Item, Cursor | None]], since: Cursor | None
    ) -> None:
        self._receive = receive
        self._cursor = since
        self._ended: FollowingEnded | None = None

    @property
    def cursor(self) -> Cursor | None:
        """The point up to which everything was yielded, the newest item included. Store it once that is processed.
        None until the first `welcome`."""
        return self._cursor

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> Item:
        try:
            item, self._cursor = await self._receive.receive()
        except trio.EndOfChannel:
            if self._ended is None:
                await trio.sleep_forever()  # a bug ended the task behind; its error cancels this one
            raise self._ended from None
        return item

    async def _run(self, follower: _Follower) -> None:
        try:
            await follower.run()
        except FollowingEnded as ended:
            self._ended = ended
        finally:
            follower.output.close()


@dataclass(slots=True)
class _Follower:
    """The task behind a client."""

    server: ServerURL
    ssl_context: ssl.SSLContext | None
    tokens: TokenManager
    following: ResumeState
    subscription: Subscription | None
    query: dict[str, str]
    output: trio.MemorySendChannel[tuple[Item, Cursor | None]]
    notices: bool
    backoff: Backoff
    steady_seconds: float
    covered: Cursor | None
    """The cursor that covers the items handed over."""
    welcomed_at: float | None = None
    """When this connection brought its first message."""
    pending: deque[tuple[Item, Cursor | None]] = field(default_factory=deque)
    """Items that the consumer has not taken yet. They outlive a connection."""
    accepted: str = ""
    """The token that the connection stands on."""
    presented: str = ""
    """The newer one, which the daemon may not have accepted yet."""

    async def run(self) -> None:
        """Connect, and reconnect. Ends by raising `FollowingEnded`, or cancelled."""
        while True:
            self.welcomed_at = None
            try:
                await self._converse()
            except TokenRefused as refused:
                self.tokens.refused(refused.token, str(refused))
                await trio.lowlevel.checkpoint()
                continue  # with a new token; refusing that raises `AccessRefused`
            except OutOfOrder as disorder:
                lost = ConnectionLost(str(disorder))
            except ConnectionLost as error:
                lost = error
            if lost.new_token:
                self.tokens.forget(self.accepted)
            if self.welcomed_at is not None and trio.current_time() - self.welcomed_at >= self.steady_seconds:
                self.backoff.reset()
            seconds = self.backoff.seconds(lost.at_least)
            await self._emit(Disconnected(lost.reason, lost.code, seconds))
            await trio.sleep(seconds)

    async def _converse(self) -> None:
        """One connection until it ends, which always raises an exception."""
        resource = f"{self.server.prefix}/ws/cluster?{urlencode(self.following.query() | self.query)}"
        self.accepted = self.presented = await self.tokens.token()
        with sole_error():
            async with open_socket(self.server, resource, self.accepted, self.ssl_context) as socket:
                self.tokens.accepted()
                self.following.connected()
                await self._emit(Connected(self.server.url))
                async with trio.open_nursery() as nursery:
                    while True:
                        message = read(await socket.receive())
                        self.welcomed_at = self.welcomed_at or trio.current_time()
                        await self._emit(*self.following.take(message))
                        if self.following.missing_until is not None:
                            await self._page(self.following.missing_until)
                        if message.type == "token_expiring":
                            nursery.start_soon(self._renew, socket)
                        elif message.type == "authenticated":
                            self.accepted = self.presented
                        elif _refuses_token(message):
                            nursery.start_soon(self._renew, socket, PRESENT_AGAIN_SECONDS)

    async def _emit(self, *items: Item) -> None:
        """Hand items to the consumer, each with the cursor that covers it. Waits until it has taken them."""
        for number, item in enumerate(items, start=1):
            if isinstance(item, Connected | Disconnected) and not self.notices:
                continue
            # Of several the last one moves the cursor: a run that stops between them must get the rest again.
            if number == len(items):
                self.covered = self.following.cursor
            self.pending.append((item, self.covered))
        while self.pending:
            await self.output.send(self.pending[0])
            self.pending.popleft()

    async def _page(self, until: int) -> None:
        """Fetch the events from the history that are too many for a replay."""
        at = self.following.cursor
        assert at is not None
        assert at.after is not None
        after = at.after
        while after < until:
            page = await self.tokens.page(at.epoch, after, self._types())
            if page is None or page.epoch != at.epoch:
                await self._emit(self.following.give_up())
                return
            for raw in page.events:
                message = read(bytes(raw))
                after = until if message.seq is None else message.seq
                if after > until:
                    break
                wanted = self._filtered(message)
                if wanted is not None:
                    await self._emit(*self.following.take(wanted))
            if not (page.more and page.events) and (after := max(after, page.seq)) < until:
                # Another daemon than the one that spoke of `until` has answered, and has not come as far.
                raise ConnectionLost(f"the history ends at event {page.seq}, before event {until}")
        await self._emit(*self.following.caught_up())

    def _types(self) -> str | None:
        if self.subscription is None:
            return None
        return ",".join(
            key
            for key, topic in KEYS.items()
            if topic in EVENT_TOPICS.values() and topic & self.subscription.topics
        )

    def _filtered(self, message: Message) -> Message | None:
        """An event of the history, which has no filters, as the subscription lets it through."""
        if self.subscription is None or not self.subscription.filters or message.type not in EVENT_TOPICS:
            return message
        assert message.seq is not None
        event = replayed(seq=message.seq, at=0.0, name=message.type, payload=message.raw.encode())
        filtered = event.filtered_for(self.subscription)
        return None if filtered is None else message if filtered is event else read(filtered.payload)

    async def _renew(self, socket: Socket, pause: float = 0.0) -> None:
        """Send a newer token. If there is none, the daemon closes the connection, which is handled as any close."""
        while True:
            await trio.sleep(pause)
            pause = RENEW_AGAIN_SECONDS
            try:
                present = await self.tokens.token()
                token = await self.tokens.renew()
            except ConnectionLost as lost:
                token = present = ""
                pause = max(pause, lost.at_least)
            except FollowingEnded:
                return
            if token != present:  # a file may still hold the present one
                break
        self.presented = token
        await socket.send(msgspec.json.encode({"type": "auth", "data": {"token": token}}).decode())


def _filter_text(subscription: Mapping[str, object]) -> str:
    """The subscription as it stands in the request. Raises ValueError if that gets too long for it."""
    text = json.dumps(dict(subscription), separators=(",", ":"))
    if len(quote_plus(text)) > MAX_FILTER_BYTES:
        raise ValueError(
            f"the subscription has {len(quote_plus(text))} bytes as part of a URL, and {MAX_FILTER_BYTES} "
            "are the most: name fewer metrics, or use patterns"
        )
    return text


def _refuses_token(message: Message) -> bool:
    """Whether it is the answer to an `auth` that was not accepted: nothing else that is sent here has a token."""
    return (
        message.type == "error"
        and isinstance(message.data, dict)
        and message.data.get("field") == "data.token"
    )
