"""The descriptions as files, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from heliosd.on_demand import OnDemand
from heliosd.web.rest.static_files import StaticFile


class Documents:
    """Named JSON documents. Making one takes some 0.1 s, so it is done in a thread, once."""

    def __init__(self, makers: Mapping[str, Callable[[], Mapping[str, Any]]]) -> None:
        self._made = {name: OnDemand(partial(_file, make)) for name, make in makers.items()}

    async def get(self, name: str) -> StaticFile:
        """The document; there must be one of this name."""
        return await self._made[name].get()


def _file(make: Callable[[], Mapping[str, Any]]) -> StaticFile:
    content = msgspec.json.format(msgspec.json.encode(make()), indent=1)
    return StaticFile.of(content + b"\n", "application/json")
