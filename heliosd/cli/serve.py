"""`heliosd serve`: run the daemon."""

from __future__ import annotations

import argparse
from pathlib import Path

from heliosd.daemon.referenced_files import load_checked


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")


def run(options: argparse.Namespace) -> int:
    config = load_checked(options.config)
    # Imported here: the other commands need neither the web nor Trio, and start in a third of the time.
    from heliosd.daemon.main import serve  # noqa: PLC0415

    return serve(options.config, config)
