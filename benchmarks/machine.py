"""What a run was made on, in words that mean something elsewhere."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from pathlib import Path

from .process import ServerFailed, output


def two_cpus() -> tuple[int, int]:
    """One for the server and one for the load client; the same if this process may use only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)]


def allow_files(clients: int) -> str:
    """Lets this process's children hold so many connections. What keeps it from that; "" if nothing."""
    needed = clients + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        if hard < needed:
            return f"{needed} descriptors for one process; the limit is {hard} (ulimit -Hn)"
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return ""


def lacking(*, tls: bool) -> list[str]:
    """What the load client needs and is not there, with the Debian package."""
    wanting = []
    if not shutil.which("taskset"):
        wanting.append("taskset (util-linux)")
    if not shutil.which("gcc"):
        return [*wanting, "gcc (gcc, libc6-dev)"]
    if tls:
        try:
            output(["gcc", "-fsyntax-only", "-include", "openssl/ssl.h", "-x", "c", os.devnull])
        except ServerFailed:
            wanting.append("OpenSSL's headers (libssl-dev)")
    return wanting


def description() -> str:
    """CPU model and count, kernel."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cpu = models[0] if models else platform.machine()
    return f"{cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release().partition('-')[0]}"
