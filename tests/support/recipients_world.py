"""Recipients of broadcasts on real sockets, plain or over TLS, and whatever may happen to a client."""

from __future__ import annotations

import os
import socket as stdlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from unittest.mock import patch

import trio

from heliosd.hub import delivery, direct_writes, fanout
from heliosd.hub.client import NOT_READY, HubClient
from heliosd.hub.direct_writes import DirectWrites
from heliosd.hub.fanout import GONE, FanoutEngine
from heliosd.hub.flights import Flights, Sender
from heliosd.hub.recipients import NOBODY, Recipients
from heliosd.hub.time_slice import TimeSlice
from heliosd.protocol.close_codes import DISCONNECTED, CloseReason
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import NOTHING
from heliosd.websocket.descriptors import DESCRIPTORS
from heliosd.websocket.plain import PlainStream
from heliosd.websocket.tls import ClientStream, TLSStream

from .front_server import tls_contexts
from .socket_pairs import SOMEBODY
from .wire import CLOSE, Frames

LIMIT_SECONDS = 60
BUFFER_BYTES = 4096
"""The least that the kernel grants: a few messages, and a client is behind."""
LOST = CloseReason(1006, "connection lost")


class Peer:
    """The other end of one client's connection, and what the client must get."""

    def __init__(
        self, client: HubClient, far: stdlib.socket, tls: ssl.SSLObject | None, bio: ssl.MemoryBIO
    ) -> None:
        self.client = client
        self.due: list[bytes] = []
        """Payloads of the broadcasts that it was a receiver of."""
        self.own: list[bytes] = []
        """Payloads that were for this client alone."""
        self.got: list[bytes] = []
        self.vanished = False
        self._ended = False
        self._far = far
        self._tls = tls
        self._bio = bio
        self._frames = Frames()
        self._frames.head = b"none: these connections begin behind it"

    def read(self) -> None:
        """Take all that is on the way."""
        if self.vanished:
            return
        data = bytearray()
        with suppress(BlockingIOError, ConnectionError):
            while piece := self._far.recv(65_536):
                data += piece
        if self._tls is not None:
            self._bio.write(data)
            data.clear()
            with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while piece := self._tls.read(65_536):
                    data += piece
        for frame in self._frames.feed(bytes(data)):
            assert not self._ended, "a frame behind the close frame"
            self._ended = frame.opcode == CLOSE
            if not self._ended:
                self.got.append(frame.payload)

    def vanish(self) -> None:
        """Be gone, without a word."""
        self.read()
        self.vanished = True
        self._far.close()

    def heard(self, of: list[bytes]) -> list[bytes]:
        """What it got of these, in the order in which it got it."""
        known = set(of)
        return [payload for payload in self.got if payload in known]

    def close(self) -> None:
        self._far.close()


class Pauses(TimeSlice):
    """A time slice that is over whenever it is asked, and in whose pauses something happens."""

    def __init__(self, world: RecipientsWorld, between: list[list[Act]]) -> None:
        super().__init__()
        self._world = world
        self._todo: Iterator[list[Act]] = iter(between)

    @property
    def over(self) -> bool:
        return True

    async def pause(self) -> None:
        self._world.check()
        for act in next(self._todo, []):
            await self._world.do(act)
            self._world.check()


class SteppedSender:
    """In place of `uring.sender.UringSender`: writes to one socket at a time, and something happens in between."""

    threads = 1
    usable = True

    def __init__(self, world: RecipientsWorld, capacity: int) -> None:
        self.capacity = capacity
        self._world = world

    async def send(self, fds: Sequence[int], payloads: bytes | Sequence[bytes]) -> list[tuple[int, int]]:
        each = [payloads] * len(fds) if isinstance(payloads, bytes) else payloads
        short = []
        with DESCRIPTORS.in_flight(fds):
            for place, (fd, payload) in enumerate(zip(fds, each, strict=True)):
                await self._world.pauses.pause()
                try:
                    taken = self._world.write(fd, payload)
                except BlockingIOError:
                    taken = 0
                except OSError:
                    taken = GONE
                if taken != len(payload):
                    short.append((place, taken))
            await self._world.pauses.pause()
        return short


