"""The load client, driven from here by commands: `load.c` says what each word means."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import Running


class LoadFailed(Exception):
    """The load client could not measure; the text is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    seconds: float
    """From the first connect() to the last upgrade."""
    cpu_seconds: float
    """The server's meanwhile."""
    resident_before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What arrived in a while, and what it cost the server."""

    seconds: float
    cpu_seconds: float
    deliveries: int
    payload_bytes: int
    p50_ms: float
    p99_ms: float
    resident_after: int
    rounds: int
    """Broadcasts that the load client asked for; 0 where the server sends at its own pace."""


class Load:
    """A load client at work. Each method raises LoadFailed when a client is refused or lost."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name

    def connect(self, clients: int, narrow: int = 0) -> Connected:
        """`narrow` of them, spread evenly, have next to no buffers."""
        report = self._command(f"connect {clients} {narrow}")
        return Connected(
            seconds=report["connect_seconds"],
            cpu_seconds=report["connect_cpu_seconds"],
            resident_before=report["resident_before"],
        )

    def rest(self, seconds: float) -> None:
        self._command(f"rest {seconds}")

    def count(self, seconds: float) -> Window:
        """What the server sends at its own pace."""
        return self._window(f"count {seconds}")

    def hush(self) -> None:
        """From now on the server sends on request, by `pace` and `rounds`, and not at its own pace."""
        self._command("hush")

    def pace(self, seconds: float, interval: float) -> Window:
        """A message to everyone each `interval` seconds."""
        return self._window(f"pace {seconds} {interval}")

    def rounds(self, seconds: float, beats: int = 1) -> Window:
        """Lockstep: `beats` messages at once to everyone, the next ones when they are all there."""
        return self._window(f"rounds {seconds} {beats}")

    def block(self) -> None:
        """The narrow ones are read no more."""
        self._command("block")

    def _window(self, line: str) -> Window:
        report = self._command(line)
        if report["stampless"]:
            raise LoadFailed(f"{self._name}: {report['stampless']} messages without a timestamp")
        return Window(
            **{name: report[name] for name in Window.__dataclass_fields__ if name != "rounds"},
            rounds=report.get("rounds", 0),
        )

    def _command(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            assert self._process.stderr is not None
            reason = self._process.stderr.read().strip() or f"ended with {self._process.wait()}"
            raise LoadFailed(f"{self._name}: {line}: {reason}")
        report: dict[str, Any] = json.loads(answer)
        return report


@contextmanager
def loading(
    program: Path,
    server: Running,
    *,
    cpu: int,
    eager: bool = False,
    beats: int | None = None,
    deflate: bool = False,
) -> Iterator[Load]:
    """A load client for `server`, with no connections yet; afterwards it is gone. An `eager` one, which wants a CPU
    of its own, never sleeps while it connects or counts."""
    passed = () if beats is None else (beats,)
    with subprocess.Popen(
        ["taskset", "-c", str(cpu), str(program), server.address, str(server.pid)],
        # The target holds a token: the environment, unlike the arguments, is for this user's eyes only.
        env={
            **os.environ,
            "LOAD_TARGET": server.target,
            **({"LOAD_EAGER": "1"} if eager else {}),
            **({"LOAD_DEFLATE": "1"} if deflate else {}),
            **({} if beats is None else {"LOAD_BEATS": str(beats)}),
            **({} if server.tokens is None else {"LOAD_TOKENS": str(server.tokens)}),
        },
        pass_fds=passed,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Load(process, server.name)
        finally:
            process.kill()
