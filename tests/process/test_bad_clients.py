"""Clients that break rules or take too long, from the outside: each is ended as documented, others are unharmed.

The short forms run in `make test`, the long ones in `make prove-connections`.
"""

from __future__ import annotations

import json
import os
import resource
import socket as stdlib
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, receive, running, wait_until
from tests.support.deadlines import SECONDS, at_most
from tests.support.raw_client import RawClient, closing
from tests.support.wire import CONTINUATION, PING, PONG, TEXT, masked, upgrade

LIMIT = 65_536
MIB = 1024 * 1024
LINGER_SECONDS = 1.0
SLACK_SECONDS = 1.0
"""What a busy machine may add to a deadline."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon"), websocket="status_interval = 0.05") as started:
        yield started
        assert not [line for line in started.lines if line.get("level") == "error"]


@pytest.fixture(scope="module")
def token(daemon: Daemon) -> str:
    return daemon.token()


@contextmanager
def connected(daemon: Daemon, token: str, *, deflate: bool = False) -> Iterator[RawClient]:
    with RawClient(daemon, token, deflate=deflate) as client:
        client.wait_upgraded()
        yield client


@contextmanager
def canary(daemon: Daemon, token: str) -> Iterator[list[float]]:
    """A well-behaved client beside the block: how long each of its pings took to be answered, in seconds."""
    took: list[float] = []
    over = threading.Event()
    broken: list[Exception] = []

    def ask() -> None:
        try:
            with daemon.connect(token) as socket:
                while not over.wait(0.1):  # within the rate limit
                    began = time.monotonic()
                    socket.send('{"type":"ping"}')
                    receive(socket, "pong")
                    took.append(time.monotonic() - began)
        except Exception as error:  # reported where the block ends
            broken.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join(2 * SECONDS)
    assert not broken, broken
    assert took, "the canary was never answered"


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


@contextmanager
def peak_growth(daemon: Daemon) -> Iterator[list[int]]:
    """By how many bytes the daemon's memory was larger within the block, at its highest, than before it."""
    growth: list[int] = []
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = daemon.rss_bytes()
    yield growth
    status = Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii")
    growth.append(int(status.split("VmHWM:")[1].split()[0]) * 1024 - before)


# -- messages too long, bombs, compression without agreement -----------------------------------------------------


