"""Whatever clients do during a broadcast, each that stays gets it exactly once.

Between any two chunks of a broadcast, or while their sockets are written to in a flight, clients leave (and others
get their descriptors), fall behind, catch up, are held and released, get a message of their own, and come. The
sockets are real, plain or with TLS; only what the fast path writes is looked at on its way.
"""

from __future__ import annotations

import os
import socket as stdlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from unittest.mock import patch

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.hub import delivery, direct_writes, fanout, flights
from heliosd.hub.client import NOT_READY, HubClient
from heliosd.hub.direct_writes import DirectWrites
from heliosd.hub.fanout import GONE
from heliosd.hub.flights import Flights
from heliosd.hub.recipients import NOBODY, Recipients
from heliosd.hub.time_slice import TimeSlice
from heliosd.protocol.close_codes import DISCONNECTED, CloseReason
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import NOTHING
from heliosd.websocket.descriptors import DESCRIPTORS
from heliosd.websocket.plain import PlainStream
from heliosd.websocket.tls import ClientStream, TLSStream
from tests.support.front_server import tls_contexts
from tests.support.socket_pairs import SOMEBODY
from tests.support.wire import CLOSE, Frames

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
        self.got += [frame.payload for frame in self._frames.feed(bytes(data)) if frame.opcode != CLOSE]

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

    def __init__(self, world: World, between: list[list[Act]]) -> None:
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

    def __init__(self, world: World, capacity: int) -> None:
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


