"""A client's connection, plain and over TLS: as a Trio stream, and as the hub's transport."""

from __future__ import annotations

import os
import socket as stdlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from heliosd.hub.transport import Transport
from heliosd.websocket.plain import PlainStream, prepare
from heliosd.websocket.tls import MAX_WITHOUT_DATA, RECEIVE_BYTES, ClientStream, TLSStream, server_context
from heliosd.websocket.tls_records import MAX_CIPHERTEXT_BYTES
from tests.support.front_server import read_all, tls_contexts

LIMIT_SECONDS = 60
BOTH = pytest.mark.parametrize("over_tls", [False, True])


async def sockets() -> tuple[stdlib.socket, trio.SocketStream]:
    """Two ends of a TCP connection on loopback, the far one with a small receive buffer."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        far = trio.socket.socket()
        far.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 8192)
        await far.connect(listener.getsockname())
        near, _ = await listener.accept()
    ours = bare(near)
    prepare(ours)
    return ours, trio.SocketStream(far)


def bare(socket: trio.socket.SocketType) -> stdlib.socket:
    """The same connection without Trio around it."""
    ours = stdlib.socket(fileno=socket.detach())
    ours.setblocking(False)
    return ours


@asynccontextmanager
async def connected(
    over_tls: bool, *, strict: bool = False
) -> AsyncIterator[tuple[ClientStream, trio.abc.Stream]]:
    """Our end and the peer's, after the handshake. A strict peer takes no end without close_notify."""
    near, far = await sockets()
    with trio.fail_after(LIMIT_SECONDS):
        if not over_tls:
            plain = PlainStream(near)
            yield plain, far
            await plain.aclose()
        else:
            server, client = tls_contexts()
            ours = TLSStream(near, server)
            theirs = trio.SSLStream(far, client, server_hostname="127.0.0.1", https_compatible=not strict)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.do_handshake)
                nursery.start_soon(theirs.do_handshake)
            yield ours, theirs
            await ours.aclose()
    far.socket.close()


async def read_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        assert more
        data += more
    return bytes(data)


def stuff(stream: ClientStream, piece: bytes) -> bytes:
    """Writes until nothing more is taken; returns what was."""
    taken = b""
    while count := stream.write_now(piece):
        taken += piece[:count]
    return taken


@BOTH
async def test_bytes_go_both_ways(over_tls: bool) -> None:
    big = os.urandom(1_000_000)
    async with connected(over_tls) as (ours, theirs):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, big)
            assert await read_exactly(theirs, len(big)) == big
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.send_all, big)
            assert await read_exactly(ours, len(big)) == big


@BOTH
async def test_a_write_that_fits_arrives_without_waiting(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, theirs):
        transport: Transport = ours
        assert transport.direct
        assert transport.encrypted is over_tls
        assert transport.write_now(b"first ") == 6
        assert transport.write_now(memoryview(b"second")) == 6
        assert not transport.pending
        assert await read_exactly(theirs, 12) == b"first second"
        if not transport.encrypted:
            os.write(transport.fileno(), b"direct")
            assert await read_exactly(theirs, 6) == b"direct"