def in_fragments(payload: bytes, count: int) -> bytes:
    size = -(-len(payload) // count)
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(
        masked(TEXT if at == 0 else CONTINUATION, part, fin=at == len(parts) - 1)
        for at, part in enumerate(parts)
    )


def squeezed(size: int) -> bytes:
    """A message of `size` zeros, compressed."""
    squeeze = zlib.compressobj(9, wbits=-15)
    block = bytes(MIB)
    parts = [squeeze.compress(block) for _ in range(size // MIB)]
    return b"".join([*parts, squeeze.flush(zlib.Z_SYNC_FLUSH)])[:-4]


TOO_MUCH = {
    "limit + 1, whole": masked(TEXT, b"x" * (LIMIT + 1)),
    "limit + 1, in fragments": in_fragments(b"x" * (LIMIT + 1), 5),
    "a declared length of 2^62": b"\x81\xff" + struct.pack("!Q", 2**62) + b"abcd",
    "129 fragments": in_fragments(b"x" * 129, 129) + masked(CONTINUATION, b"", fin=False),
    "endless empty fragments": masked(TEXT, b"", fin=False) + masked(CONTINUATION, b"", fin=False) * 500,
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_too_much_is_answered_with_1009_and_the_connection_ends_within_a_second(
    daemon: Daemon, token: str, name: str
) -> None:
    with connected(daemon, token) as client, peak_growth(daemon) as growth:
        with suppress(ConnectionError):  # closed before all of it was taken
            client.send(TOO_MUCH[name])
        code, seconds = client.ending()
    assert code == 1009
    assert seconds < at_most(LINGER_SECONDS + SLACK_SECONDS)
    assert growth[0] < 4 * MIB


def test_a_message_of_exactly_the_limit_is_read(daemon: Daemon, token: str) -> None:
    text = json.dumps({"type": "ping", "pad": ""}).encode()
    text = text.replace(b'""', b'"' + b"x" * (LIMIT - len(text)) + b'"')
    assert len(text) == LIMIT
    with connected(daemon, token) as client:
        client.send(masked(TEXT, text))
        client.wait_for_message("pong")
        client.send(in_fragments(text, 100))
        client.wait_for_message("pong")


def bomb(daemon: Daemon, token: str, rounds: int) -> None:
    small = squeezed(64 * MIB)
    frame = masked(TEXT, small, rsv1=True)
    assert len(frame) <= LIMIT + 1024
    pieces = [small[at : at + 4000] for at in range(0, 60_000, 4000)]
    fragmented = b"".join(
        masked(TEXT if at == 0 else CONTINUATION, piece, fin=False, rsv1=at == 0)
        for at, piece in enumerate(pieces)
    )

    def send(wire: bytes) -> None:
        with connected(daemon, token, deflate=True) as client:
            assert b"permessage-deflate" in client.frames.head
            with suppress(ConnectionError):
                client.send(wire)
            code, seconds = client.ending()
            assert code == 1009
            assert seconds < at_most(LINGER_SECONDS + SLACK_SECONDS)

    send(frame)  # memory that the first one takes is kept by the process
    with peak_growth(daemon) as growth:
        for _ in range(rounds):
            send(frame)
            send(fragmented)
    assert growth[0] <= MIB


def test_a_deflate_bomb_gets_1009_and_costs_no_memory(daemon: Daemon, token: str) -> None:
    bomb(daemon, token, 2)


@pytest.mark.slow
def test_50_deflate_bombs_get_1009_and_cost_no_memory(daemon: Daemon, token: str) -> None:
    bomb(daemon, token, 25)


def test_compression_that_was_not_agreed_on_is_1002(daemon: Daemon, token: str) -> None:
    with connected(daemon, token) as client:
        assert b"permessage-deflate" not in client.frames.head
        client.send(masked(TEXT, squeezed(MIB), rsv1=True))
        assert client.ending()[0] == 1002


# -- floods -------------------------------------------------------------------------------------------------------


def test_a_message_that_comes_byte_by_byte_is_read(daemon: Daemon, token: str) -> None:
    with connected(daemon, token) as client:
        client.socket.setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
        for byte in in_fragments(b'{"type":"ping"}', 15):
            client.send(bytes([byte]))
        client.wait_for_message("pong")


def flood(client: RawClient, wire: bytes, seconds: float) -> None:
    """Send as fast as it goes without reading, until the time is over or the daemon has closed the connection."""
    until = time.monotonic() + seconds
    client.socket.settimeout(0.2)
    with suppress(ConnectionError):
        while time.monotonic() < until and not client.gone():
            with suppress(TimeoutError):
                client.socket.send(wire)


def one_byte_frames(daemon: Daemon, token: str, seconds: float) -> list[float]:
    with canary(daemon, token) as took:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with connected(daemon, token) as client:
                # Each is a bad message: refused beyond the rate, and after 200 in a row the client is closed.
                flood(client, masked(TEXT, b"x") * 500, SECONDS)
                assert client.ending()[0] in {4429, None}
    return took


def test_one_byte_messages_at_line_rate_end_the_connection_and_others_are_answered(
    daemon: Daemon, token: str
) -> None:
    one_byte_frames(daemon, token, 1.0)


@pytest.mark.slow
def test_one_byte_messages_at_line_rate_keep_no_other_client_waiting(daemon: Daemon, token: str) -> None:
    took = one_byte_frames(daemon, token, 20.0)
    print(f"p99 of the canary: {p99(took) * 1000:.1f} ms")
    assert p99(took) <= 0.05


def ping_without_reading(folder: Path, pings_a_second: int, seconds: float) -> list[float]:
    """Pings from clients that do not read: each is closed for too many, and none costs memory. Returns how long
    another client's pings took meanwhile."""
    with running(folder) as daemon:
        token = daemon.token()
        with canary(daemon, token) as took, peak_growth(daemon) as growth:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                with RawClient(daemon, token, receive_buffer=4096) as client:
                    client.wait_upgraded()
                    while not client.gone():
                        with suppress(ConnectionError):
                            flood(client, masked(PING, b"x" * 125) * (pings_a_second // 100), 0.005)
                        time.sleep(0.005)
        assert growth[0] < 4 * MIB
        daemon.wait_logged(lambda line: line["event"] == "client left" and line.get("code") == 4429)
    return took


def test_a_client_that_pings_without_end_is_closed(tmp_path: Path) -> None:
    ping_without_reading(tmp_path, 10_000, 0.5)


@pytest.mark.slow
def test_10000_pings_a_second_without_reading_keep_no_other_client_waiting(tmp_path: Path) -> None:
    took = ping_without_reading(tmp_path, 10_000, 20.0)
    print(f"p99 of the canary: {p99(took) * 1000:.1f} ms")
    assert p99(took) <= 0.05


def test_400_pings_at_once_are_answered(daemon: Daemon, token: str) -> None:
    with connected(daemon, token) as client:
        client.send(masked(PING, b"x") * 399 + masked(PING, b"last"))
        client.wait_for(lambda frame: frame.opcode == PONG and frame.payload == b"last")


# -- silence ------------------------------------------------------------------------------------------------------


def ignore_pings(folder: Path, read_timeout: float) -> None:
    config = f"read_timeout = {read_timeout}\nping_interval = {read_timeout / 4}"
    with running(folder, websocket=config) as daemon:
        token = daemon.token()
        with daemon.connect(token, ping_interval=None) as healthy, connected(daemon, token) as silent:
            began = time.monotonic()
            code, _ = silent.ending()
            assert code == 1001
            latest = at_most(read_timeout + LINGER_SECONDS + SLACK_SECONDS)
            assert read_timeout - 0.5 < time.monotonic() - began < latest
            # Its library has answered the pings.
            healthy.send('{"type":"ping"}')
            receive(healthy, "pong")
        wait_until(lambda: sum(line["event"] == "client left" for line in daemon.lines) == 2)


def test_a_client_that_ignores_pings_is_gone_by_the_read_timeout(tmp_path: Path) -> None:
    ignore_pings(tmp_path, 2.0)


@pytest.mark.slow
def test_a_client_that_ignores_pings_is_gone_by_the_default_read_timeout(tmp_path: Path) -> None:
    ignore_pings(tmp_path, 60.0)


@pytest.mark.slow
@pytest.mark.parametrize("opening", ["", "GET ", "upgrade"])
def test_a_head_that_never_ends_is_closed_in_five_seconds(daemon: Daemon, token: str, opening: str) -> None:
    """Also when it looks like a WebSocket already. The short form, with a shorter deadline, is in test_front.py."""
    head = upgrade(daemon.address, token)[:-2] if opening == "upgrade" else opening.encode()
    host, port = daemon.address.rsplit(":", 1)
    with stdlib.create_connection((host, int(port)), SECONDS) as socket:
        began = time.monotonic()
        socket.sendall(head)
        socket.settimeout(0.5)
        data: bytes | None = None
        while data != b"" and time.monotonic() < began + 10:
            try:
                if opening:
                    socket.sendall(b"x")  # a byte now and then
                data = socket.recv(100)
            except TimeoutError:
                continue
            except ConnectionError:
                data = b""
        assert data == b""
        assert 4.5 < time.monotonic() - began < 5 + SLACK_SECONDS


# -- scarcity -----------------------------------------------------------------------------------------------------


def cpu_seconds(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_out_of_descriptors(folder: Path, *, limit: int, connects: int, seconds: float) -> None:
    with running(folder, websocket="status_interval = 60.0") as daemon:
        token = daemon.token()
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
        with closing([]) as clients:
            for _ in range(connects):
                clients.append(RawClient(daemon, token))
            daemon.wait_logged(lambda line: "cannot accept" in line["event"])
            before, began = cpu_seconds(daemon), time.monotonic()
            lines = len(daemon.lines)
            time.sleep(seconds)  # warnings and CPU are measured over this time
            lasted = time.monotonic() - began
            warnings = [line for line in daemon.lines[lines:] if "cannot accept" in line["event"]]
            assert len(warnings) <= lasted + 1
            assert cpu_seconds(daemon) - before < 0.5 * lasted
            assert daemon.process.poll() is None
            # Connected clients are served.
            clients[0].wait_upgraded()
            clients[0].send(masked(PING, b"still there"))
            clients[0].wait_for(lambda frame: frame.opcode == PONG and frame.payload == b"still there")
        wait_until(lambda: healthy(daemon))
        assert daemon.stop() == 0


def healthy(daemon: Daemon) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{daemon.url}/healthz", timeout=SECONDS, verify=False).status_code == 200
    return False


def test_without_descriptors_it_neither_ends_nor_spins_nor_floods_the_log(tmp_path: Path) -> None:
    run_out_of_descriptors(tmp_path, limit=64, connects=100, seconds=2.0)


@pytest.mark.extended
def test_connections_that_are_kept_idle_make_room_when_descriptors_run_out(tmp_path: Path) -> None:
    with running(tmp_path, websocket="status_interval = 60.0") as daemon:
        host, port = daemon.address.rsplit(":", 1)

        def ask(socket: stdlib.socket) -> bytes:
            socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return socket.recv(65_536)[:12]

        with ExitStack() as kept:
            early = kept.enter_context(stdlib.create_connection((host, int(port)), SECONDS))
            assert ask(early) == b"HTTP/1.1 200"
            limit = max(map(int, os.listdir(f"/proc/{daemon.pid}/fd"))) + 1  # noqa: PTH208
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
            late = 0
            # More than there are free numbers below the highest: at least one of them finds no descriptor.
            while not any(line["event"] == "cannot accept connections" for line in daemon.lines):
                late += 1
                assert late < 2 * limit
                another = kept.enter_context(stdlib.create_connection((host, int(port)), SECONDS))
                assert ask(another) == b"HTTP/1.1 200", "kept connections made room for it"
            assert early.recv(1) == b"", "the connection that was kept was closed"
        assert daemon.stop() == 0


@pytest.mark.slow
def test_with_256_descriptors_and_400_connects_it_neither_ends_nor_spins_nor_floods_the_log(
    tmp_path: Path,
) -> None:
    run_out_of_descriptors(tmp_path, limit=256, connects=400, seconds=10.0)


def test_after_all_of_that_descriptors_are_back_to_where_they_were(daemon: Daemon, token: str) -> None:
    before = daemon.descriptors()
    for wire in TOO_MUCH.values():
        with connected(daemon, token) as client, suppress(ConnectionError):
            client.send(wire)
    wait_until(lambda: daemon.descriptors() <= before)
