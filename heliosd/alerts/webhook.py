"""The POST of an alert, over httpx."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cache

import httpx

from heliosd.errors import NotDelivered


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Returns once it was answered with a status 2xx. Raises `NotDelivered`, or OSError. Sets no deadline of its
    own."""
    verify = _certificates() if url.lower().startswith("https:") else False
    try:
        # No proxy and no other setting from the environment; no redirects, which is httpx's default.
        async with (
            httpx.AsyncClient(verify=verify, trust_env=False, timeout=None) as client,  # noqa: S113
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            if not answer.is_success:
                raise NotDelivered(f"answered with status {answer.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        # ValueError: the name of a host cannot be one, in the URL or in a redirect, which httpx reads all the same.
        raise NotDelivered(str(error) or type(error).__name__) from error


@cache
def _certificates() -> ssl.SSLContext:
    """The system's trusted certificates, read once: that takes some 20 ms."""
    return ssl.create_default_context()
