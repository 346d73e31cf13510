"""Which engine writes to clients: chosen at the start, by the configuration and by what the kernel allows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import structlog

from heliosd.config.model import WebSocketConfig
from heliosd.hub.direct_writes import DirectWrites
from heliosd.hub.fanout import FanoutEngine

MAX_THREADS = 4
"""Of "auto": with more, the work of the kernel for one broadcast gets in its own way."""

log = structlog.get_logger("heliosd")


@contextmanager
def fanout_engine(websocket: WebSocketConfig) -> Iterator[FanoutEngine]:
    """The engine, for as long as the block runs. Where io_uring cannot be used it is the one that writes by
    `os.write`, and the log says why, once. With "auto" it writes directly to small groups and over TLS."""
    if websocket.fanout == "write":
        yield DirectWrites()
        return
    # Not imported where it is not used.
    from heliosd.hub.flights import WORTH_A_FLIGHT, Flights  # noqa: PLC0415
    from heliosd.uring.sender import UringUnavailable, open_sender  # noqa: PLC0415

    threads = websocket.fanout_threads or threads_for(len(os.sched_getaffinity(0)))
    with ExitStack() as stack:
        sender = None
        try:
            sender = stack.enter_context(open_sender(threads))
        except UringUnavailable as unavailable:
            say = log.warning if websocket.fanout == "uring" else log.info
            say("fan-out by os.write: io_uring cannot be used", reason=str(unavailable))
        # Outside of the `except`: else whatever ends the daemon would be logged as having come of that.
        if sender is None:
            yield DirectWrites()
        elif websocket.fanout == "uring":
            yield Flights(sender)
        else:
            # Over TLS encrypting is most of the cost, and stays in the loop: a flight was measured to cost more.
            yield Flights(sender, least=WORTH_A_FLIGHT, over_tls=False)


def threads_for(cpus: int) -> int:
    """How many threads "auto" takes: one CPU is left to the event loop."""
    return max(1, min(cpus - 1, MAX_THREADS))
