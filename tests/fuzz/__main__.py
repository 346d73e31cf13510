"""Coverage-guided fuzzing by atheris: `python -m tests.fuzz TARGET SECONDS`, for each target by `make fuzz`.

It begins with tests/fuzz/corpus/TARGET and keeps what it finds in build/fuzz/TARGET. An input that fails is written
to build/fuzz/TARGET-failed; with its repair it goes into the corpus.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    name, seconds = sys.argv[1:3]
    atheris = importlib.import_module("atheris")  # only make fuzz installs it
    with atheris.instrument_imports(include=["heliosd", "wsproto"]):
        from .targets import TARGETS
    found = ROOT / "build" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)

    def target(data: bytes) -> None:
        try:
            TARGETS[name](data)
        except BaseException:
            found.with_name(f"{name}-failed").write_bytes(data)
            raise

    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=5", "-rss_limit_mb=1024"]
    options += ["-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(found), str(ROOT / "tests/fuzz/corpus" / name)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
