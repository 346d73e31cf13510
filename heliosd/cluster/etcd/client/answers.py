"""HTTP/1.1 answers, read from a stream of Trio: whole ones, and ones that arrive over a long time.

A short answer of the form that etcd's have, with a Content-Length, is read here; every other form by h11. Errors
are raised as `HttpFault`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from email.utils import parsedate_to_datetime

import h11
import trio
from msgspec import Struct

from .no_answer import ClosedUnanswered, HttpFault

RECEIVE_BYTES = 65536
LONG_BYTES = 3500
PIECES_SECONDS = 0.005
"""An answer that begins with so many bytes at once is long, such as `/metrics`. The rest comes in a dozen pieces
within some milliseconds, each of which would wake the loop; so all of them are waited for."""

_PLAIN = re.compile(
    rb"HTTP/1\.1 (?P<status>200|[45]\d\d) [ -~]*\r\n"
    rb"(?:(?!(?:Content-Length|Transfer-Encoding|Connection):)[A-Za-z-]+: ?[ -~]*\r\n)*"
    rb"Content-Length: (?P<length>\d{1,9})\r\n"
    rb"(?:(?!(?:Content-Length|Transfer-Encoding|Connection):)[A-Za-z-]+: ?[ -~]*\r\n)*\r\n",
    re.IGNORECASE,
)
"""The head of an answer that keeps the connection open and whose body has this length. RFC 9112, section 6.3."""


class WholeAnswer(Struct, frozen=True):
    """`lasts`: the connection can be used for another request."""

    status: int
    body: bytes
    lasts: bool


async def read_answer(stream: trio.abc.Stream, max_bytes: int) -> WholeAnswer:
    """The next answer on this stream; one with a body of more than `max_bytes` is a fault."""
    received = await _receive(stream)
    if not received:
        raise ClosedUnanswered
    plain = _PLAIN.match(received)
    if plain is None:
        if len(received) >= LONG_BYTES:
            await trio.sleep(PIECES_SECONDS)
        return await _other_answer(ArrivingAnswer(stream, received), max_bytes)
    end = plain.end() + int(plain["length"])
    if end - plain.end() > max_bytes:
        raise _too_long(max_bytes)
    parts, size = [received[plain.end() :]], len(received)
    while size < end:
        data = await _receive(stream)
        if not data:
            raise HttpFault("the connection was closed within an answer")
        parts.append(data)
        size += len(data)
    return WholeAnswer(int(plain["status"]), b"".join(parts)[: end - plain.end()], size == end)


async def read_dated_answer(stream: trio.abc.Stream, max_bytes: int) -> tuple[WholeAnswer, float | None]:
    """The same, and the time of its field `Date` in Unix seconds, which has no fraction; None without one."""
    answer = ArrivingAnswer(stream)
    whole = await _other_answer(answer, max_bytes)
    return whole, answer.date


class ArrivingAnswer:
    """An answer of any form of HTTP/1.1, of which `received` has been read already. Call `begin` first."""

    def __init__(self, stream: trio.abc.Stream, received: bytes = b"") -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        # h11 reads an answer only to a request; only its method would matter.
        self._http.send(h11.Request(method="GET", target="/", headers=[("Host", "etcd")]))
        self._http.send(h11.EndOfMessage())
        self._over = False
        self.status = 0
        self.date: float | None = None
        """The time of the field `Date` (RFC 9110, section 6.6.1) in Unix seconds."""
        if received:
            self._http.receive_data(received)

    async def begin(self) -> None:
        """Until `status` has come."""
        while not self.status:
            event = await self._event()
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.date = _date(event)
            elif isinstance(event, h11.ConnectionClosed):
                raise ClosedUnanswered

    async def part(self) -> bytes:
        """The next part of the body; empty once it is whole."""
        while not self._over:
            event = await self._event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            self._over = isinstance(event, h11.EndOfMessage)
        return b""

    @property
    def lasts(self) -> bool:
        """Whether the connection can be used for another request."""
        return self._http.their_state is h11.DONE and not self._http.trailing_data[0]

    async def _event(self) -> h11.Event:
        try:
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Event):
                    return event
                data = await _receive(self._stream)
                if not data and not self.status:
                    raise ClosedUnanswered
                self._http.receive_data(data)
        except h11.RemoteProtocolError as wrong:
            raise HttpFault(str(wrong)) from wrong


def _date(response: h11.Response) -> float | None:
    for name, value in response.headers:
        if name == b"date":
            with suppress(ValueError):
                return parsedate_to_datetime(value.decode("ascii", "replace")).timestamp()
    return None


async def _other_answer(answer: ArrivingAnswer, max_bytes: int) -> WholeAnswer:
    await answer.begin()
    parts, size = [], 0
    while part := await answer.part():
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise _too_long(max_bytes)
    return WholeAnswer(answer.status, b"".join(parts), answer.lasts)


async def _receive(stream: trio.abc.Stream) -> bytes:
    """What has arrived; empty at the end."""
    try:
        return bytes(await stream.receive_some(RECEIVE_BYTES))
    except trio.BrokenResourceError as broken:
        raise HttpFault(str(broken.__cause__ or broken)) from broken


def _too_long(max_bytes: int) -> HttpFault:
    return HttpFault(f"the answer is longer than {max_bytes} bytes")
