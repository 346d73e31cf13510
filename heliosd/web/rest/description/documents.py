"""The descriptions as files, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from heliosd.web.rest.static_files import StaticFile


class Documents:
    """Named JSON documents. Making one takes some 0.1 s, so it is done in a thread, once."""

    def __init__(self, makers: Mapping[str, Callable[[], Mapping[str, Any]]]) -> None:
        self._makers = makers
        self._made: dict[str, StaticFile] = {}
        self._making = trio.Lock()

    async def get(self, name: str) -> StaticFile:
        """The document; there must be one of this name."""
        async with self._making:
            if name not in self._made:
                self._made[name] = await trio.to_thread.run_sync(self._make, name)
        return self._made[name]

    def _make(self, name: str) -> StaticFile:
        content = msgspec.json.format(msgspec.json.encode(self._makers[name]()), indent=1)
        return StaticFile.of(content + b"\n", "application/json")
