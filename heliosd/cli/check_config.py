"""`heliosd check-config`: every problem of a configuration, one a line."""

from __future__ import annotations

import argparse

from heliosd.config.loader import load
from heliosd.daemon.referenced_files import problems_with_files
from heliosd.errors import ConfigError

from .exits import OK, WRONG


def run(options: argparse.Namespace) -> int:
    try:
        problems = problems_with_files(load(options.config))
    except ConfigError as error:
        problems = error.problems
    # The problems are what was asked for, so they go to standard output.
    for problem in problems:
        print(problem)
    if problems:
        return WRONG
    print(f"{options.config}: ok")
    return OK
