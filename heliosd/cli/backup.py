"""`heliosd backup`: the state of a data directory in one file, also while the daemon runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from heliosd.auth.first_start import BACKED_UP
from heliosd.config.loader import data_directory, load
from heliosd.store.backup import write_backup

from .exits import OK


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")
    parser.add_argument(
        "file",
        type=Path,
        metavar="BACKUP",
        help="the file to write (mode 0600); one that is there is replaced",
    )


def run(options: argparse.Namespace) -> int:
    data_dir = data_directory(load(options.config))
    write_backup(data_dir, options.file, BACKED_UP)
    print(f"{options.file}: {options.file.stat().st_size} bytes, of {data_dir}")
    return OK
