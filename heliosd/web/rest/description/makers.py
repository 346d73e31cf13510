"""How each of the documents is made. What makes them is imported then: most daemons are never asked for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _openapi() -> Mapping[str, Any]:
    from heliosd.web.rest.route_table import ROUTES  # noqa: PLC0415

    from .openapi import openapi  # noqa: PLC0415

    return openapi(ROUTES)


def _asyncapi() -> Mapping[str, Any]:
    from .asyncapi import asyncapi  # noqa: PLC0415

    return asyncapi()


MAKERS: Mapping[str, Callable[[], Mapping[str, Any]]] = {"openapi": _openapi, "asyncapi": _asyncapi}
