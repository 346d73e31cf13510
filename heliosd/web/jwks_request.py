"""One request for the keys of an outside issuer, and what is read of the answer."""

from __future__ import annotations

import json
import ssl
from functools import cache

import httpx
import trio
from jwt import PyJWKSet, PyJWTError

from heliosd.auth.external_issuer import MAX_KEYS, FetchedKeys
from heliosd.errors import KeysNotFetched

MAX_ANSWER_BYTES = 256 * 1024


async def fetch_keys(url: str) -> FetchedKeys:
    """The signing keys that are published at `url`, from at most 256 KiB. Raises `KeysNotFetched`. Sets no deadline
    of its own."""
    try:
        return await _fetch(url)
    except (OSError, httpx.HTTPError, httpx.InvalidURL, PyJWTError, ValueError, RecursionError) as error:
        raise KeysNotFetched(str(error) or type(error).__name__) from error


async def _fetch(url: str) -> FetchedKeys:
    verify = _certificates() if url.lower().startswith("https:") else False
    # No proxy and no other setting from the environment; no redirects, which is httpx's default.
    async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=None) as client:  # noqa: S113
        # Uncompressed: a small compressed answer may grow without a bound.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "heliosd"}
        async with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                raise ValueError(f"answered with status {answer.status_code}")
            content = b""
            with trio.CancelScope() as rest:
                async for piece in answer.aiter_raw():
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        # Not `break`: httpx would leave its inner generators to the garbage collector.
                        rest.cancel()
    if len(content) > MAX_ANSWER_BYTES:
        raise ValueError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
    document = json.loads(content)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("the answer is not a JSON object with a list of keys")  # noqa: TRY004
    found = PyJWKSet(document["keys"][:MAX_KEYS])  # 256 KiB of keys would take 50 ms
    keys = [key for key in found if key.public_key_use in {"sig", None} and key.key_id]
    if not keys:
        raise ValueError("the answer has no key that signs")
    return FetchedKeys.of(url, keys)


@cache
def _certificates() -> ssl.SSLContext:
    """The system's trusted certificates, read once: that takes some 20 ms."""
    return ssl.create_default_context()
