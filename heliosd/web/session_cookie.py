"""The session cookie: a page's token where no script can read it, so that a reload of the page stays signed in.

The browser sends it by itself, also for a foreign page, so it counts only where a request has no other credentials,
and a write with it must come from a page of the daemon's own origin (`app.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

NAME = "heliosd_session"
MAX_TOKEN_BYTES = 3800
"""Browsers keep cookies of at most 4096 bytes, their name and attributes included."""


def tokens_in(headers: Iterable[str]) -> set[str]:
    """The tokens in the Cookie headers of a request."""
    pairs = (pair.strip().partition("=") for header in headers for pair in header.split(";"))
    return {token for name, _, token in pairs if name == NAME and token}


def set_cookie(token: str, seconds: float, *, path: str, secure: bool) -> str:
    """The value of Set-Cookie that makes the browser send `token` for so long; for 0 s it forgets it."""
    attributes = f"Path={path}; Max-Age={int(seconds)}; HttpOnly; SameSite=Strict"
    return f"{NAME}={token}; {attributes}{'; Secure' if secure else ''}"
