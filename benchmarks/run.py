"""What a delivery costs: heliosd beside others, in turn, in one run. See README.md.

    python -m benchmarks.run                                     # all of it
    python -m benchmarks.run --mode lockstep --clients 1000 --server heliosd --server c --rounds 1

Exit code: 0 when every server was measured, 1 when one is missing or failed, or with `--check` when a target is
missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import fields
from math import isnan

from .load import LoadFailed
from .measure import Bench, Case, Mode, Sample, Seconds, medians
from .process import BUILD, HERE, ServerFailed, compile_c
from .servers import SERVERS, Server
from .table import plain, tables

DEFAULT_MESSAGE_BYTES = 600
"""Only when heliosd is not among the servers; else the others send messages as long as its own."""
SPECIAL = (Mode.BLOCKED, Mode.TLS)


def main() -> int:
    options = _options()
    if lacking := [tool for tool in ("gcc", "taskset") if not shutil.which(tool)]:
        print(f"cannot measure: the load client needs {' and '.join(lacking)}", file=sys.stderr)
        return 1
    chosen = [server for server in SERVERS if server.name in (options.server or _names())]
    servers = {server.name: server for server in chosen if _is_there(server)}
    modes = frozenset(Mode(mode) for mode in options.mode or Mode)
    bench = Bench(
        *_two_cpus(),
        Seconds(paced=options.seconds, lockstep=options.seconds / 2),
        options.deflate,
    )
    try:
        build(servers.values(), tls=Mode.TLS in modes)
        samples = _rounds(bench, servers, _cases(servers, options.clients, modes), options.rounds)
    except (ServerFailed, LoadFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    for table in tables(samples):
        print(f"\n{plain(table)}")
    for server in servers.values():
        print(f"{server.name}: {server.version()}")
    print(f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs")
    return 0 if len(servers) == len(chosen) else 1


def build(servers: Iterable[Server], *, tls: bool) -> None:
    compile_c(HERE / "load.c", BUILD / "load")
    if tls:
        compile_c(HERE / "load.c", BUILD / "load_tls", "-DLOAD_TLS", "-lssl", "-lcrypto")
    for server in servers:
        server.build()


def _names() -> list[str]:
    return [server.name for server in SERVERS]


def _is_there(server: Server) -> bool:
    missing = server.missing()
    if missing:
        print(f"not measured: {server.name}: missing {missing}", file=sys.stderr)
    return not missing


def _cases(
    servers: dict[str, Server], clients: list[int], modes: frozenset[Mode]
) -> list[tuple[Case, frozenset[Mode]]]:
    plain = modes - set(SPECIAL)
    cases: list[tuple[Case, frozenset[Mode]]] = []
    for count in clients:
        if plain:
            cases += [(Case(name, count), plain) for name in servers]
        if Mode.BLOCKED in modes:
            cases += [(Case(name, count, Mode.BLOCKED), frozenset()) for name in servers if name == "heliosd"]
        if Mode.TLS in modes:
            cases += [
                (Case(name, count, Mode.TLS), frozenset({Mode.PACED, Mode.LOCKSTEP}))
                for name, server in servers.items()
                if server.speaks_tls
            ]
    return cases


def _rounds(
    bench: Bench, servers: dict[str, Server], cases: list[tuple[Case, frozenset[Mode]]], rounds: int
) -> dict[Case, Sample]:
    """All servers in turn, `rounds` times, so that a slow minute of the machine meets them all."""
    samples: dict[Case, list[Sample]] = {}
    message_bytes = DEFAULT_MESSAGE_BYTES
    for number in range(1, rounds + 1):
        for case, modes in cases:
            sample = bench.measure(servers[case.server], case, modes, message_bytes)
            samples.setdefault(case, []).append(sample)
            if case.server == "heliosd" and sample.message_bytes > 0:
                message_bytes = round(sample.message_bytes)
            print(f"round {number}/{rounds} {tell(case, sample)}", file=sys.stderr)
    return {case: medians(of) for case, of in samples.items()}


def tell(case: Case, sample: Sample) -> str:
    figures = ((field.name, getattr(sample, field.name)) for field in fields(sample))
    told = ", ".join(f"{name} {figure:.2f}" for name, figure in figures if not isnan(figure))
    return f"{case.server} {case.clients} {case.special or ''}: {told}"


def _two_cpus() -> tuple[int, int]:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        print("one CPU only: server and load client share it, so latencies and memory are not comparable")
    return allowed[0], allowed[-1] if len(allowed) == 1 else allowed[1]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", action="append", choices=list(Mode), help="only this; may be repeated")
    parser.add_argument("--clients", type=int, nargs="+", default=[1000], help="connections to each server")
    parser.add_argument("--seconds", type=float, default=2.0, help="each paced window lasts (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default 3)")
    parser.add_argument("--server", action="append", choices=_names(), help="only this; may be repeated")
    parser.add_argument("--deflate", action="store_true", help="heliosd's clients take compression")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
