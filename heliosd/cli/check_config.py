"""`heliosd check-config`: every problem of a configuration, one a line."""

from __future__ import annotations

import argparse

from heliosd.daemon.referenced_files import load_checked
from heliosd.errors import ConfigError

from .exits import OK, WRONG


def run(options: argparse.Namespace) -> int:
    file = options.file or options.config
    try:
        load_checked(file)
    except ConfigError as error:
        # The problems are the command's result, so they go to standard output.
        for problem in error.problems:
            print(problem)
        return WRONG
    print(f"{file}: ok")
    return OK
