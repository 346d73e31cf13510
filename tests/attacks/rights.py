"""Tokens that must not hold, tickets and logouts, pages of other origins, every route without the right to it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from heliosd.web.rest.route import never
from heliosd.web.rest.route_table import ROUTES

from .target import Target

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ME = "/api/auth/me"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(part: str) -> dict[str, Any]:
    return dict(json.loads(base64.urlsafe_b64decode(part + "==")))


def _signed(header: str, body: str, secret: bytes, digest: str = "sha256") -> str:
    text = f"{_b64(header.encode())}.{_b64(body.encode())}"
    return f"{text}.{_b64(hmac.digest(secret, text.encode(), getattr(hashlib, digest)))}"


async def tokens(target: Target) -> None:
    """RFC 8725: algorithms, headers, claims and spellings. With the daemon's key known, rightly signed ones too."""
    head, body, signature = target.token.split(".")
    claims = _decoded(body)
    text = json.dumps(claims)
    forged = [
        f"{_b64(json.dumps({'alg': a}).encode())}.{body}.{s}" for a in _ALGORITHMS for s in ("", signature)
    ]
    forged += [target.token + odd for odd in ("=", "==", ".", ".AA", "A")]
    forged += [f"{head}.{body}.", f"{head}.{body}", f"{head}..{signature}", "a.b.c", "...", "x" * 7000]
    keys = [b"", b"\0" * 32, b"secret", *_PUBLIC_KEYS]
    if target.signing_key is not None:
        keys.append(target.signing_key)
        forged += [_signed(_HEADER, _with(claims, *odd), target.signing_key) for odd in _CLAIMS]
        forged += [_signed(_HEADER, text[:-1] + odd, target.signing_key) for odd in _ENDINGS]
        forged += [_signed(_HEADER, odd, target.signing_key) for odd in ("[]", "1", "{", "[" * 4000)]
    forged += [_signed(_HEADER, text, key) for key in keys if key != target.signing_key]
    for key in keys:
        forged += [_signed(json.dumps({"alg": "HS256"} | odd), text, key) for odd in _HEADERS]
        forged += [_signed('{"alg":"HS512"}', text, key, "sha512")]
    for token in forged:
        target.expect(f"the token {token[:40]}…", await target.ask("GET", ME, token=token), {401})
    target.expect("a token of 2 MB", await target.ask("GET", ME, token="A" * 2_000_000), {431})
    target.expect("the true token", await target.ask("GET", ME), {200})


def _with(claims: dict[str, Any], name: str, value: object) -> str:
    return json.dumps({key: claim for key, claim in {**claims, name: value}.items() if claim is not None})


_HEADER = '{"alg":"HS256","typ":"JWT"}'
_ALGORITHMS = ("none", "None", "NONE", "nOnE", "", "HS512", "RS256", "ES256", "EdDSA", "hs256")
_PUBLIC_KEYS = (
    b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" + bytes(32),
    b'{"kty":"OKP","crv":"Ed25519","x":"AAAA"}',
)
"""As secrets, in PEM, DER and JWK."""
_HEADERS: tuple[dict[str, object], ...] = (
    {"crit": ["exp"], "exp": 1},
    {"b64": False, "crit": ["b64"]},
    {"jku": "http://127.0.0.1:1/keys"},
    {"x5u": "http://127.0.0.1:1/cert"},
    {"jwk": {"kty": "oct", "k": ""}},
    {"x5c": ["MII"]},
    {"typ": "JWE"},
    {"kid": "../../../dev/null"},
    {"kid": "' OR 1=1 --"},
    {"kid": 0},
    {"kid": ["a"]},
    {"kid": "x" * 3000},
)
_CLAIMS: tuple[tuple[str, object], ...] = (
    *((name, None) for name in ("iss", "sub", "iat", "exp", "jti")),
    *(("exp", odd) for odd in ("99999999999", True, 1e308, -1, (1,))),
    ("nbf", 99_999_999_999),
    *(("iss", odd) for odd in ("other", ("heliosd",), True)),
    *(("aud", odd) for odd in ("other", ("other",), 1)),
    *(("sub", odd) for odd in ("", 1, ("admin",), "nobody-at-all", "x" * 300)),
)
_ENDINGS = (
    ',"exp":NaN}',
    ',"exp":1e999}',
    ',"sub":"admin"}',
    ',"x":' + "9" * 5000 + "}",
    ',"x":' + "[" * 4000,
)