class RecipientsWorld:
    """Recipients, every client that ever was one, and the hub's part."""

    def __init__(
        self,
        recipients: Recipients,
        secrets: tuple[ssl.SSLContext, ssl.SSLContext] | None,
        capacity: int | None,
        sender: Sender | None,
    ) -> None:
        """With `capacity` clients are written to in flights of so many, with `sender` in those of a real sender."""
        self.recipients = recipients
        self.flying = capacity is not None or sender is not None
        if sender is None and capacity is not None:
            sender = SteppedSender(self, capacity)
        self.engine: FanoutEngine = DirectWrites() if sender is None else Flights(sender, landed_at_once=3)
        self.pauses = Pauses(self, [])
        self.here: list[Peer] = []
        self.gone: list[Peer] = []
        self._secrets = secrets
        self._serials = count()
        self._unwritten: set[int] | None = None
        """Descriptors that the present broadcast may still write to."""

    def write(self, fd: int, data: bytes) -> int:
        """In place of `os.write` in the fast path."""
        if fd != NOBODY:
            assert self._unwritten is not None
            if not self.flying:
                (owner,) = [peer.client for peer in self.here if peer.client.transport.fileno() == fd]
                assert owner.ready, "it is behind, held, or being sent away"
            assert fd in self._unwritten, "written to twice, or not among the receivers"
            self._unwritten.remove(fd)
        return os.write(fd, data)

    # -- what may happen ----------------------------------------------------------------------------------------

    async def come(self, instead_of: Peer | None = None) -> None:
        """A new client, with the descriptor of one that leaves."""
        near, far = stdlib.socketpair()
        if instead_of is not None:
            number = instead_of.client.transport.fileno()
            self.leave(instead_of)
            if free(number):
                os.dup2(near.fileno(), number)
                near.close()
                near = stdlib.socket(fileno=number)
            else:
                assert self.flying
        for socket in (near, far):
            socket.setblocking(False)
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, BUFFER_BYTES)
        stream: ClientStream = PlainStream(near)
        tls, bio = None, ssl.MemoryBIO()
        if self._secrets is not None:
            stream = TLSStream(near, self._secrets[0])
            tls = await shaken_hands(stream, far, bio, self._secrets[1])
        serial = next(self._serials)
        client = HubClient(
            serial=serial,
            id=f"c{serial}",
            identity=SOMEBODY,
            address="127.0.0.1:1",
            since=0.0,
            transport=stream,
            send_buffer=10_000,
        )
        self.here.append(Peer(client, far, tls, bio))
        self.recipients.add(client)

    def leave(self, peer: Peer) -> None:
        """As the connection's task ends it: its descriptor is free right after."""
        peer.client.is_ending(LOST)
        self.recipients.remove(peer.client)
        peer.client.transport.abort()
        self.here.remove(peer)
        self.gone.append(peer)

    def end(self, peer: Peer) -> None:
        """Its close frame is sent; its connection stays for a while."""
        delivery.end(peer.client, DISCONNECTED, send_waiting=True)
        self.settle([peer.client])

    def send(self, peer: Peer, size: int) -> None:
        """A message of its own. A large one makes it fall behind."""
        if peer.client.close_reason is None:
            message = self.message(Kind.CONTROL, size)
            peer.own.append(message.payload)
            delivery.deliver(peer.client, message)
            self.settle([peer.client])

    def catch_up(self, peer: Peer) -> None:
        """What its write pump does, with a peer that reads."""
        client = peer.client
        if not client.behind or client.in_flight or client.wants_pump:  # it has no pump then, or not yet
            peer.read()
            return
        try:
            while client.has_more():
                client.unsent = client.unsent or client.take_joined()
                peer.read()
                client.unsent = memoryview(client.unsent)[client.transport.write_now(client.unsent) :]
        except OSError:
            self.leave(peer)
        else:
            client.catch_up()

    def hold(self, peer: Peer) -> None:
        if peer.client.close_reason is None:  # of one that is ending the token does not matter any more
            peer.client.hold()

    def release(self, peer: Peer) -> None:
        if peer.client.close_reason is not None:
            return
        delivery.release(peer.client)
        self.settle([peer.client])

    def vanish(self, peer: Peer) -> None:
        peer.vanish()

    def message(self, kind: Kind, size: int) -> OutgoingMessage:
        return OutgoingMessage("event", kind, NOTHING, f"{next(self._serials)}:".encode().ljust(size, b"."))

    # -- the hub's part -----------------------------------------------------------------------------------------

    def settle(self, unfinished: list[HubClient]) -> None:
        for client in unfinished:
            assert not client.is_dropping
            assert client.behind or not client.wants_pump
            client.wants_pump = client.wants_pump and client.in_flight
            if client.gone:
                vanished = [peer for peer in self.here if peer.client is client and peer.vanished]
                assert client.close_reason is not None or vanished
                for peer in vanished:
                    self.leave(peer)

    async def broadcast(self, messages: list[OutgoingMessage], between: list[list[Act]]) -> None:
        """Send to every client, and at each checkpoint do what is to be done there."""
        for peer in self.here:
            if peer.client.close_reason is None:
                peer.due += [message.payload for message in messages]
        self._unwritten = {peer.client.transport.fileno() for peer in self.here if peer.client.ready}
        frames = b"".join(message.frame for message in messages)
        self.pauses = Pauses(self, between)
        await fanout.broadcast(
            self.engine, self.recipients, messages, frames, lambda client: self.settle([client]), self.pauses
        )
        self._unwritten = None
        self.check()

    async def do(self, act: Act) -> None:
        what, whom = act
        if what == "come":
            await self.come()
            return
        if not self.here:
            return
        peer = self.here[whom % len(self.here)]
        if what == "replace":
            await self.come(instead_of=peer)
        else:
            ACTS[what](self, peer)

    # -- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """At any moment."""
        recipients = self.recipients
        assert len(recipients.clients) == len(recipients.fds)
        assert len(recipients) == len(self.here)
        assert set(recipients.everyone()) - {None} == {peer.client for peer in self.here}
        for place, (client, fd) in enumerate(zip(recipients.clients, recipients.fds, strict=True)):
            assert (client is None) == (fd == NOBODY)
            if client is not None:
                assert client.ready or client.in_flight
                assert (client.place, client.transport.fileno()) == (place, fd)
        for peer in self.here:
            assert peer.client.in_flight or (peer.client.place == NOT_READY) is not peer.client.ready
        for peer in self.gone:
            assert peer.client not in recipients.clients

    def check_at_the_end(self) -> None:
        """Once every client that is left has caught up."""
        for peer in list(self.here):
            self.release(peer)
            if not peer.vanished:
                self.catch_up(peer)
                assert not peer.client.behind
        for peer in self.here + self.gone:
            peer.read()
            due, own = peer.heard(peer.due), peer.heard(peer.own)
            assert len(due) + len(own) == len(peer.got), "another client's"
            assert due == peer.due[: len(due)]
            assert own == peer.own[: len(own)]
            if peer.client.close_reason is None and not peer.vanished:
                assert (due, own) == (peer.due, peer.own)
                assert peer.client.sent == len(peer.got)

    def close(self) -> None:
        for peer in self.here + self.gone:
            peer.client.transport.abort()
            peer.close()


