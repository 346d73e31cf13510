"""What is measured in a run, in which order, and how often."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isnan

from .measure import Bench
from .results import ALONE, Case, Mode, Results, Sample, is_heliosd
from .servers import Server

DEFAULT_MESSAGE_BYTES = 600
"""Only when heliosd is not among the servers; else the others send messages as long as its own."""

_MODES_ALONE = {
    Mode.BLOCKED: frozenset({Mode.LOCKSTEP, Mode.BLOCKED}),
    Mode.TLS: frozenset({Mode.PACED, Mode.LOCKSTEP}),
    Mode.ACCEPTS: frozenset({Mode.ACCEPTS}),
    Mode.LAG: frozenset({Mode.LAG}),
}
ALL_CLIENTS = (100, 1000, 5000)
MOST_CLIENTS = 10_000


@dataclass(frozen=True, slots=True)
class Job:
    """One start of some servers that are compared, and what is done with their clients."""

    cases: tuple[Case, ...]
    modes: frozenset[Mode]


def whole(servers: Iterable[Server]) -> list[Job]:
    """All that the targets are about."""
    # With "auto", as heliosd is by itself, so many clients are written to by io_uring where that is possible.
    servers = [server for server in servers if server.name != "heliosd-uring"]
    both = frozenset({Mode.PACED, Mode.LOCKSTEP})
    jobs: list[Job] = []
    for clients in ALL_CLIENTS:
        among = [server for server in servers if clients >= 1000 or server.name != "centrifugo"]
        jobs += chosen(among, [clients], both | {Mode.BURSTS} if clients == 1000 else both)
    ours = [server for server in servers if server.name == "heliosd"]
    jobs += chosen(ours, [MOST_CLIENTS], frozenset({Mode.PACED, Mode.LAG}))
    jobs += chosen(ours, [5000], frozenset({Mode.ACCEPTS, Mode.LAG}))
    jobs += chosen(ours, [1000], frozenset({Mode.BLOCKED}))
    jobs += chosen(servers, [1000], frozenset({Mode.TLS}))
    return jobs


def chosen(servers: Iterable[Server], clients: Sequence[int], modes: frozenset[Mode]) -> list[Job]:
    """These servers with so many clients each, in these modes; TLS only for those who speak it."""
    servers = list(servers)
    together = modes - ALONE
    jobs = []
    for count in clients:
        if together:
            jobs.append(Job(tuple(Case(server.name, count) for server in servers), together))
        for mode in sorted(modes & ALONE):
            able = [server for server in servers if _can(server, mode)]
            jobs.append(Job(tuple(Case(server.name, count, mode) for server in able), _MODES_ALONE[mode]))
    return [job for job in jobs if job.cases]


def _can(server: Server, mode: Mode) -> bool:
    if mode is Mode.TLS:
        return server.speaks_tls
    return mode is not Mode.LAG or is_heliosd(server.name)


def carry_out(jobs: Sequence[Job], servers: Mapping[str, Server], bench: Bench, rounds: int) -> Results:
    """All jobs in turn, `rounds` times, so that a slow minute of the machine meets them all.

    Raises ServerFailed or LoadFailed.
    """
    samples: dict[Case, list[Sample]] = {}
    message_bytes = DEFAULT_MESSAGE_BYTES
    for number in range(1, rounds + 1):
        for job in jobs:
            measured = bench.measure(
                [(servers[case.server], case) for case in job.cases], job.modes, message_bytes
            )
            for case, sample in measured.items():
                samples.setdefault(case, []).append(sample)
                if case.server == "heliosd" and not isnan(sample.message_bytes):
                    message_bytes = round(sample.message_bytes)
                print(f"round {number}/{rounds}: {_described(case, sample)}", file=sys.stderr)
    return samples


def _described(case: Case, sample: Sample) -> str:
    figures = ((field.name, getattr(sample, field.name)) for field in fields(sample))
    described = ", ".join(f"{name} {figure:.2f}" for name, figure in figures if not isnan(figure))
    return f"{case.server}, {case.clients} clients{f', {case.alone}' if case.alone else ''}: {described}"
