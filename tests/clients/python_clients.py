"""`python python_clients.py LIBRARY URL`: connects with the library's defaults and the token in $HELIOSD_TOKEN.

Prints every message as a line, and at the end `closed CODE`. Certificates are not verified.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

TOKEN = f"Bearer {os.environ['HELIOSD_TOKEN']}"
HEADERS = {"Authorization": TOKEN}
ANY = ssl.create_default_context()
ANY.check_hostname, ANY.verify_mode = False, ssl.CERT_NONE


def say(text: object) -> None:
    print(text, flush=True)


def tls(url: str) -> ssl.SSLContext | None:
    return ANY if url.startswith("wss:") else None


def websockets_sync(url: str) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with connect(url, additional_headers=HEADERS, ssl=tls(url)) as socket:
        try:
            while True:
                say(socket.recv())
        except ConnectionClosed as closed:
            say(f"closed {closed.rcvd.code if closed.rcvd else None}")


def websockets_asyncio(url: str) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async def run() -> None:
        async with connect(url, additional_headers=HEADERS, ssl=tls(url)) as socket:
            try:
                while True:
                    say(await socket.recv())
            except ConnectionClosed as closed:
                say(f"closed {closed.rcvd.code if closed.rcvd else None}")

    asyncio.run(run())


def aiohttp(url: str) -> None:
    import aiohttp as library

    async def run() -> None:
        options = {"ssl": ANY} if tls(url) else {}
        async with library.ClientSession() as session:
            async with session.ws_connect(url, headers=HEADERS, **options) as socket:
                async for message in socket:
                    say(message.data)
                say(f"closed {socket.close_code}")

    asyncio.run(run())


def websocket_client(url: str) -> None:
    import struct

    import websocket

    options = {"sslopt": {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}} if tls(url) else {}
    socket = websocket.create_connection(url, header=[f"Authorization: {TOKEN}"], **options)
    while True:
        opcode, data = socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            say(f"closed {struct.unpack('!H', data[:2])[0]}")
            return
        say(data.decode())


def httpx_ws(url: str) -> None:
    import httpx
    import httpx_ws as library

    with httpx.Client(verify=False) as client, library.connect_ws(url, client, headers=HEADERS) as socket:
        try:
            while True:
                say(socket.receive_text())
        except library.WebSocketDisconnect as closed:
            say(f"closed {closed.code}")


def tornado(url: str) -> None:
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    async def run() -> None:
        socket = await websocket_connect(HTTPRequest(url, headers=HEADERS, validate_cert=False))
        while (message := await socket.read_message()) is not None:
            say(message)
        say(f"closed {socket.close_code}")

    asyncio.run(run())


def picows(url: str) -> None:
    import picows as library

    class Listener(library.WSListener):  # type: ignore[misc]
        code: object = None

        def on_ws_frame(self, transport: object, frame: object) -> None:
            if frame.msg_type == library.WSMsgType.CLOSE:  # type: ignore[attr-defined]
                self.code = frame.get_close_code()  # type: ignore[attr-defined]
                transport.send_close(self.code)  # type: ignore[attr-defined]
                transport.disconnect()  # type: ignore[attr-defined]
            elif frame.msg_type == library.WSMsgType.TEXT:  # type: ignore[attr-defined]
                say(frame.get_payload_as_utf8_text())  # type: ignore[attr-defined]

    async def run() -> None:
        transport, listener = await library.ws_connect(
            Listener, url, ssl_context=tls(url), extra_headers=HEADERS
        )
        await transport.wait_disconnected()
        say(f"closed {int(listener.code)}")

    asyncio.run(run())


def autobahn(url: str) -> None:
    from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol

    over: asyncio.Future[None] = asyncio.Future(loop=(loop := asyncio.new_event_loop()))

    class Client(WebSocketClientProtocol):  # type: ignore[misc]
        def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803, FBT001
            say(payload.decode())

        def onClose(self, wasClean: bool, code: int, reason: str) -> None:  # noqa: N802, N803, FBT001
            say(f"closed {code}")
            over.set_result(None)

    asyncio.set_event_loop(loop)
    factory = WebSocketClientFactory(url, headers=HEADERS)
    factory.protocol = Client
    parts = urlsplit(url)
    loop.run_until_complete(loop.create_connection(factory, parts.hostname, parts.port, ssl=tls(url)))
    loop.run_until_complete(over)


def trio_websocket(url: str) -> None:
    import trio
    import trio_websocket as library

    async def run() -> None:
        headers = [(b"Authorization", TOKEN.encode())]
        async with library.open_websocket_url(url, ssl_context=tls(url), extra_headers=headers) as socket:
            try:
                while True:
                    say(await socket.get_message())
            except library.ConnectionClosed as closed:
                say(f"closed {closed.reason.code}")

    trio.run(run)


LIBRARIES: dict[str, Callable[[str], None]] = {
    each.__name__: each
    for each in (
        websockets_sync,
        websockets_asyncio,
        aiohttp,
        websocket_client,
        httpx_ws,
        tornado,
        picows,
        autobahn,
        trio_websocket,
    )
}

if __name__ == "__main__":
    LIBRARIES[sys.argv[1]](sys.argv[2])
