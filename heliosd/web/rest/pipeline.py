"""The steps between a request and its view, and what stands in every response.

The order of checks is fixed: origin of the page (writes only), token, own page (writes by the session cookie only),
permission, query string, token and permission once more when the body has come, body. Only then the view runs, a
write for at most 4.8 s.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import msgspec
import structlog
import trio
from msgspec import Struct, structs

from heliosd.auth.identity import Identity
from heliosd.web.authentication import RequestCredentials, require
from heliosd.web.origin import OriginCheck
from heliosd.web.problems import ForeignOrigin, ProblemBody, problem_for

from .asked import Asked
from .audit import Act
from .description.documents import Documents
from .description.makers import MAKERS
from .password_check import PasswordCheck
from .request_data import check_body_form, query_pairs, read_body, read_query
from .route import Answer, Call, Nothing, Route
from .services import Services
from .static_files import load_pages
from .write_keys import HEADER, AnsweredWrites, read_key

ADMIN = "cluster:admin"
REQUEST_ID = "X-Request-Id"
_PLAIN_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
WRITE_SECONDS = 4.8
"""Every write is answered within 5 s: 201, a refusal, or that its outcome is unknown."""
PREFLIGHT_AGE_SECONDS = 600
NO_BODY = Nothing()

SECURITY_HEADERS = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Vary": "Origin",
    }
)
"""Of every response, where the view says nothing else."""


class Pipeline:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._password_check = PasswordCheck(services.access, services.settings)
        self._pages = load_pages()
        self._documents = Documents(MAKERS)
        self._origins = OriginCheck(services.settings)
        self._costly = trio.Lock()
        self._answered = AnsweredWrites(services.stored, services.save)

    async def answer(self, route: Route, asked: Asked, name: str = "") -> Answer:
        """The answer, also to what is refused or fails. `name` is the end of the path, where the route has one.

        A write has an id, which stands in its answer and in every line of the log that it causes: the client's
        `X-Request-Id` if that is short and plain. A read has one if the client gave it.
        """
        given = asked.joined(REQUEST_ID) or ""
        if route.method == "GET" and not given:
            return await self._answer(route, asked, name)
        request_id = given if _PLAIN_ID.fullmatch(given) else secrets.token_hex(8)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            answer = await self._answer(route, asked, name)
        return structs.replace(answer, headers={**answer.headers, REQUEST_ID: request_id})

    async def _answer(self, route: Route, asked: Asked, name: str) -> Answer:
        where = f"{route.method} {route.paths[0]}"
        act = Act(str(asked.peer), where) if route.audited or route.permission == ADMIN else None
        status: int | None = None
        reason = ""
        try:
            answer = await self._checked(route, asked, name, act)
            status = answer.status
            reason = _reason(answer) if act is not None else ""
        except Exception as error:
            problem = problem_for(error, where)
            status, reason = problem.status, problem.body.error
            answer = Answer(status=status, body=problem.body, headers=problem.headers)
        finally:
            if act is not None:
                act.ended(status, reason)
        return answer

    async def _checked(self, route: Route, asked: Asked, name: str, act: Act | None) -> Answer:
        """The view's answer. Raises errors that `problem_for` turns into responses."""
        services = self._services
        reads = route.method == "GET"
        if not reads:
            self.check_origin(asked)
        identity = None
        credentials = None
        if route.needs_token(services.settings.current):
            credentials = self._credentials(route, asked)
            identity = await services.authenticator.authenticate(credentials)
            if act is not None:
                act.user = identity.user_id
            if credentials.by_cookie and not reads:
                self._check_own_page(asked)
            self._check_right(route, identity)
        query = read_query(asked.query_string, route.query)
        body: Struct = NO_BODY
        if not reads:
            received = await self._body(route, asked)
            if credentials is not None:
                # Before its end the token may have been revoked, or the right taken away.
                identity = await services.authenticator.authenticate(credentials)
                self._check_right(route, identity)
            body = read_body(received, route.body)
        if act is not None:
            act.asked(query, body)
        key = None
        if route.keyed and identity is not None:
            given = asked.all(HEADER)
            key = read_key(given, identity.account, [route.method, route.paths[0], query, body])
        call = Call(
            services=services,
            password_check=self._password_check,
            pages=self._pages,
            documents=self._documents,
            now=services.now(),
            query=query,
            body=body,
            identity=identity,
            credentials=credentials,
            cookies=asked.all("Cookie"),
            base_path=services.settings.current.server.base_path or "/",
            secure=asked.scheme == "https",
            address=asked.peer,
            host=asked.joined("Host") or "",
            name=name,
            accept=asked.joined("Accept") or "",
            if_none_match=asked.joined("If-None-Match") or "",
            key=key,
            last_event_id=asked.joined("Last-Event-ID") or "",
        )
        if route.costly:
            # Fifty scrapes in one turn of the loop would delay all others by 0.2 s.
            async with self._costly:
                return await route.view(call)
        if reads or not route.writes:
            return await route.view(call)
        with trio.fail_after(WRITE_SECONDS):
            if key is None or route.keyed == "log":
                return await route.view(call)
            return await self._answered.answer(
                key,
                lambda begun: route.view(replace(call, repeated=begun)),
                f"{route.method} {route.paths[0]}",
            )

    def failed(self, error: Exception, where: str) -> Answer:
        """The answer to a request that ended in `error`. A bug is logged, with `where`."""
        problem = problem_for(error, where)
        return Answer(status=problem.status, body=problem.body, headers=problem.headers)

    def cors_headers(self, origin: str | None) -> Mapping[str, str]:
        """What lets a listed page of another origin read the response."""
        if origin is None or not self._origins.is_listed(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": f"Allow, ETag, Retry-After, {REQUEST_ID}",
        }

    def options(self, routes: Mapping[str, Route], asked: Asked) -> Answer:
        """The methods of this path; for a browser's CORS preflight also whether the page may use them."""
        self.check_origin(asked)
        methods = ", ".join(sorted({*routes, "OPTIONS"} | ({"HEAD"} if "GET" in routes else set())))
        headers = {"Allow": methods}
        if asked.all("Access-Control-Request-Method"):
            headers |= {
                "Access-Control-Allow-Methods": methods,
                "Access-Control-Allow-Headers": "Authorization, Cache-Control, Content-Type, Idempotency-Key, "
                "Last-Event-ID",
                "Access-Control-Max-Age": str(PREFLIGHT_AGE_SECONDS),
            }
        return Answer(status=204, body=b"", headers=headers)

    def check_origin(self, asked: Asked) -> None:
        """Raises `ForeignOrigin`, and logs it, for a page of another origin."""
        try:
            self._origins.check(asked.joined("Origin"), asked.joined("Host") or "")
        except ForeignOrigin as foreign:
            self._services.log_refused(str(asked.peer), 403, str(foreign))
            raise

    def _credentials(self, route: Route, asked: Asked) -> RequestCredentials:
        query: dict[str, list[str]] = {}
        if route.token_in_query:
            for name, value in query_pairs(asked.query_string):
                query.setdefault(name, []).append(value)
        return self._services.authenticator.read(
            asked.all("Authorization"), query, cookies=asked.all("Cookie")
        )

    def _check_right(self, route: Route, identity: Identity) -> None:
        if route.permission is not None:
            require(identity, route.permission)

    async def _body(self, route: Route, asked: Asked) -> bytes:
        check_body_form(asked.joined("Content-Type") or "", asked.joined("Content-Encoding") or "")
        return await asked.read_body(route.max_body_bytes)

    def _check_own_page(self, asked: Asked) -> None:
        self._origins.check_own(
            asked.joined("Origin"), asked.joined("Host") or "", asked.joined("Sec-Fetch-Site") or ""
        )


def _reason(answer: Answer) -> str:
    """Why a write with a key was refused: its answer is kept as any other one, and repeated as bytes."""
    match answer.body:
        case ProblemBody(error=error):
            return error
        case bytes(kept) if answer.status >= 400:
            return msgspec.json.decode(kept, type=ProblemBody).error
        case _:
            return ""
