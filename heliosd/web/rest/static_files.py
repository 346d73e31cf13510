"""The dashboard's files, held in memory and served under their names.

Text from a request is only looked up among these names, never made into a path. Browsers may keep a file but must
revalidate it (by its ETag), so that no old script runs against an upgraded daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from heliosd.web.origin import host_is_sound

STATIC_DIRECTORY = Path(__file__).parents[1] / "static"
INDEX = "index.html"
API_DOCS = "docs.html"

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}


class StaticFile(Struct, frozen=True):
    content: bytes
    media_type: str
    etag: str
    """With its quotes, as in the header."""

    @classmethod
    def of(cls, content: bytes, media_type: str) -> StaticFile:
        return cls(content, media_type, f'"{sha256(content).hexdigest()[:20]}"')


Pages = Mapping[str, StaticFile]
"""By file name."""


def load_pages(directory: Path = STATIC_DIRECTORY) -> Pages:
    """The files in `directory` (not below it) whose media type is known."""
    return {
        path.name: StaticFile.of(path.read_bytes(), _MEDIA_TYPES[path.suffix])
        for path in sorted(directory.iterdir())
        if path.is_file() and path.suffix in _MEDIA_TYPES
    }


def etag_matches(if_none_match: str, etag: str) -> bool:
    """The weak comparison of RFC 9110, section 13.1.2."""
    asked = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in asked or asked == {"*"}


def content_security_policy(host: str) -> str:
    """Only the daemon's own files, and in no frame. The WebSocket's address is in it for browsers whose
    `'self'` does not cover `ws:`, unless Host is not plain."""
    sockets = f" ws://{host} wss://{host}" if host_is_sound(host) else ""
    return (
        f"default-src 'self'; connect-src 'self'{sockets}; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
