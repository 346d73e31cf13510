"""The REST API as a Quart-Trio app: from an ASGI request to a `Call`, from an `Answer` to a response.

The order of checks is fixed: route, origin of the page (writes only), token, own page (writes by the session cookie
only), permission, query string, body. Only then the view runs, a write for at most 4.8 s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import trio
from quart import Request, Response, request
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse
from werkzeug.routing import MapAdapter

from heliosd.errors import NotFound
from heliosd.web.authentication import RequestCredentials, require
from heliosd.web.http.listeners import Address
from heliosd.web.origin import OriginCheck, joined
from heliosd.web.problems import ForeignOrigin, problem_for

from .body_reader import BodyReader
from .password_check import PasswordCheck
from .request_data import MAX_BODY_BYTES, check_body_form, query_pairs, read_body, read_query
from .route import Answer, Call, Route
from .route_table import ROUTES
from .services import Services
from .static_files import load_pages
from .write_keys import HEADER, AnsweredWrites, read_key

WRITE_SECONDS = 4.8
"""Every write is answered within 5 s: 201, a refusal, or that its outcome is unknown."""
PREFLIGHT_AGE_SECONDS = 600

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Vary": "Origin",
}


class _App(QuartTrio):
    def create_url_adapter(self, request: Any) -> MapAdapter | None:
        """Match only the path and the method. Quart's own also decodes Host and the query string, where a bad one
        raises outside of every error handler."""
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            "heliosd",
            url_scheme="http",
            default_method=request.method,
            path_info=request.path,
        )


def create_app(services: Services) -> QuartTrio:
    """The app over `services`. It starts no task and may be made outside of Trio."""
    app = _App("heliosd", static_folder=None, template_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, PROPAGATE_EXCEPTIONS=False)
    # Both would redirect a path that nearly matches, and a redirect repeats a POST elsewhere.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    pipeline = _RestPipeline(services)
    for path, routes in _by_path(ROUTES).items():
        app.add_url_rule(
            path.replace("{name}", "<name>"),
            endpoint=path,
            view_func=pipeline.view_of(routes),
            methods=[*routes, "OPTIONS"],
            provide_automatic_options=False,
        )
    app.before_request(pipeline.refuse_near_misses)
    app.register_error_handler(Exception, pipeline.failed)
    app.after_request(pipeline.finish)
    return app


def _by_path(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        for path in route.paths:
            paths.setdefault(path, {})[route.method] = route
    return paths


class _RestPipeline:
    """The steps between the framework and the views."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._password_check = PasswordCheck(services.access, services.settings)
        self._bodies = BodyReader()
        self._pages = load_pages()
        self._origins = OriginCheck(services.settings)
        self._answered = AnsweredWrites(services.stored, services.save)

    def view_of(self, routes: Mapping[str, Route]) -> Any:
        """The framework's view for one path."""

        async def view(name: str = "") -> Response:
            if request.method == "OPTIONS":
                return self._options(routes)
            route = routes["GET" if request.method == "HEAD" else request.method]
            return _response(await self._answer(route, name))

        return view

    async def refuse_near_misses(self) -> None:
        # Werkzeug's request already shows leading slashes as one.
        if request.scope["path"].startswith("//"):
            raise NotFound("Not found")

    async def failed(self, error: Exception) -> Response:
        rule = request.url_rule
        where = f"{request.method} {rule.rule}" if rule is not None else "no route"
        problem = problem_for(error, where)
        return _response(Answer(status=problem.status, body=problem.body, headers=problem.headers))

    async def finish(self, response: Response) -> Response:
        for name, value in _SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        origin = _joined(request, "Origin")
        if origin is not None and self._origins.is_listed(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "Allow, ETag, Retry-After"
        return response

    async def _answer(self, route: Route, name: str) -> Answer:
        services = self._services
        reads = route.method == "GET"
        if not reads:
            self._check_origin()
        now = services.now()
        identity = None
        credentials = None
        if route.needs_token(services.settings.current):
            credentials = self._credentials(route)
            identity = await services.authenticator.authenticate(credentials)
            if credentials.by_cookie and not reads:
                self._check_own_page()
            now = services.now()
            if route.permission is not None:
                require(identity, route.permission)
        query = read_query(request.query_string, route.query)
        body = read_body(b"" if reads else await self._body(route), route.body)
        key = None
        if route.keyed and identity is not None:
            given = request.headers.getlist(HEADER)
            key = read_key(given, identity.user_id, [route.method, route.paths[0], query, body])
        call = Call(
            services=services,
            password_check=self._password_check,
            pages=self._pages,
            now=now,
            query=query,
            body=body,
            identity=identity,
            credentials=credentials,
            cookies=request.headers.getlist("Cookie"),
            base_path=services.settings.current.server.base_path or "/",
            secure=request.scope["scheme"] == "https",
            address=Address.of(request.scope.get("client") or ("", 0)),
            host=_joined(request, "Host") or "",
            name=name,
            accept=_joined(request, "Accept") or "",
            if_none_match=_joined(request, "If-None-Match") or "",
            key=key,
            last_event_id=_joined(request, "Last-Event-ID") or "",
        )
        if reads:
            return await route.view(call)
        with trio.fail_after(WRITE_SECONDS):
            if key is None or route.keyed == "log":
                return await route.view(call)
            return await self._answered.answer(
                key,
                lambda begun: route.view(replace(call, repeated=begun)),
                f"{route.method} {route.paths[0]}",
            )

    def _credentials(self, route: Route) -> RequestCredentials:
        query: dict[str, list[str]] = {}
        if route.token_in_query:
            for name, value in query_pairs(request.query_string):
                query.setdefault(name, []).append(value)
        take = request.headers.getlist
        return self._services.authenticator.read(take("Authorization"), query, cookies=take("Cookie"))

    async def _body(self, route: Route) -> bytes:
        check_body_form(_joined(request, "Content-Type") or "", _joined(request, "Content-Encoding") or "")
        return await self._bodies.read(request, route.max_body_bytes)

    def _options(self, routes: Mapping[str, Route]) -> Response:
        """The methods of this path; for a browser's CORS preflight also whether the page may use them."""
        self._check_origin()
        methods = ", ".join(sorted({*routes, "OPTIONS"} | ({"HEAD"} if "GET" in routes else set())))
        headers = {"Allow": methods}
        if "Access-Control-Request-Method" in request.headers:
            headers |= {
                "Access-Control-Allow-Methods": methods,
                "Access-Control-Allow-Headers": "Authorization, Cache-Control, Content-Type, Idempotency-Key, "
                "Last-Event-ID",
                "Access-Control-Max-Age": str(PREFLIGHT_AGE_SECONDS),
            }
        return _response(Answer(status=204, body=b"", headers=headers))

    def _check_own_page(self) -> None:
        self._origins.check_own(
            _joined(request, "Origin"),
            _joined(request, "Host") or "",
            _joined(request, "Sec-Fetch-Site") or "",
        )

    def _check_origin(self) -> None:
        try:
            self._origins.check(_joined(request, "Origin"), _joined(request, "Host") or "")
        except ForeignOrigin as foreign:
            self._services.log_refused(
                str(Address.of(request.scope.get("client") or ("", 0))), 403, str(foreign)
            )
            raise


def _joined(request: Request, header: str) -> str | None:
    return joined(request.headers.getlist(header))


def _response(answer: Answer) -> Response:
    body = answer.body
    if isinstance(body, AsyncGenerator):
        response = TrioResponse(b"" if request.method == "HEAD" else body, status=answer.status)
        response.timeout = None  # Quart would end it after a minute
        if request.method == "HEAD":
            del response.headers["Content-Length"]  # GET has none either
    else:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        response = TrioResponse(content, status=answer.status, content_type="application/json")
    response.headers.update(answer.headers)
    if answer.status in {204, 304}:
        del response.headers["Content-Type"], response.headers["Content-Length"]
    return response
