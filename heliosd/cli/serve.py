"""`heliosd serve`: run the daemon."""

from __future__ import annotations

import argparse

from heliosd.config.loader import load
from heliosd.daemon.referenced_files import problems_with_files
from heliosd.errors import ConfigError


def run(options: argparse.Namespace) -> int:
    config = load(options.config)
    if problems := problems_with_files(config):
        raise ConfigError(problems)
    # Imported here: the other commands need neither the web nor Trio, and start in a third of the time.
    from heliosd.daemon.main import serve  # noqa: PLC0415

    return serve(options.config, config)
