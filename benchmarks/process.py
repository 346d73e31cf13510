"""Programs to measure: how one is built, started on a CPU of its own, and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / "build"
START_SECONDS = 60.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts. `target` is what a client asks for: path, query and token."""

    name: str
    pid: int
    address: str
    target: str = "/ws/cluster"
    token: str = ""
    """What its HTTP side wants to see; "" where it asks for nothing."""
    tokens: Path | None = None
    """A file with a token a line, one for each client: each completes `target` for one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a server is to do: send `message_bytes` to every client each `interval` seconds."""

    interval: float
    message_bytes: int
    clients: int
    cpus: str
    """Those that the server may use, as `taskset -c` takes them."""
    scratch: Path
    """An empty directory for this start alone."""
    beats: int | None = None
    """A descriptor: from its first byte on, a message for each byte that comes, and none by the clock."""
    certificate: Path | None = None
    """A PEM file with a certificate and its key: speak TLS."""
    own_tokens: bool = False
    """Each client is to have a token of its own, where the server wants one at all."""


class ServerFailed(Exception):
    """A server did not build or did not come up; the text is what it said."""


def compile_c(source: Path, program: Path, *flags: str) -> None:
    """Builds one C file. Raises ServerFailed with the compiler's words."""
    program.parent.mkdir(exist_ok=True)
    output(["gcc", "-std=c17", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), *flags])


@contextmanager
def launched(command: Sequence[str], task: Task, folder: Path = HERE.parent) -> Iterator[tuple[int, str]]:
    """A process pinned to `task.cpus`, its pid and the address it printed; at the end it gets SIGTERM."""
    log = task.scratch / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            ["taskset", "-c", task.cpus, *command],
            stdout=stderr,
            stderr=stderr,
            cwd=folder,
            pass_fds=() if task.beats is None else (task.beats,),
            env={**os.environ, **({} if task.beats is None else {"BENCH_BEATS": str(task.beats)})},
        )
    try:
        yield process.pid, _address_from(log, process)
    except Exception as failure:
        if process.poll() is None:
            raise
        raise ServerFailed(_last_words(process, log)) from failure
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address_from(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and line.endswith("}"):
                record = json.loads(line)
                if record.get("event") == "ready":
                    return str(record["address"])
        time.sleep(0.02)
    raise ServerFailed(f"not ready: {_last_words(process, log)}")


def _last_words(process: subprocess.Popen[bytes], log: Path) -> str:
    return f"{process.args!r} (exit code {process.returncode}):\n{log.read_text(errors='replace')[-2000:]}"


def output(
    command: Sequence[str],
    *,
    text: str | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    seconds: float = 120.0,
) -> str:
    """What a command prints. Raises ServerFailed with what it complained of if it fails."""
    done = subprocess.run(
        command, input=text, cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode != 0:
        raise ServerFailed(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
