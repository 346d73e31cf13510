"""What a scraper of `/metrics` is answered."""

from __future__ import annotations

import trio

from heliosd.clock import Instant
from heliosd.hub.time_slice import TimeSlice

from . import openmetrics, prometheus
from .openmetrics import Format, wanted_format
from .route import Answer
from .services import Services


async def scrape(services: Services, now: Instant, accept: str) -> Answer:
    """All metrics in the form that `accept` prefers. A thousand histograms take a second, but the loop only for as
    long as a turn of anybody else's work."""
    roster = services.roster
    form = wanted_format(accept)
    queue_depth = await roster.queue_depth()
    time_slice, text = TimeSlice(), []
    parts = prometheus.parts(
        backend=services.backend,
        hub_counters=roster.counters,
        ws_clients=roster.count("websocket"),
        sse_clients=roster.count("sse"),
        queue_depth=queue_depth,
        alerts=services.alert_counters,
        events_stored=services.events.trouble is None,
        tasks=trio.lowlevel.current_statistics().tasks_living,
        now=now,
        form=form,
    )
    for part in parts:
        text.append(part)
        if time_slice.over:
            await time_slice.pause()
    content_type = openmetrics.CONTENT_TYPE if form is Format.OPENMETRICS else prometheus.CONTENT_TYPE
    return Answer(body=b"".join(text), headers={"Content-Type": content_type, "Vary": "Origin, Accept"})
