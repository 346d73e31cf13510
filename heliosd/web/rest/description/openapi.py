"""OpenAPI 3.1 of the REST API, made from the table of routes (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from heliosd import __version__
from heliosd.web.problems import ProblemBody
from heliosd.web.rest.route import Nothing, Route, never
from heliosd.web.rest.write_keys import KEY_PATTERN

from .schemas import Schemas

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
EVENT = {
    "type": "object",
    "description": "One event of the stream (https://html.spec.whatwg.org/multipage/server-sent-events.html).",
    "properties": {
        "id": {"type": "string", "description": "EPOCH:SEQ, the point up to which everything has been sent."},
        "data": {"type": "string", "description": "A message as on `/ws/cluster`: see `/asyncapi.json`."},
    },
    "required": ["data"],
}
_SUMMARIES = {
    "400": "Something in the request is wrong; `field` names it",
    "401": "No token, or one that does not hold",
    "403": "The token lacks the right, or the page is of a foreign origin",
    "404": "No such thing",
    "409": "It conflicts with what there is",
    "410": "Some of what was asked for is not kept any more",
    "413": "The body is too large",
    "415": "The body is compressed, or a multipart form",
    "429": "Too much of this client; repeat after `Retry-After` seconds",
    "503": "Not now: no leader, or too much to do; repeat after `Retry-After` seconds",
    "504": "The outcome of the write is unknown",
    "507": "There is no room to store it",
}
_SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "session": {"type": "apiKey", "in": "cookie", "name": "heliosd_session"},
    "token_in_url": {"type": "apiKey", "in": "query", "name": "token"},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
}


_IDEMPOTENCY_KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Chosen by the client. The same write with the same key is done once, and answered alike.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
}


def openapi(routes: Iterable[Route]) -> dict[str, Any]:
    """The document. Aliases of a path are described too, as deprecated."""
    routes = list(routes)
    answers = [kind for route in routes for kind in (route.answer, *route.other_answers.values())]
    schemas = Schemas(
        sent=[ProblemBody, *_types(answers)],
        taken=_types(kind for route in routes for kind in (route.query, route.body)),
        null_is_absent=True,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for path in route.paths:
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "heliosd",
            "version": __version__,
            "description": "The state of a Raft cluster, and acts on it. `/asyncapi.json` describes the messages "
            "that are pushed. A client should ignore fields that it does not know.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This daemon"}],
        "tags": [{"name": tag} for tag in sorted({_tag(route) for route in routes})],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {
                name: _response(summary, ProblemBody, schemas)
                for name, summary in {**_SUMMARIES, "default": "Any other error"}.items()
            },
            "securitySchemes": _SECURITY,
        },
    }


def _types(kinds: Iterable[Any]) -> list[Any]:
    """Those that are types, each once."""
    types: dict[Any, None] = {}
    for kind in kinds:
        if not isinstance(kind, str):
            types |= dict.fromkeys(kind if isinstance(kind, tuple) else (kind,))
    return list(types)


def _tag(route: Route) -> str:
    return route.view.__module__.rpartition(".")[2].replace("_", " ")


def _operation(route: Route, path: str, schemas: Schemas) -> dict[str, Any]:
    alias = path != route.paths[0]
    operation: dict[str, Any] = {
        "operationId": _operation_id(route, path) if alias else route.view.__name__,
        "summary": route.summary,
        "description": _description(route, path),
        "tags": [_tag(route)],
        "responses": _responses(route, schemas),
    }
    if parameters := _parameters(route, path, schemas):
        operation["parameters"] = parameters
    if route.method != "GET" and route.body is not Nothing:
        required = any(field.required for field in structs.fields(route.body))
        operation["requestBody"] = {
            "required": required,
            "content": {JSON: {"schema": schemas.of(route.body)}},
        }
    operation["security"] = _security(route)
    if alias:
        operation["deprecated"] = True
    return operation


def _operation_id(route: Route, path: str) -> str:
    return f"{route.view.__name__}_at_" + re.sub(r"\W+", "_", path).strip("_")


def _description(route: Route, path: str) -> str:
    said = [] if path == route.paths[0] else [f"The same as `{route.paths[0]}`."]
    if route.permission is not None:
        said.append(f"Needs the right `{route.permission}`.")
    return " ".join(said)


def _parameters(route: Route, path: str, schemas: Schemas) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    if route.keyed:
        found.append(_IDEMPOTENCY_KEY)
    if route.query is not Nothing:
        found += [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in schemas.parameters(route.query).items()
        ]
    return found


def _security(route: Route) -> list[Mapping[str, list[str]]]:
    if route.needs_token is never:
        return []
    names = ["token", "session", *(["token_in_url", "ticket"] if route.token_in_query else [])]
    return [{name: []} for name in names]


def _responses(route: Route, schemas: Schemas) -> dict[str, Any]:
    success = "As asked" if route.method == "GET" else "It is done"
    responses = {str(route.status): _response(success, route.answer, schemas)}
    responses |= {
        str(status): _response(_SUMMARIES[str(status)], kind, schemas)
        for status, kind in route.other_answers.items()
    }
    errors = {name: {"$ref": f"#/components/responses/{name}"} for name in (*_errors(route), "default")}
    return dict(sorted((errors | responses).items()))


def _errors(route: Route) -> set[str]:
    errors = set()
    if route.needs_token is not never:
        errors |= {"401", "403"}
    elif route.body is not Nothing:
        errors |= {"401", "429"}  # a login
    if route.query is not Nothing:
        errors |= {"400", "404"}
    if route.method != "GET":
        errors |= {"400", "403", "413", "415", "503"} | ({"504", "507"} if route.writes else set())
        errors |= {"404", "409"} if route.body is not Nothing else set()
    return errors


def _response(summary: str, kind: Any, schemas: Schemas) -> dict[str, Any]:
    if isinstance(kind, str):
        shown = EVENT if kind == EVENT_STREAM else {"type": "object" if kind == JSON else "string"}
        return {"description": summary, "content": {kind: {"schema": shown}}}
    schema = {"anyOf": [schemas.of(one) for one in kind]} if isinstance(kind, tuple) else schemas.of(kind)
    return {"description": summary, "content": {JSON: {"schema": schema}}}
