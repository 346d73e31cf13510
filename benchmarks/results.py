"""What was measured, of which server and how; its medians and ratios. Pure: nothing here measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isnan, nan
from statistics import median

BURST = 8
"""Messages that are due in the same moment."""

BLOCKED_SHARE = 0.2


class Mode(StrEnum):
    """What is done with a server's clients."""

    PACED = "paced"
    """It sends at its own pace."""
    LOCKSTEP = "lockstep"
    """The next message as soon as everybody has the last one: a flood."""
    BURSTS = "bursts"
    """Lockstep, with several messages at once."""
    BLOCKED = "blocked"
    """Lockstep, with and without clients that are not read."""
    TLS = "tls"
    """Paced and in lockstep, over TLS 1.3."""
    ACCEPTS = "accepts"
    """They come all at once, each with a token of its own where the server wants one."""
    LAG = "lag"
    """Lockstep for some seconds, not pinned to one CPU: how long others wait for heliosd's loop."""


ALONE = frozenset({Mode.BLOCKED, Mode.TLS, Mode.ACCEPTS, Mode.LAG})
"""Modes that need clients of their own kind, and so a server of their own; the others share one."""


def is_heliosd(server: str) -> bool:
    """A daemon of ours, by its name in the tables."""
    return server.startswith("heliosd")


@dataclass(frozen=True, slots=True)
class Case:
    """A server with so many clients; `alone` is one of `ALONE`, or None for ordinary clients."""

    server: str
    clients: int
    alone: Mode | None = None

    @property
    def interval(self) -> float:
        """Seconds between two status messages when they are paced."""
        return 0.1 if self.clients <= 1000 else 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one server did in one round. nan: not measured."""

    idle_percent: float = nan
    """Of its CPU, with no client."""
    accepts: float = nan
    """Connections upgraded a second."""
    accept_us: float = nan
    """The server's CPU time for each."""
    rss_kib: float = nan
    """Resident memory a connection, above that of the server with no client."""
    message_bytes: float = nan
    """Mean payload of the messages received."""
    paced_us: float = nan
    """The server's CPU time a delivery in microseconds, user and system, without what it costs when idle."""
    paced_all_us: float = nan
    """The same with what it costs when idle. For builds that cost different amounts then: timers that find the CPU
    awake anyway cost less than those of an idle daemon, so that what is taken off is too much."""
    paced_p50_ms: float = nan
    paced_p99_ms: float = nan
    arrived: float = nan
    """Messages received over the messages due."""
    flood_us: float = nan
    flood_p99_ms: float = nan
    lag_p99_ms: float = nan
    """Of heliosd's loop, in lockstep."""
    burst_us: float = nan
    """A delivery's, with `BURST` messages in the same moment."""
    blocked_us: float = nan
    """A delivery's to those who read, while `BLOCKED_SHARE` of all do not."""


Results = Mapping[Case, Sequence[Sample]]
"""Of each case one sample a round, in the order of the rounds."""


def figures(results: Results, name: str, case: Case) -> list[float]:
    """One figure of each round that measured it."""
    return _measured(getattr(sample, name) for sample in results.get(case, ()))


def ratios(results: Results, name: str, case: Case, base: Case) -> list[float]:
    """One figure of `case` over that of `base`, of each round that measured both."""
    pairs = zip(results.get(case, ()), results.get(base, ()), strict=False)
    return _measured(quotient(getattr(one, name), getattr(other, name)) for one, other in pairs)


def changes(results: Results, case: Case, name: str, base: str) -> list[float]:
    """One figure of `case` over another of the same case, of each round that measured both."""
    return _measured(
        quotient(getattr(sample, name), getattr(sample, base)) for sample in results.get(case, ())
    )


def figure(results: Results, name: str, case: Case) -> float:
    """The median of the rounds that measured it; nan if none did."""
    return median_of(figures(results, name, case))


def ratio(results: Results, name: str, case: Case, base: Case) -> float:
    """One figure of `case` over that of `base`: the median of each round's ratio; nan if either was not measured.

    What slows the machine down for a minute meets both figures of a round, but not both medians.
    """
    return median_of(ratios(results, name, case, base))


def quotient(above: float, below: float) -> float:
    return above / below if below > 0 else nan


def median_of(values: Sequence[float]) -> float:
    """nan of none."""
    return median(values or [nan])


def _measured(values: Iterable[float]) -> list[float]:
    return [value for value in values if not isnan(value)]