Act = tuple[str, int]
ACTS: dict[str, Callable[[RecipientsWorld, Peer], None]] = {
    "leave": RecipientsWorld.leave,
    "end": RecipientsWorld.end,
    "send a little": partial(RecipientsWorld.send, size=20),
    "send much": partial(RecipientsWorld.send, size=20_000),
    "catch up": RecipientsWorld.catch_up,
    "hold": RecipientsWorld.hold,
    "release": RecipientsWorld.release,
    "vanish": RecipientsWorld.vanish,
}


async def shaken_hands(
    ours: TLSStream, far: stdlib.socket, incoming: ssl.MemoryBIO, trusting: ssl.SSLContext
) -> ssl.SSLObject:
    """The peer's half of TLS, after the handshake."""
    outgoing = ssl.MemoryBIO()
    theirs = trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

    async def shake() -> None:
        while True:
            try:
                theirs.do_handshake()
            except ssl.SSLWantReadError:
                far.send(outgoing.read())
                await trio.lowlevel.wait_readable(far)
                incoming.write(far.recv(65_536))
            else:
                far.send(outgoing.read())
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(shake)
    return theirs


def free(number: int) -> bool:
    """Whether a descriptor may be another socket's."""
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


@asynccontextmanager
async def world(
    *, over_tls: bool, flying: bool, chunk: int, sender: Sender | None = None
) -> AsyncIterator[RecipientsWorld]:
    recipients = Recipients(encrypted=over_tls)
    made = RecipientsWorld(
        recipients, tls_contexts() if over_tls else None, chunk if flying else None, sender
    )
    with (
        trio.fail_after(LIMIT_SECONDS),
        patch.object(fanout, "CHUNK", chunk),
        patch.object(direct_writes, "os", made),
    ):
        try:
            yield made
        finally:
            made.close()