@BOTH
async def test_writes_into_a_full_socket_neither_wait_nor_lose_nor_reorder(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, theirs):
        prepare(ours.socket)
        piece = os.urandom(50_000)
        taken = stuff(ours, piece)
        assert ours.write_now(b"no room") == 0
        assert ours.pending is over_tls
        if over_tls:
            assert len(taken) % len(piece) == 0  # all or nothing

        received = bytearray()

        async def read() -> None:
            received.extend(await read_exactly(theirs, len(taken) + 5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await ours.wait_writable()
            assert not ours.pending
            while ours.write_now(b"after") != 5:
                await ours.wait_writable()
        assert received == taken + b"after"


@BOTH
async def test_a_prepared_socket_lets_little_wait_in_the_kernel(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, _):
        prepare(ours.socket)
        assert ours.socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NOTSENT_LOWAT) == 131072
        assert len(stuff(ours, bytes(4096))) < 500_000


@BOTH
async def test_sending_goes_on_behind_what_a_direct_write_left(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, theirs):
        taken = stuff(ours, os.urandom(30_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, b"the end")
            assert await read_exactly(theirs, len(taken) + 7) == taken + b"the end"


@BOTH
async def test_aborting_wakes_waiting_tasks_and_may_be_repeated(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, theirs):
        stuff(ours, bytes(50_000))

        async def reads() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()

        async def writes() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.wait_writable()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads)
            nursery.start_soon(writes)
            await trio.testing.wait_all_tasks_blocked()
            ours.abort()
            ours.abort()
        assert ours.fileno() == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            ours.write_now(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await ours.wait_writable()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()
        with pytest.raises(trio.BrokenResourceError):  # a reset: what was queued is not delivered
            await read_all(theirs)


@BOTH
async def test_writing_to_a_peer_that_is_gone_raises_oserror(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, theirs):
        transport = theirs.transport_stream if isinstance(theirs, trio.SSLStream) else theirs
        assert isinstance(transport, trio.SocketStream)
        PlainStream(bare(transport.socket)).abort()

        def write_on() -> None:
            while True:
                ours.write_now(b"x")

        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            write_on()


@BOTH
async def test_half_closing_ends_one_direction_only(over_tls: bool) -> None:
    async with connected(over_tls) as (ours, theirs):
        await ours.send_all(b"bye")
        ours.half_close()
        assert await read_all(theirs) == b"bye"
        await theirs.send_all(b"still here")
        assert await ours.receive_some() == b"still here"


@BOTH
async def test_the_end_of_the_peer_is_an_end_with_or_without_close_notify(over_tls: bool) -> None:
    for close_notify in (True, False):
        async with connected(over_tls) as (ours, theirs):
            await theirs.send_all(b"bye")
            if close_notify or not isinstance(theirs, trio.SSLStream):
                await theirs.aclose()
            else:
                await theirs.transport_stream.aclose()
            assert await read_all(ours) == b"bye"
            assert await ours.receive_some() == b""


async def test_close_notify_is_sent_at_closing() -> None:
    async with connected(True, strict=True) as (ours, theirs):
        await ours.aclose()
        assert await theirs.receive_some() == b""  # without close_notify this would be an error


async def test_bytes_read_are_not_lost_when_the_reader_is_cancelled() -> None:
    async with connected(True) as (ours, theirs):
        await theirs.send_all(b"abcdef")
        assert await ours.receive_some(1) == b"a"
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.receive_some(1)
        assert scope.cancelled_caught
        assert await read_exactly(ours, 5) == b"bcdef"


class NoDataInIt:
    """In place of OpenSSL: whatever comes, it goes through all of it and asks for more."""

    def __init__(self, incoming: ssl.MemoryBIO) -> None:
        self._incoming = incoming

    def read(self, _max_bytes: int) -> bytes:
        self._incoming.read()
        raise ssl.SSLWantReadError

    def unwrap(self) -> None:
        raise ssl.SSLError


class WithoutData(ssl.SSLContext):
    """Of connections on which no record has data for us."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, *_: object, **__: object) -> ssl.SSLObject:
        return NoDataInIt(incoming)  # type: ignore[return-value]


class Endless(stdlib.socket):
    """A socket in which there is one more record for a long time."""

    given = 0

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self.given += bufsize
        if self.given > 1_000_000:
            return b""
        return (b"\x17\x03\x03\x00\x13" + bytes(19)) * (bufsize // 24)


class NoCipher:
    """In place of OpenSSL: it keeps what it is given until that is read, and notes how much that was at most."""

    most = 0

    def __init__(self, outgoing: ssl.MemoryBIO) -> None:
        self._outgoing = outgoing

    def write(self, data: bytes | memoryview) -> int:
        self._outgoing.write(data)
        NoCipher.most = max(NoCipher.most, self._outgoing.pending)
        return len(data)

    def unwrap(self) -> None:
        raise ssl.SSLError


class WithoutCipher(ssl.SSLContext):
    """Of connections on which nothing is encrypted."""

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *_: object, **__: object
    ) -> ssl.SSLObject:
        return NoCipher(outgoing)  # type: ignore[return-value]


async def test_a_large_message_is_encrypted_by_pieces_so_that_a_connection_keeps_no_memory_of_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    big = os.urandom(1_000_000)
    monkeypatch.setattr(NoCipher, "most", 0)
    near, far = await sockets()
    with trio.fail_after(LIMIT_SECONDS):
        async with TLSStream(near, WithoutCipher(ssl.PROTOCOL_TLS_SERVER)) as ours, far:
            assert ours.encrypt(big) == big
            assert ours.write_now(big) == len(big)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, big)
                assert await read_exactly(far, 2 * len(big)) == big * 2
    assert 0 < NoCipher.most <= 16 * 1024


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_peer_whose_records_have_no_data_is_not_read_from_without_end(at_once: bool) -> None:
    with Endless() as socket, trio.fail_after(LIMIT_SECONDS):
        ours = TLSStream(socket, WithoutData(ssl.PROTOCOL_TLS_SERVER))
        if at_once:
            with pytest.raises(OSError, match="too many TLS records"):
                ours.read_now(4096)
        else:
            with pytest.raises(trio.BrokenResourceError):
                await ours.receive_some()
        assert socket.given <= 24 * MAX_WITHOUT_DATA + RECEIVE_BYTES + MAX_CIPHERTEXT_BYTES


async def test_a_peer_may_send_as_many_small_records_as_it_likes() -> None:
    count = 20 * MAX_WITHOUT_DATA
    async with connected(True) as (ours, theirs):
        for _ in range(2):
            for _ in range(count):
                await theirs.send_all(b"x")
            assert await read_exactly(ours, count) == b"x" * count
            for _ in range(count):
                await theirs.send_all(b"y")
            for _ in range(count):
                while (data := ours.read_now(4096)) is None:
                    await trio.lowlevel.wait_readable(ours.socket)
                assert data == b"y"


async def test_two_tasks_sending_at_once_is_an_error_of_the_caller() -> None:
    async with connected(True) as (ours, _), trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, bytes(10_000_000))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await ours.send_all(b"x")
        nursery.cancel_scope.cancel()


async def test_a_handshake_in_plain_text_is_refused() -> None:
    server, trusting = tls_contexts()
    with trio.fail_after(LIMIT_SECONDS):
        near, far = await sockets()
        async with TLSStream(near, server) as ours, far:
            await far.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):
                await ours.do_handshake()

        near, far = await sockets()
        async with TLSStream(near, server) as ours, far:
            await far.send_eof()
            with pytest.raises(trio.BrokenResourceError):
                await ours.do_handshake()
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert trusting.check_hostname


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_http_1_1_is_the_only_protocol_in_either_version_of_tls(version: ssl.TLSVersion) -> None:
    server, trusting = tls_contexts()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata="".join(map(ssl.DER_cert_to_PEM_cert, trusting.get_ca_certs(True))))
    client.minimum_version = client.maximum_version = version
    client.set_alpn_protocols(["h2", "http/1.1"])
    with trio.fail_after(LIMIT_SECONDS):
        near, far = await sockets()
        ours, theirs = TLSStream(near, server), trio.SSLStream(far, client, server_hostname="127.0.0.1")
        async with ours, theirs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.do_handshake)
                nursery.start_soon(theirs.do_handshake)
            assert ours.selected_alpn_protocol() == "http/1.1"
            assert theirs.selected_alpn_protocol() == "http/1.1"
            ours.write_now(b"hello")
            assert await theirs.receive_some() == b"hello"
            ours.half_close()


def test_a_key_that_cannot_be_used_is_an_error_not_a_question(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "key.pem").write_bytes(locked)
    (tmp_path / "cert.pem").write_text(ssl.DER_cert_to_PEM_cert(tls_contexts()[1].get_ca_certs(True)[0]))
    with pytest.raises(OSError, match=r"\S"):
        server_context(tmp_path / "cert.pem", tmp_path / "key.pem")
    with pytest.raises(FileNotFoundError):
        server_context(tmp_path / "absent.pem", tmp_path / "key.pem")


@BOTH
async def test_trios_own_rules_for_streams_hold(over_tls: bool) -> None:
    async def pair() -> tuple[ClientStream, trio.abc.Stream]:
        near, far = await sockets()
        if not over_tls:
            return PlainStream(near), PlainStream(bare(far.socket))
        server, client = tls_contexts()
        ours = TLSStream(near, server)
        theirs = trio.SSLStream(far, client, server_hostname="127.0.0.1", https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.do_handshake)
            nursery.start_soon(theirs.do_handshake)
        return ours, theirs

    with trio.fail_after(60):
        await trio.testing.check_two_way_stream(pair, None)


async def test_what_comes_behind_our_end_is_read_so_that_the_kernel_sends_no_reset() -> None:
    async with connected(True) as (ours, theirs):
        for _ in range(3):
            await theirs.send_all(b"record")
        assert await ours.receive_some(6) == b"record"
        ours.half_close()
        for _ in range(20):
            await theirs.send_all(b"x" * 1000)
        with trio.move_on_after(0.2) as waiting:
            while await ours.receive_some(4096):
                pass
        assert waiting.cancelled_caught, "it reads until the peer closes"
        await theirs.send_all(b"still there")
        assert await theirs.receive_some(1) == b""