async def tickets(target: Target) -> None:
    """A ticket twice, as a token, beside another; a revoked token in any spelling; two tokens in one request."""
    token = await target.new_token()
    target.secrets.discard(token.encode())
    made = await target.ask("POST", "/api/auth/ticket", token=token)
    ticket = made.json()["ticket"]
    target.expect("a ticket as a token", await target.ask("GET", ME, token=ticket), {401})
    stream = f"/api/cluster/events?ticket={ticket}"
    other = {"Authorization": f"Bearer {target.token}"}
    target.expect("a ticket beside another token", await target.ask("GET", stream, headers=other), {400})
    target.expect("a spent ticket", await target.ask("GET", stream, token=None), {401})
    path = f"/ws/cluster?token={token}"
    target.expect("two tokens", await target.ask("GET", path, headers=UPGRADE | other), {400})
    target.expect(
        "a token in REST's query", await target.ask("GET", f"{ME}?token={token}", token=None), {401}
    )
    await target.ask("POST", "/api/auth/logout", token=token)
    for spelling in ("", "=", "==", "\t"):
        revoked = await target.ask("GET", ME, token=token + spelling)
        target.expect("a revoked token", revoked, {401})


async def origins(target: Target) -> None:
    """Pages of other origins on the WebSocket and on writes, with forged headers beside them."""
    own = f"http://{target.address}"
    foreign = [
        "null",
        "https://evil",
        "http://evil.localhost",
        f"{own}.evil",
        f"{own}@evil",
        "http://127.0.0.1:1",
    ]
    foreign += [own.replace("http:", "https:") + "0", f"{own}/", f"evil{own}", "file://", "x" * 3000]
    for origin in foreign:
        for forged in (
            {},
            {"X-Forwarded-Host": "evil"},
            {"Forwarded": "host=evil"},
            {"Host": "evil.example"},
        ):
            headers = {"Origin": origin, **forged}
            socket = await target.ask(
                "GET", f"/ws/cluster?token={target.token}", headers=UPGRADE | headers, token=None
            )
            target.expect(f"the Origin {origin[:40]}", socket, {403})
            login = await target.ask("POST", "/api/auth/login", b"{}", headers, token=None)
            target.expect(f"a login of the Origin {origin[:40]}", login, {403})
    two = f"GET /ws/cluster?token={target.token} HTTP/1.1\r\nHost: {target.address}\r\nOrigin: {own}\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
    target.expect(
        "two Origins", await target.send(f"{two}Origin: http://evil\r\n{lines}\r\n".encode()), {400, 403}
    )


async def routes(target: Target) -> None:
    """Every route without a token, with a wrong one, for users without the right, and by every wrong method."""
    for name in target.other_users:
        users_own = await target.new_token(name=name)
        rights = set((await target.ask("GET", ME, token=users_own)).json()["permissions"])
        for route in ROUTES:
            if route.permission is not None and route.permission not in rights:
                for path in route.paths:
                    what = f"{route.method} {path} for {name}"
                    target.expect(what, await target.ask(route.method, path, token=users_own), {403})
    for route in ROUTES:
        for path in route.paths:
            asked = path.replace("{name}", "x")
            if route.needs_token is not never:
                for token in (None, "wrong"):
                    what = f"{route.method} {path} with the token {token}"
                    target.expect(what, await target.ask(route.method, asked, token=token), {401})
            right = {other.method for other in ROUTES if path in other.paths}
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"} - right:
                target.expect(f"{method} {path}", await target.ask(method, asked), {405})
