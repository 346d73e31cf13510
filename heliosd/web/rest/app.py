"""The REST API as a Quart-Trio app: from an ASGI request to the pipeline, from an `Answer` to a response.

`quick_reads.py` answers most GETs before they come here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import cached_property, partial
from typing import Any

from quart import Request, Response, request
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoSuchPath
from werkzeug.routing import MapAdapter, Rule

from heliosd.errors import NotFound
from heliosd.web.http.listeners import Address
from heliosd.web.problems import ProblemBody

from .asked import Asked
from .body_reader import BodyReader
from .pipeline import SECURITY_HEADERS, Pipeline
from .request_data import MAX_BODY_BYTES
from .route import Answer, Route, json_body
from .route_table import ROUTES

VARIABLE = "<name>"
"""What Werkzeug writes for the `{name}` at the end of a route's path."""


class _PathMatcher(MapAdapter):
    """Finds the rule of a path and a method. In Werkzeug's own search a function refers to itself, which leaves a
    cycle of eight objects for each request until the garbage collector comes by."""

    rules: Mapping[str, Rule]

    def match(self, *_: Any, **__: Any) -> Any:
        """The rule, and the values of the variables in its path. Raises `NoSuchPath` and `MethodNotAllowed`."""
        rule, values = self.rules.get(self.path_info), {}
        if rule is None or rule.arguments:
            folder, _slash, name = self.path_info.rpartition("/")
            rule, values = self.rules.get(f"{folder}/{VARIABLE}"), {"name": name}
        if rule is None or "" in values.values():
            raise NoSuchPath
        if self.default_method not in (methods := rule.methods or set()):
            raise MethodNotAllowed(sorted(methods))
        return rule, values


class _App(QuartTrio):
    @cached_property
    def rules(self) -> dict[str, Rule]:
        """By their paths; complete once the first request comes."""
        return {rule.rule: rule for rule in self.url_map.iter_rules()}

    def create_url_adapter(self, request: Any) -> MapAdapter | None:
        """Match only the path and the method. Quart's own also decodes Host and the query string, where a bad one
        raises outside of every error handler."""
        if request is None:
            return super().create_url_adapter(request)
        matcher = _PathMatcher(self.url_map, "heliosd", "/", "", "http", request.path, request.method)
        matcher.rules = self.rules
        return matcher


def create_app(pipeline: Pipeline) -> QuartTrio:
    """The app over `pipeline`. It starts no task and may be made outside of Trio."""
    app = _App("heliosd", static_folder=None, template_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, PROPAGATE_EXCEPTIONS=False)
    # Both would redirect a path that nearly matches, and a redirect repeats a POST elsewhere.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    binding = _Binding(pipeline)
    for path, routes in _by_path(ROUTES).items():
        app.add_url_rule(
            path.replace("{name}", VARIABLE),
            endpoint=path,
            view_func=binding.view_of(routes),
            methods=[*routes, "OPTIONS"],
            provide_automatic_options=False,
        )
    app.before_request(binding.refuse_near_misses)
    app.register_error_handler(Exception, binding.failed)
    app.after_request(binding.finish)
    return app


def _by_path(routes: Iterable[Route]) -> dict[str, dict[str, Route]]:
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        for path in route.paths:
            paths.setdefault(path, {})[route.method] = route
    return paths


class _Binding:
    """The framework's handlers over the pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._bodies = BodyReader()

    def view_of(self, routes: Mapping[str, Route]) -> Any:
        """The framework's view for one path."""

        async def view(name: str = "") -> Response:
            asked = self._asked(request)
            if request.method == "OPTIONS":
                return _response(self._pipeline.options(routes, asked))
            route = routes["GET" if request.method == "HEAD" else request.method]
            return _response(await self._pipeline.answer(route, asked, name))

        return view

    def _asked(self, request: Request) -> Asked:
        return Asked(
            query_string=request.query_string,
            scheme=request.scope["scheme"],
            peer=Address.of(request.scope.get("client") or ("", 0)),
            all=request.headers.getlist,
            # The framework's `request` is a proxy to that of the present task.
            read_body=partial(self._bodies.read, request),
        )

    async def refuse_near_misses(self) -> None:
        # Werkzeug's request already shows leading slashes as one.
        if request.scope["path"].startswith("//"):
            raise NotFound("Not found")

    async def failed(self, error: Exception) -> Response:
        request.routing_exception = None  # whose traceback refers to the request again
        if isinstance(error, HTTPException):
            return _response(_refused(error))
        rule = request.url_rule
        where = f"{request.method} {rule.rule}" if rule is not None else "no route"
        return _response(self._pipeline.failed(error, where))

    async def finish(self, response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.update(self._pipeline.cors_headers(self._asked(request).joined("Origin")))
        return response


_TEXTS = {
    404: "Not found",
    405: "Method not allowed",
    408: "The body did not come in time",
    413: "The body is larger than 1 MiB",
}


def _refused(error: HTTPException) -> Answer:
    """What the framework itself refuses."""
    status = error.code or 500
    headers: dict[str, str] = {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))
    return Answer(status=status, body=ProblemBody(_TEXTS.get(status, error.name)), headers=headers)


def _response(answer: Answer) -> Response:
    body = answer.body
    if isinstance(body, AsyncGenerator):
        response = TrioResponse(b"" if request.method == "HEAD" else body, status=answer.status)
        response.timeout = None  # Quart would end it after a minute
        if request.method == "HEAD":
            del response.headers["Content-Length"]  # GET has none either
    else:
        content = body if isinstance(body, bytes) else json_body(body)
        response = TrioResponse(content, status=answer.status, content_type="application/json")
    response.headers.update(answer.headers)
    if answer.status in {204, 304}:
        del response.headers["Content-Type"], response.headers["Content-Length"]
    return response
