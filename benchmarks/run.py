"""What a delivery costs: heliosd beside others, in turn, in one run. See README.md.

    python -m benchmarks.run              # all that the targets are about; writes docs/benchmarks.md and .svg
    python -m benchmarks.run --mode lockstep --clients 1000 5000 --server heliosd --server c --rounds 1

Exit code: 0 when every server was measured, 1 when one is missing or failed, or with `--check` when a target is
missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from . import machine, report
from .heliosd_server import Heliosd
from .load import LoadFailed
from .measure import Bench, Seconds
from .plan import MOST_CLIENTS, Job, carry_out, chosen, whole
from .process import BUILD, HERE, ServerFailed, compile_c
from .results import Mode
from .servers import SERVERS, Server
from .table import plain, tables
from .targets import judged, too_few

ONE_CPU = "one CPU only: server and load client share it, so latencies and memory are not comparable"


def main() -> int:
    options = _options()
    partly = bool(options.mode or options.server or options.clients or options.other)
    clients = options.clients or ([1000] if partly else [MOST_CLIENTS])
    modes = frozenset(Mode(mode) for mode in options.mode or Mode)
    lacking = machine.lacking(tls=Mode.TLS in modes)
    if limited := machine.allow_files(max(clients)):
        lacking.append(limited)
    if lacking:
        print(f"cannot measure: missing {'; '.join(lacking)}", file=sys.stderr)
        return 1
    wanted = [server for server in SERVERS if server.name in (options.server or _names())]
    if options.other:
        checkout, python = options.other
        wanted.append(Heliosd("heliosd-other", Path(checkout).absolute(), python))
    missing = [
        f"not measured: {server.name}: missing {what}" for server in wanted if (what := server.missing())
    ]
    servers = [server for server in wanted if not server.missing()]
    cpus = machine.two_cpus()
    notes = [*missing, *([ONE_CPU] if cpus[0] == cpus[1] else [])]
    for note in notes:
        print(note, file=sys.stderr)
    jobs = chosen(servers, clients, modes) if partly else whole(servers)
    started = time.monotonic()
    try:
        _build(servers, jobs)
        bench = Bench(*cpus, Seconds(paced=options.seconds), options.deflate)
        results = carry_out(jobs, {server.name: server for server in servers}, bench, options.rounds)
    except (ServerFailed, LoadFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    for table in tables(results):
        print(f"\n{plain(table)}")
    print()
    for server in servers:
        print(f"{server.name}: {server.version()}")
    print(machine.description())
    verdicts = [verdict for verdict in judged(results) if not (partly and isnan(verdict.measured))]
    doubts = too_few(results)
    for line in (*notes, *doubts, *verdicts):
        print(line)
    if not partly and not missing:
        minutes = (time.monotonic() - started) / 60
        report.write(results, verdicts, doubts, servers, options.rounds, options.seconds, minutes)
    held = not doubts and all(verdict.held for verdict in verdicts)
    return 0 if not missing and (held or not options.check) else 1


def _names() -> list[str]:
    return [server.name for server in SERVERS]


def _build(servers: Sequence[Server], jobs: Sequence[Job]) -> None:
    compile_c(HERE / "load.c", BUILD / "load")
    if any(case.alone is Mode.TLS for job in jobs for case in job.cases):
        compile_c(HERE / "load.c", BUILD / "load_tls", "-DLOAD_TLS", "-lssl", "-lcrypto")
    for server in servers:
        server.build()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--mode", action="append", choices=list(Mode), help="only this; may be repeated")
    parser.add_argument("--clients", type=int, nargs="+", help="so many to each server (default 1000)")
    parser.add_argument("--server", action="append", choices=_names(), help="only this; may be repeated")
    parser.add_argument("--seconds", type=float, default=0.5, help="a paced turn lasts (default 0.5)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default 3)")
    parser.add_argument("--deflate", action="store_true", help="heliosd's clients take compression")
    parser.add_argument(
        "--other", nargs=2, metavar=("CHECKOUT", "PYTHON"), help="the heliosd of another checkout, too"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