class World:
    """Recipients, every client that ever was one, and the hub's part."""

    def __init__(
        self,
        recipients: Recipients,
        secrets: tuple[ssl.SSLContext, ssl.SSLContext] | None,
        capacity: int | None,
    ) -> None:
        """With `capacity` clients are written to in flights of so many."""
        self.recipients = recipients
        self.flying = capacity is not None
        self.engine = DirectWrites() if capacity is None else Flights(SteppedSender(self, capacity))
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
        if not client.behind or client.in_flight:
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
        peer.client.hold()

    def release(self, peer: Peer) -> None:
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
        assert set(recipients) == {peer.client for peer in self.here}
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
ACTS: dict[str, Callable[[World, Peer], None]] = {
    "leave": World.leave,
    "end": World.end,
    "send a little": partial(World.send, size=20),
    "send much": partial(World.send, size=20_000),
    "catch up": World.catch_up,
    "hold": World.hold,
    "release": World.release,
    "vanish": World.vanish,
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
async def world(*, over_tls: bool, flying: bool, chunk: int) -> AsyncIterator[World]:
    recipients = Recipients(encrypted=over_tls)
    made = World(recipients, tls_contexts() if over_tls else None, chunk if flying else None)
    with (
        trio.fail_after(LIMIT_SECONDS),
        patch.object(direct_writes, "CHUNK", chunk),
        patch.object(direct_writes, "os", made),
        patch.object(flights, "CHUNK", 1),
    ):
        try:
            yield made
        finally:
            made.close()


SIZES = [20, 20, 1500, 6000]
ACT = st.tuples(st.sampled_from(["come", "replace", *ACTS]), st.integers(0, 20))
ROUND = st.tuples(
    st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
    st.lists(st.lists(ACT, max_size=3), max_size=6),
)


async def live_through(
    over_tls: bool, flying: bool, chunk: int, clients: int, rounds: list[tuple[list[int], list[list[Act]]]]
) -> None:
    async with world(over_tls=over_tls, flying=flying, chunk=chunk) as one:
        for _ in range(clients):
            await one.come()
        for sizes, between in rounds:
            await one.broadcast([one.message(Kind.EVENT, size) for size in sizes], between)
        one.check_at_the_end()


@given(st.booleans(), st.integers(1, 4), st.integers(0, 8), st.lists(ROUND, min_size=1, max_size=5))
def test_a_client_that_stays_gets_every_message_once_and_in_order_and_no_other_gets_any(
    flying: bool, chunk: int, clients: int, rounds: list[tuple[list[int], list[list[Act]]]]
) -> None:
    trio.run(live_through, False, flying, chunk, clients, rounds)


@settings(max_examples=60)
@given(st.booleans(), st.integers(1, 4), st.integers(0, 6), st.lists(ROUND, min_size=1, max_size=4))
def test_the_same_holds_over_tls(
    flying: bool, chunk: int, clients: int, rounds: list[tuple[list[int], list[list[Act]]]]
) -> None:
    trio.run(live_through, True, flying, chunk, clients, rounds)


# -- the cases that the property is made of, one by one --------------------------------------------------------


WAYS = [(over_tls, flying) for over_tls in (False, True) for flying in (False, True)]
BOTH = pytest.mark.parametrize(("over_tls", "flying"), WAYS)


async def with_three(one: World, between: list[list[Act]]) -> None:
    for _ in range(3):
        await one.come()
    await one.broadcast([one.message(Kind.EVENT, 20)], between)


@BOTH
async def test_a_client_on_the_descriptor_of_one_that_left_does_not_get_what_was_for_the_other(
    over_tls: bool,
    flying: bool,
) -> None:
    async with world(over_tls=over_tls, flying=flying, chunk=1) as one:
        await with_three(one, [[("replace", 1)]])
        one.check_at_the_end()
        (left,) = one.gone
        assert (left.got, one.here[-1].got) == ([], [])
        assert [peer.got for peer in one.here[:2]] == [one.here[0].due] * 2


@BOTH
@pytest.mark.parametrize("then", ["catch up", "send a little"])
async def test_a_client_that_stops_being_ready_before_its_turn_is_served_at_the_end(
    over_tls: bool, flying: bool, then: str
) -> None:
    async with world(over_tls=over_tls, flying=flying, chunk=1) as one:
        await with_three(one, [[("send much", 2)], [(then, 2)]])
        one.check_at_the_end()
        assert one.here[2].heard(one.here[2].due) == one.here[0].due
        assert one.here[2].got[0] == one.here[2].own[0]


@BOTH
async def test_a_client_that_is_behind_costs_no_write_until_it_has_caught_up(
    over_tls: bool, flying: bool
) -> None:
    async with world(over_tls=over_tls, flying=flying, chunk=2) as one:
        for _ in range(4):
            await one.come()
        for _ in range(30):
            for peer in one.here[1:]:
                peer.read()
            await one.broadcast([one.message(Kind.EVENT, 1500)], [])  # `write` looks whom it is for
        assert [peer.client.behind for peer in one.here] == [True, False, False, False]
        assert one.here[0].client.queued
        one.check_at_the_end()
        assert not one.here[0].client.behind


@BOTH
async def test_a_held_client_is_served_once_it_has_been_released(over_tls: bool, flying: bool) -> None:
    async with world(over_tls=over_tls, flying=flying, chunk=1) as one:
        await with_three(one, [[("hold", 2)]])
        one.here[2].read()
        assert one.here[2].got == []
        one.check_at_the_end()
        assert one.here[2].got == one.here[2].due


@BOTH
async def test_a_peer_that_has_vanished_does_not_harm_the_others(over_tls: bool, flying: bool) -> None:
    async with world(over_tls=over_tls, flying=flying, chunk=8) as one:
        for _ in range(5):
            await one.come()
        for number in (1, 2):
            one.vanish(one.here[number])
        await one.broadcast([one.message(Kind.EVENT, 20)], [])
        assert len(one.gone) == 2
        one.check_at_the_end()
        assert [peer.got for peer in one.here] == [peer.due for peer in one.here]


@pytest.mark.parametrize("flying", [False, True])
async def test_recipients_may_all_leave_during_a_broadcast(flying: bool) -> None:
    async with world(over_tls=False, flying=flying, chunk=1) as one:
        await with_three(one, [[("leave", 0), ("leave", 0), ("leave", 0)]])
        assert not len(one.recipients)
        await one.broadcast([one.message(Kind.EVENT, 20)], [])
        await one.come()
        await one.broadcast([one.message(Kind.EVENT, 20)], [])
        one.check_at_the_end()
        assert one.here[0].client.sent == 1


@pytest.mark.parametrize("flying", [False, True])
async def test_ciphertext_that_is_pending_goes_before_the_next_message(flying: bool) -> None:
    """TLS has messages of its own, such as the answer to a key update, which a full socket may not take."""
    async with world(over_tls=True, flying=flying, chunk=8) as one:
        await one.come()
        (peer,) = one.here
        own = one.message(Kind.CONTROL, 20)
        peer.own.append(own.payload)
        peer.client.count_sent(1)
        peer.client.transport.keep(peer.client.transport.encrypt(own.frame))
        assert peer.client.transport.pending
        await one.broadcast([one.message(Kind.EVENT, 20)], [])
        assert not peer.client.transport.pending
        one.check_at_the_end()
        assert peer.got == [own.payload, *peer.due]
