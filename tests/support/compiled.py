"""The C programs of benchmarks/ that tests run: compiled once for a source and a compiler, not in every run."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = ("gcc", "-std=c17", "-O2")


def c_program(name: str) -> Path:
    """The program of benchmarks/NAME.c; it is kept in build/."""
    source = ROOT / "benchmarks" / f"{name}.c"
    version = subprocess.run([COMMAND[0], "--version"], capture_output=True, check=True).stdout
    parts = [repr(COMMAND).encode(), version]
    parts += [path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h")))]
    program = ROOT / "build" / "tests" / f"{name}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_name(f"{program.name}.{os.getpid()}")  # others may compile it now, too
        subprocess.run([*COMMAND, "-o", unfinished, source], check=True, timeout=60)
        unfinished.replace(program)
    return program
