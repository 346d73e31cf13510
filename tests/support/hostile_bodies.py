"""Bodies that are no JSON object which a route could read."""

from __future__ import annotations

NO_OBJECTS = [
    b"{",
    b"nope",
    b"{'a':1}",
    b'{"a":1,}',
    b"{} {}",
    b"{}x",
    b"[]",
    b"1",
    b"null",
    b"true",
    b'"text"',
    b"NaN",
    b"-Infinity",
    b"\x00",
    b"username=admin&password=x",
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    "{}".encode("utf-32-le"),
    b'{"\xff":1}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"\\ud800":1}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"9" * 5_000,
    b"1e999",
]
