"""Starlette's app for `benchmarks.rest`: checks a JWT and answers the bytes that it is given."""

from __future__ import annotations

import os

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SECRET = os.environ["BENCH_SECRET"]
BODY = os.environ["BENCH_BODY"].encode()


async def status(request: Request) -> Response:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            return Response(status_code=401)
        jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "iss"]}, issuer="heliosd")
    except jwt.InvalidTokenError:
        return Response(status_code=401)
    return Response(BODY, media_type="application/json")


app = Starlette(routes=[Route("/api/cluster/status", status)])
