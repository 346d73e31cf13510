"""What a delivery costs: heliosd beside a C `send()` loop and a Go hub, in turn, in one run. See README.md.

    python -m benchmarks.run [--clients 1000] [--seconds 5] [--rounds 3] [--server NAME]... [--deflate] [--check]

Exit code: 0 when every server was measured, 1 when one failed, or with `--check` when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from .measure import LoadFailed, Sample, measure
from .servers import BUILD, HERE, SERVERS, Server, ServerFailed, Task, compile_c

INTERVAL_SECONDS = 0.1
DEFAULT_MESSAGE_BYTES = 600
"""Only when heliosd is not among the servers; else the others send messages as long as its own."""
LEAST_DELIVERED = 0.95
DEFAULT_SERVERS = ("heliosd", "c", "go")
TARGETS = (("c", 1.6), ("go", 0.6))
"""heliosd's CPU a delivery is at most so many times that of these."""


def main() -> int:
    options = _options()
    if lacking := [tool for tool in ("gcc", "taskset") if not shutil.which(tool)]:
        print(f"cannot measure: the load client needs {' and '.join(lacking)}", file=sys.stderr)
        return 1
    server_cpu, load_cpu = _two_cpus()
    chosen = [server for server in SERVERS if server.name in (options.server or DEFAULT_SERVERS)]
    servers: list[Server] = []
    for server in chosen:
        if missing := server.missing():
            print(f"not measured: {server.name}: missing {missing}")
        else:
            servers.append(server)
    try:
        compile_c(HERE / "load.c", BUILD / "load")
        for server in servers:
            server.build()
        samples = _rounds(servers, options, server_cpu, load_cpu)
    except (ServerFailed, LoadFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    medians = {name: _median(of_server) for name, of_server in samples.items()}
    print(_table(medians, options))
    for server in servers:
        print(f"{server.name}: {server.version()}")
    print(f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs")
    held = _judge(medians)
    complete = len(servers) == len(chosen)
    return 0 if complete and (held or not options.check) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000, help="connections to each server (default 1000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="each window lasts (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default 3)")
    parser.add_argument(
        "--server",
        action="append",
        choices=[server.name for server in SERVERS],
        help="only this; may be repeated",
    )
    parser.add_argument("--deflate", action="store_true", help="heliosd's clients take compression")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    return parser.parse_args()


def _two_cpus() -> tuple[int, int]:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        print("one CPU only: server and load client share it, so latencies and memory are not comparable")
    return allowed[0], allowed[-1] if len(allowed) == 1 else allowed[1]


def _rounds(
    servers: list[Server], options: argparse.Namespace, server_cpu: int, load_cpu: int
) -> dict[str, list[Sample]]:
    """All servers in turn, `rounds` times, so that a slow minute of the machine meets them all."""
    samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
    message_bytes = DEFAULT_MESSAGE_BYTES
    for number in range(1, options.rounds + 1):
        for server in servers:
            with tempfile.TemporaryDirectory(prefix="heliosd-bench-") as scratch:
                task = Task(
                    interval=INTERVAL_SECONDS,
                    message_bytes=message_bytes,
                    clients=options.clients,
                    cpu=server_cpu,
                    scratch=Path(scratch),
                )
                with contextmanager(server.start)(task) as running:
                    sample = measure(
                        BUILD / "load",
                        running,
                        cpu=load_cpu,
                        clients=options.clients,
                        seconds=options.seconds,
                        interval=INTERVAL_SECONDS,
                        deflate=options.deflate and server.name == "heliosd",
                    )
            samples[server.name].append(sample)
            if server.name == "heliosd":
                message_bytes = sample.message_bytes
            print(f"round {number}/{options.rounds} {server.name}: {sample.cpu_us:.2f} µs", file=sys.stderr)
    return samples


def _median(samples: list[Sample]) -> Sample:
    return Sample(
        cpu_us=median(sample.cpu_us for sample in samples),
        p50_ms=median(sample.p50_ms for sample in samples),
        p99_ms=median(sample.p99_ms for sample in samples),
        rss_kib=median(sample.rss_kib for sample in samples),
        accepts=median(sample.accepts for sample in samples),
        message_bytes=round(median(sample.message_bytes for sample in samples)),
        idle_percent=median(sample.idle_percent for sample in samples),
        share_delivered=min(sample.share_delivered for sample in samples),
    )


def _table(medians: dict[str, Sample], options: argparse.Namespace) -> str:
    lines = [
        f"\n{options.clients} clients, a message each {INTERVAL_SECONDS} s, "
        f"{options.rounds} rounds of {options.seconds:g} s, medians",
        f"{'server':<12}{'CPU-µs a':>10}{'x C':>7}{'x Go':>7}{'p50':>8}{'p99':>8}{'KiB a':>8}{'accepts':>9}"
        f"{'bytes a':>9}{'idle':>7}{'arrived':>9}",
        f"{'':<12}{'delivery':>10}{'':>7}{'':>7}{'ms':>8}{'ms':>8}{'client':>8}{'/s':>9}"
        f"{'message':>9}{'CPU %':>7}{'of due':>9}",
    ]
    for name, sample in medians.items():
        lines.append(
            f"{name:<12}{sample.cpu_us:>10.2f}{_ratio(medians, name, 'c')}{_ratio(medians, name, 'go')}"
            f"{sample.p50_ms:>8.2f}{sample.p99_ms:>8.2f}{sample.rss_kib:>8.1f}{sample.accepts:>9.0f}"
            f"{sample.message_bytes:>9}{sample.idle_percent:>7.2f}{sample.share_delivered:>9.0%}"
        )
    return "\n".join([*lines, ""])


def _ratio(medians: dict[str, Sample], name: str, base: str) -> str:
    if base not in medians:
        return f"{'-':>7}"
    return f"{medians[name].cpu_us / medians[base].cpu_us:>7.2f}"


def _judge(medians: dict[str, Sample]) -> bool:
    """Says whether the targets hold. Who drops messages is cheap for the wrong reason, so that counts too."""
    held = True
    for name, sample in medians.items():
        if sample.share_delivered < LEAST_DELIVERED:
            print(
                f"{name} delivered {sample.share_delivered:.0%} of the messages due: its cost means nothing"
            )
            held = False
    for base, limit in TARGETS:
        if "heliosd" in medians and base in medians:
            ratio = medians["heliosd"].cpu_us / medians[base].cpu_us
            verdict = f"{ratio:.2f}, {'holds' if ratio <= limit else 'MISSED'}"
            held = held and ratio <= limit
        else:
            verdict = "not measured"
            held = False
        print(f"target: heliosd at most {limit} x {base}: {verdict}")
    return held


if __name__ == "__main__":
    sys.exit(main())
