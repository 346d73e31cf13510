"""How long a test waits, and how late something may be.

A busy machine is no failure: `make test` waits up to `SECONDS` for a condition and holds no measured time against a
limit. `make prove-times` runs the same tests on a quiet machine and does.
"""

from __future__ import annotations

import os

SECONDS = 60.0
"""How long a test waits for what is expected at once."""
MEASURES = os.environ.get("HELIOSD_MEASURE_TIMES") == "1"


def at_most(seconds: float) -> float:
    """The limit for a measured time: `seconds` where times are measured, else as long as a test waits."""
    return seconds if MEASURES else seconds + SECONDS
