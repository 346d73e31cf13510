"""`heliosd restore`: the state of a backup in place of the data directory's."""

from __future__ import annotations

import argparse
from pathlib import Path

from heliosd.auth.first_start import BACKED_UP
from heliosd.config.loader import data_directory, ensure_data_directory, load
from heliosd.store.backup import REPLACED, restore

from .exits import OK, print_error


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")
    parser.add_argument("file", type=Path, metavar="BACKUP", help="what `heliosd backup` wrote")


def run(options: argparse.Namespace) -> int:
    data_dir = data_directory(load(options.config))
    ensure_data_directory(data_dir)
    manifest = restore(data_dir, options.file, BACKED_UP, print_error)
    made = f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
    print(f"{data_dir}: the state of {made}; what was there has the suffix {REPLACED}")
    return OK
