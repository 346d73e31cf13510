"""Too much of everything: logins, bodies and heads held back, clients that do not read, messages without end."""

from __future__ import annotations

import json
import struct
import zlib

import trio

from tests.support.wire import BINARY, CONTINUATION, PING, PONG, TEXT, masked

from .requests import METRICS
from .rights import UPGRADE
from .target import Answer, SocketClient, Target

LIMIT = 65_536


def _bomb(size: int = 64 * 1024 * 1024) -> bytes:
    squeeze = zlib.compressobj(9, wbits=-15)
    block = bytes(1024 * 1024)
    parts = [squeeze.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, squeeze.flush(zlib.Z_SYNC_FLUSH)])[:-4]


FRAMES: tuple[tuple[str, bytes, int], ...] = (
    ("limit + 1", masked(TEXT, b"x" * (LIMIT + 1)), 1009),
    ("limit + 1 in two", masked(TEXT, b"x" * LIMIT, fin=False) + masked(CONTINUATION, b"x"), 1009),
    ("2^62 bytes declared", b"\x81\xff" + struct.pack("!Q", 2**62) + b"abcd", 1009),
    ("endless fragments", masked(TEXT, b"", fin=False) + masked(CONTINUATION, b"", fin=False) * 500, 1009),
    ("no UTF-8", masked(TEXT, b"\xff"), 1007),
    ("half of UTF-8", masked(TEXT, b"\xc3", fin=False) + masked(CONTINUATION, b"("), 1007),
    ("RSV1", masked(TEXT, b"x", rsv1=True), 1002),
    ("RSV2", b"\xa1\x80abcd", 1002),
    ("opcode 3", masked(3, b""), 1002),
    ("unmasked", b"\x81\x01x", 1002),
    ("a long ping", masked(PING, b"x" * 126), 1002),
    ("a ping in parts", masked(PING, b"", fin=False), 1002),
    ("binary", masked(BINARY, b"x"), 1003),
    ("close 1005", masked(8, struct.pack("!H", 1005)), 1002),
    ("half a close code", masked(8, b"\x03"), 1002),
    ("a message within another", masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"), 1002),
)
MESSAGES = (
    '{"type":"subscribe","data":{"latency":{"min_interval":' + "9" * 400 + "}}}",
    '{"type":"subscribe","data":{"latency":{"min_interval":1e999}}}',
    '{"type":"subscribe","data":{"custom_metrics":{"names":["' + "*a" * 99 + '"]}}}',
    '{"type":"subscribe","data":{"everything":true}}',
    '{"type":"subscribe","data":' + "[" * 5000 + "}",
    '{"type":' + "9" * 5000 + "}",
    '{"type":"\\ud800"}',
    '{"type":"auth","data":{"token":"wrong"}}',
    '{"type":"auth","data":{"token":' + "[" * 1000 + "]" * 1000 + "}}",
    "nope",
    "",
    "[]",
)


async def frames(target: Target) -> None:
    """Frames that RFC 6455 forbids, bombs, and messages that mean nothing."""
    for what, wire, code in FRAMES:
        async with target.client() as client:
            await client.send(wire)
            if (got := await client.close_code()) != code:
                target.fault(f"{what}: closed with {got}, not {code}")
    bomb = masked(TEXT, _bomb(), rsv1=True)
    for _ in range(20):
        async with target.client(deflate=True) as client:
            await client.send(bomb)
            if (got := await client.close_code()) != 1009:
                target.fault(f"a bomb: closed with {got}, not 1009")
    for text in MESSAGES:
        async with target.client() as client:
            answer = await client.answer_to(text)
            if answer.get("type") != "error":
                target.fault(f"{text[:60]}: {answer}")


async def messages(target: Target) -> None:
    """One-byte frames, pings and one-byte writes at line rate, from clients of which some do not read."""

    async def read(client: SocketClient, wire: bytes) -> None:
        code = await client.close_code()
        if wire in too_many and code != 4429:
            target.fault(f"a flood of {wire[:2]!r}: closed with {code}, not 4429")

    async def pour(wire: bytes, reads: bool) -> None:
        with trio.move_on_after(5):
            buffer = None if reads else 4096
            async with target.client(receive_buffer=buffer) as client, trio.open_nursery() as nursery:
                if reads:
                    nursery.start_soon(read, client, wire)
                for _ in range(200):
                    await client.send(wire)
                    await trio.sleep(0.01)  # the rate of the flood: 100 batches a second
                nursery.cancel_scope.cancel()

    too_many = (masked(TEXT, b"x") * 200, masked(PING, b"x") * 200)
    async with trio.open_nursery() as nursery:
        for wire in (*too_many, masked(PONG, b"") * 200, b"\x89"):
            for reads in (True, False):
                nursery.start_soon(pour, wire, reads)


async def subscriptions(target: Target) -> None:
    """Four clients that renew 64 globs every 0.1 s, of the slowest kind, while there are metrics to match."""
    glob = "*a" * 8
    names = json.dumps([f"{glob}{number}" for number in range(64)])
    subscribe = f'{{"type":"subscribe","data":{{"custom_metrics":{{"names":{names}}}}}}}'
    for number in range(20):
        body = json.dumps({"name": f"{'a' * 100}_{number}", "type": "gauge"}).encode()
        await target.ask("POST", METRICS, body)

    async def renew() -> None:
        async with target.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.close_code)
            for _ in range(50):
                await client.send(masked(TEXT, subscribe.encode()))
                await trio.sleep(0.1)  # the rate of the attack
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(renew)
    for number in range(20):
        body = json.dumps({"name": f"{'a' * 100}_{number}"}).encode()
        await target.ask("DELETE", METRICS, body)


