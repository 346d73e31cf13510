"""What a scraper of `/metrics` is answered."""

from __future__ import annotations

import trio

from heliosd.clock import Instant

from . import openmetrics, prometheus
from .openmetrics import Format, wanted_format
from .route import Answer
from .services import Services


def scrape(services: Services, now: Instant, accept: str) -> Answer:
    """All metrics in the form that `accept` prefers. Takes some milliseconds."""
    roster = services.roster
    form = wanted_format(accept)
    text = prometheus.render(
        backend=services.backend,
        hub_counters=roster.counters,
        ws_clients=roster.count("websocket"),
        sse_clients=roster.count("sse"),
        queue_depth=roster.queue_depth(),
        alerts=services.alert_counters,
        events_stored=services.events.trouble is None,
        tasks=trio.lowlevel.current_statistics().tasks_living,
        now=now,
        form=form,
    )
    content_type = openmetrics.CONTENT_TYPE if form is Format.OPENMETRICS else prometheus.CONTENT_TYPE
    return Answer(body=text, headers={"Content-Type": content_type, "Vary": "Origin, Accept"})
