"""Whatever clients do during a broadcast, each that stays gets it exactly once.

Between any two chunks of a broadcast, or while their sockets are written to in a flight, clients leave (and others
get their descriptors), fall behind, catch up, are held and released, get a message of their own, and come. The
sockets are real, plain or with TLS; only what the fast path writes is looked at on its way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.hub import direct_writes
from heliosd.hub.client import BATCH_BYTES, HubClient
from heliosd.hub.direct_writes import DirectWrites
from heliosd.hub.flights import TLS_FLIGHT_BYTES, Flights
from heliosd.hub.recipients import Recipients
from heliosd.hub.time_slice import TimeSlice
from heliosd.protocol.message import Kind
from tests.support.hub_harness import Socket, open_house
from tests.support.recipients_world import ACTS, Act, RecipientsWorld, world

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


@settings(max_examples=settings().max_examples * 3 // 5)
@given(st.booleans(), st.integers(1, 4), st.integers(0, 6), st.lists(ROUND, min_size=1, max_size=4))
def test_the_same_holds_over_tls(
    flying: bool, chunk: int, clients: int, rounds: list[tuple[list[int], list[list[Act]]]]
) -> None:
    trio.run(live_through, True, flying, chunk, clients, rounds)


# -- the cases that the property is made of, one by one --------------------------------------------------------


WAYS = [(over_tls, flying) for over_tls in (False, True) for flying in (False, True)]
BOTH = pytest.mark.parametrize(("over_tls", "flying"), WAYS)


async def with_three(one: RecipientsWorld, between: list[list[Act]]) -> None:
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
        assert one.here[0].client.waiting
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


class LastFlight:
    """A sender that fails in its first flight: no socket takes anything."""

    capacity = 2
    threads = 1
    usable = True

    async def send(self, fds: Sequence[int], payloads: bytes | Sequence[bytes]) -> list[tuple[int, int]]:
        assert self.usable, "it cannot send any more"
        self.usable = False
        await trio.lowlevel.checkpoint()
        return [(place, 0) for place in range(len(fds))]


@pytest.mark.parametrize("over_tls", [False, True])
async def test_flights_behind_one_in_which_the_sender_failed_are_written_directly(over_tls: bool) -> None:
    async with world(over_tls=over_tls, flying=True, chunk=2, sender=LastFlight()) as one:
        for _ in range(6):
            await one.come()
        await one.broadcast([one.message(Kind.EVENT, 20)], [])
        assert [peer.client.behind for peer in one.here] == [True] * 2 + [False] * 4
        one.check_at_the_end()
        assert [peer.got for peer in one.here] == [peer.due for peer in one.here]


class Direct(Socket):
    """A socket that the fast path may write to."""

    direct = True

    def fileno(self) -> int:
        return 0


class Encrypted(Direct):
    """The same over TLS, without a cipher."""

    encrypted = True

    def encrypt(self, data: bytes) -> bytes:
        return data + b"!"

    def begin_flight(self) -> None:
        pass

    def end_flight(self, rest: bytes | memoryview) -> None:
        assert not rest


class Stuck(Encrypted):
    """A socket over TLS that takes nothing."""

    pending = False

    def end_flight(self, rest: bytes | memoryview) -> None:
        self.pending = bool(rest)


class CountingSender:
    """A sender for many, by which all are sent everything."""

    capacity = 4096
    threads = 1
    usable = True

    def __init__(self) -> None:
        self.flights: list[tuple[int, int]] = []
        """Of each, its clients and its bytes."""

    async def send(self, fds: Sequence[int], payloads: bytes | Sequence[bytes]) -> list[tuple[int, int]]:
        await trio.lowlevel.checkpoint()
        self.flights.append((len(fds), sum(map(len, payloads)) if isinstance(payloads, list) else 0))
        return []


@pytest.mark.parametrize(("size", "flights"), [(700, 1), (64 * 1024, 8), (1024 * 1024, 8)])
async def test_over_tls_a_flight_is_bounded_in_bytes(size: int, flights: int) -> None:
    recipients, sender = Recipients(encrypted=True), CountingSender()
    async with open_house() as house:
        for _ in range(500):
            client, _ = house.join()
            client.transport = Encrypted()
            recipients.add(client)
        settle = house.hub.connections.settle
        await Flights(sender).write(recipients, recipients.begin(1)[0], b"x" * size, settle, TimeSlice())
    assert len(sender.flights) == flights
    assert sum(clients for clients, _ in sender.flights) == 500
    assert max(sent for _, sent in sender.flights) <= TLS_FLIGHT_BYTES + 500


class ShortSlices(TimeSlice):
    """They are over whenever they are asked."""

    over = True
    pauses = 0

    async def pause(self) -> None:
        self.pauses += 1
        await trio.lowlevel.checkpoint()


class Weighed(Encrypted):
    """Says what it is given to encrypt, and in which turn."""

    def __init__(self, slices: ShortSlices, given: Counter[int]) -> None:
        super().__init__()
        self._slices, self._given = slices, given

    def encrypt(self, data: bytes) -> bytes:
        self._given[self._slices.pauses] += len(data)
        return super().encrypt(data)


class AllTaken:
    """In place of `os`: every socket takes all."""

    @staticmethod
    def write(_descriptor: int, data: bytes) -> int:
        return len(data)


@pytest.mark.parametrize("flying", [False, True])
@pytest.mark.parametrize("size", [700, 20_000, BATCH_BYTES, 300_000])
async def test_over_tls_little_is_encrypted_between_two_pauses(
    monkeypatch: pytest.MonkeyPatch, size: int, flying: bool
) -> None:
    monkeypatch.setattr(direct_writes, "os", AllTaken)
    recipients, slices = Recipients(encrypted=True), ShortSlices()
    given: Counter[int] = Counter()
    async with open_house() as house:
        clients = [house.join()[0] for _ in range(64)]
        for client in clients:
            client.transport = Weighed(slices, given)
            client.transport.room = 0  # for what is behind the broadcast
            recipients.add(client)
        engine = Flights(CountingSender()) if flying else DirectWrites()
        settle = house.hub.connections.settle
        await engine.write(recipients, recipients.begin(1)[0], b"x" * size, settle, slices)
        assert max(given.values()) <= BATCH_BYTES
        assert all(client.behind == (size > BATCH_BYTES) for client in clients)


class FullSockets(CountingSender):
    """A sender whose sockets take nothing."""

    async def send(self, fds: Sequence[int], payloads: bytes | Sequence[bytes]) -> list[tuple[int, int]]:
        await super().send(fds, payloads)
        return [(place, 0) for place in range(len(fds))]


@pytest.mark.parametrize("over_tls", [False, True])
async def test_between_those_that_a_flight_leaves_behind_others_run(over_tls: bool) -> None:
    recipients = Recipients(encrypted=over_tls)
    clients: list[HubClient] = []
    slices = ShortSlices()
    at: list[int] = []

    def settle(client: HubClient) -> None:
        at.append(slices.pauses)
        assert all(each.behind or recipients.in_flight(each) for each in clients[:-1])
        house.hub.connections.settle(client)
        if len(at) == 1:
            recipients.remove(clients[-1])

    async with open_house() as house:
        for _ in range(100):
            client, _ = house.join()
            client.transport = Stuck() if over_tls else Direct()
            client.transport.room = 0
            recipients.add(client)
            clients.append(client)
        places, _ = recipients.begin(1)
        await Flights(FullSockets()).write(recipients, places, b"x" * 100, settle, slices)
    assert at == sorted(set(at))  # a turn for each
    assert len(at) == 99  # but for the one that has left
    assert not any(client.wants_pump for client in clients[:-1])


async def test_places_of_those_that_have_left_are_used_again_though_nothing_is_broadcast() -> None:
    recipients = Recipients()
    async with open_house() as house:
        for _ in range(1000):
            client, _ = house.join()
            client.transport = Direct()
            recipients.add(client)
            if len(recipients) > 3:
                recipients.remove(client)
    assert len(recipients) == 3
    assert len(recipients.clients) == len(recipients.fds) < 200
    everyone = [client for client in recipients.everyone() if client is not None]
    assert [client.place for client in everyone] == [recipients.clients.index(each) for each in everyone]


async def test_only_those_that_are_ready_at_their_turn_count_as_written_to() -> None:
    recipients = Recipients()
    async with open_house() as house:
        clients = [house.join()[0] for _ in range(4)]
        for client in clients:
            client.transport = Direct()
            recipients.add(client)
        recipients.begin(1)
        recipients.served = 1
        clients[1].fall_behind()
        recipients.remove(clients[2])
        recipients.served = 4
        clients[3].fall_behind()
        assert recipients.finish() == [clients[1]]
        assert recipients.written == 2
