"""The REST API's app for a daemon that may never need it: the web framework takes 9 MiB and a fifth of a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heliosd.on_demand import OnDemand
from heliosd.web.http.asgi import App

from .pipeline import Pipeline

if TYPE_CHECKING:
    from quart_trio import QuartTrio


def late_app(pipeline: Pipeline) -> App:
    """`app.create_app(pipeline)`, loaded by the first request that it gets; others wait for it with that one."""

    def load() -> QuartTrio:
        from .app import create_app  # noqa: PLC0415

        return create_app(pipeline)

    loaded = OnDemand(load)

    async def app(*asgi: Any) -> None:
        await (await loaded.get())(*asgi)

    return app