async def refusals(target: Target) -> None:
    """1,500 upgrades and requests that are refused, 300 a second."""

    async def ask(number: int) -> None:
        path, headers = (("/ws/cluster", UPGRADE), ("/api/cluster/events", {}))[number % 2]
        target.expect("without a token", await target.ask("GET", path, headers=headers, token=None), {401})

    async with trio.open_nursery() as nursery:
        for number in range(1500):
            nursery.start_soon(ask, number)
            await trio.sleep(1 / 300)  # the rate of the attack


async def readers(target: Target) -> None:
    """A status as large as it may be: 16 WebSockets that never read ask for it again and again, and 4 event
    streams do not read it either. A client that reads is served. (Each holds at most 1 MiB.)"""

    async def never_read(number: int) -> None:
        with trio.move_on_after(6):
            if number % 5 == 0:
                async with target.connected(receive_buffer=4096) as stream:
                    head = f"GET /api/cluster/events HTTP/1.1\r\nHost: {target.address}\r\n"
                    await stream.send_all(f"{head}Authorization: Bearer {target.token}\r\n\r\n".encode())
                    await trio.sleep_forever()
            async with target.client(receive_buffer=4096) as client:
                while True:
                    await client.send(masked(TEXT, b'{"type":"status"}'))
                    await trio.sleep(0.06)  # below the rate that is refused, so that each one is answered

    made: list[str] = []
    while len(made) < 400:
        name = f"attack_large_{len(made)}"
        large = json.dumps({"name": name, "type": "gauge", "help": "y" * 4000}).encode()
        if (await target.ask("POST", METRICS, large)).status == 507:  # beyond websocket.max_status_bytes
            break
        made.append(name)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(never_read, number)
        for _ in range(5):
            async with target.client() as client:
                await client.send(masked(TEXT, b'{"type":"status"}'))
                if (answer := await client.answer_to('{"type":"ping"}')).get("type") != "pong":
                    target.fault(f"a client that reads a large status got {answer}, not its pong")
    for name in made:
        await target.ask("DELETE", METRICS, json.dumps({"name": name}).encode())


async def held(target: Target) -> None:
    """400 connections that say nothing, drip a head, hold a body back, or never read the answer."""
    login = f"POST /api/auth/login HTTP/1.1\r\nHost: {target.address}\r\n".encode()
    beginnings = (
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ",
        b"GET /ws/cluster HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nX: ",
        login + b"Content-Length: 4096\r\n\r\n" + b" " * 4000,
        login + b"Content-Length: 1048576\r\n\r\n" + b" " * 100_000,
        login + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + b" " * 4000,
        f"POST /api/cluster/custom-metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.token}\r\n"
        "Content-Length: 1000000\r\n\r\n".encode()
        + b" " * 400_000,
        f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {target.token}\r\n\r\n".encode() * 100,
    )

    async def hold(number: int) -> None:
        with trio.move_on_after(7):
            try:
                async with target.connected(receive_buffer=4096) as stream:
                    await stream.send_all(beginnings[number % len(beginnings)])
                    while True:
                        await trio.sleep(1)
                        await stream.send_all(b"x" if number % len(beginnings) < 3 else b"")
            except (OSError, trio.BrokenResourceError):
                pass  # ended, as it has to be

    async with trio.open_nursery() as nursery:
        for number in range(400):
            nursery.start_soon(hold, number)


async def logins(target: Target) -> None:
    """200 wrong logins a second from 800 addresses, for 5 s; then 30 right ones at once."""
    came: list[Answer] = []

    async def guess(number: int) -> None:
        answer = await target.log_in(
            "guess", name=f"user-{number % 50}", source=f"127.1.{number % 4}.{1 + number % 200}"
        )
        came.append(answer)
        target.expect("a guess", answer, {401, 429, 503})

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(guess, number)
            await trio.sleep(0.005)  # the rate of the attack: 200 guesses a second

    async def enter() -> None:
        with trio.move_on_after(30) as limit:
            await target.new_token("127.0.3.1")
        if limit.cancelled_caught:
            target.fault("a right login that obeys Retry-After did not end well in 30 s")

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(enter)
