"""What a process writes to its standard error, read so that nothing which it has written is missing."""

from __future__ import annotations

import json
import os
import select
import threading
from typing import IO, Any


class ProcessLog:
    """All that has been written so far. Whoever asks reads the pipe empty first: a line that the process wrote
    before it answered a request is there once the answer is. `follow` reads meanwhile: the pipe never fills up."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._reading = threading.Lock()
        self._rest = b""
        self._raw: list[str] = []
        self._lines: list[dict[str, Any]] = []
        self._ended = False
        os.set_blocking(pipe.fileno(), False)

    @property
    def raw(self) -> list[str]:
        """The lines as they were written, each with its end."""
        self.read()
        return self._raw

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines, parsed. One that is not JSON is the event of an object."""
        self.read()
        return self._lines

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self._ended

    def read(self) -> None:
        """Take what is in the pipe."""
        with self._reading:
            while not self._ended:
                try:
                    piece = os.read(self._pipe.fileno(), 65_536)
                except BlockingIOError:
                    return
                if piece:
                    *whole, self._rest = (self._rest + piece).split(b"\n")
                    for line in whole:
                        self._add(line + b"\n")
                else:
                    self._end()

    def wait(self, seconds: float) -> None:
        """Until there is more to read, or the time is over."""
        if not self._ended:
            poll = select.poll()
            poll.register(self._pipe.fileno(), select.POLLIN)
            poll.poll(1000 * seconds)

    def follow(self) -> None:
        """Read until the end."""
        while not self._ended:
            self.wait(1.0)
            self.read()

    def close(self) -> None:
        with self._reading:
            self._end()
            self._pipe.close()

    def _end(self) -> None:
        if self._rest:
            self._add(self._rest)
        self._rest, self._ended = b"", True

    def _add(self, line: bytes) -> None:
        text = line.decode()
        self._raw.append(text)
        try:
            self._lines.append(json.loads(text))
        except ValueError:
            self._lines.append({"event": text.strip()})
