"""Health, readiness, Prometheus, and the dashboard's files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import UNSET, Struct, UnsetType

from heliosd.clock import Instant
from heliosd.config.model import Config
from heliosd.errors import NotFound
from heliosd.on_demand import OnDemand
from heliosd.web.problems import LEADER_RETRY_SECONDS
from heliosd.web.rest.route import Answer, Call, Nothing
from heliosd.web.rest.services import Services
from heliosd.web.rest.static_files import API_DOCS, INDEX, StaticFile, content_security_policy, etag_matches


class Health(Struct, frozen=True):
    status: str = "ok"


class ReadinessBody(Struct, frozen=True):
    ready: bool
    reason: str | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET
    """What an operator should know, also while ready."""


async def show_health(_: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=Health())


async def show_readiness(call: Call[Nothing, Nothing]) -> Answer:
    reason = call.services.backend.not_ready()
    trouble = call.services.events.trouble
    if trouble is not None:
        # Also the cause of "no leader" where the members write to the same disk.
        reason = f"events cannot be stored: {trouble}"
    warnings = call.services.backend.warnings() or UNSET
    if reason is None:
        return Answer(body=ReadinessBody(ready=True, warnings=warnings))
    return Answer(
        status=503,
        body=ReadinessBody(ready=False, reason=reason, warnings=warnings),
        headers={"Retry-After": str(LEADER_RETRY_SECONDS)},
    )


def metrics_need_token(config: Config) -> bool:
    """Where `/metrics` is off it is 404, with and without a token."""
    return config.metrics.enabled and not config.metrics.public


async def show_prometheus(call: Call[Nothing, Nothing]) -> Answer:
    if not call.services.settings.current.metrics.enabled:
        raise NotFound("Not found")
    scrape = await _scrape.get()
    return await scrape(call.services, call.now, call.accept)


def _load() -> Callable[[Services, Instant, str], Awaitable[Answer]]:
    from heliosd.web.rest.scrape import scrape  # noqa: PLC0415

    return scrape


_scrape = OnDemand(_load)


async def show_dashboard(call: Call[Nothing, Nothing]) -> Answer:
    return _served(call, call.pages.get(INDEX))


async def show_openapi(call: Call[Nothing, Nothing]) -> Answer:
    return _served(call, await call.documents.get("openapi"))


async def show_asyncapi(call: Call[Nothing, Nothing]) -> Answer:
    return _served(call, await call.documents.get("asyncapi"))


async def show_api_docs(call: Call[Nothing, Nothing]) -> Answer:
    return _served(call, call.pages.get(API_DOCS))


async def show_static(call: Call[Nothing, Nothing]) -> Answer:
    return _served(call, call.pages.get(call.name))


def _served(call: Call[Nothing, Nothing], page: StaticFile | None) -> Answer:
    if page is None:
        raise NotFound("Not found")
    headers = {
        "Cache-Control": "no-cache",
        "ETag": page.etag,
        "Content-Security-Policy": content_security_policy(call.host),
    }
    if etag_matches(call.if_none_match, page.etag):
        return Answer(status=304, body=b"", headers=headers)
    return Answer(body=page.content, headers={**headers, "Content-Type": page.media_type})
