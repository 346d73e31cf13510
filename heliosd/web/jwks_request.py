"""One request for the keys of an outside issuer, and what is read of the answer."""

from __future__ import annotations

import json
import ssl
from contextlib import suppress
from functools import cache

import httpx
import trio
from jwt import PyJWK

from heliosd.auth.external_issuer import MAX_KEYS, FetchedKeys
from heliosd.auth.issuer_keys import ALGORITHM_OF
from heliosd.errors import KeysNotFetched

MAX_ANSWER_BYTES = 256 * 1024
MAX_MODULUS = 2_800
"""Base64 characters of 16,384 bits."""


async def fetch_keys(url: str) -> FetchedKeys:
    """The signing keys that are published at `url`, from at most 256 KiB. Raises `KeysNotFetched`. Sets no deadline
    of its own."""
    try:
        return await _fetch(url)
    except (OSError, httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
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
    described = document["keys"][:MAX_KEYS]  # 256 KiB of keys would take 50 ms
    keys = [key for each in described if (key := _key(each)) is not None]
    if not keys:
        raise ValueError("the answer has no key that signs")
    return FetchedKeys.of(url, keys)


def _key(described: object) -> PyJWK | None:
    """None: it is no key that signs, or none that can be used; the others hold (RFC 7517 section 5)."""
    if not isinstance(described, dict) or described.get("use") not in ("sig", None):
        return None
    kind, curve, name, modulus = (described.get(field) for field in ("kty", "crv", "kid", "n"))
    if (
        not isinstance(name, str)
        or not name
        or not isinstance(kind, str)
        or not isinstance(curve, str | None)
    ):
        return None
    algorithm = ALGORITHM_OF.get((kind, curve))
    if algorithm is None or described.get("alg", algorithm) != algorithm:
        return None
    # A private key has no place here. `MAX_MODULUS` is a limit of ours.
    if "d" in described or len(str(modulus)) > MAX_MODULUS:
        return None
    # What PyJWT raises for a field that is missing or of another type depends on the field.
    with suppress(Exception):
        return PyJWK(described)
    return None


@cache
def _certificates() -> ssl.SSLContext:
    """The system's trusted certificates, read once: that takes some 20 ms."""
    return ssl.create_default_context()
