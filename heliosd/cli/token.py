"""`heliosd token`: a signed token for a configured user, for programs that have no password."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from heliosd.auth.access import Access
from heliosd.auth.first_start import kept_admin, load_signing_keys
from heliosd.config.loader import data_directory, load
from heliosd.config.model import Settings
from heliosd.config.values import MAX_SECONDS, InvalidValue, duration

from .exits import OK, Usage


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration (TOML)")
    parser.add_argument("--user", required=True, metavar="NAME")
    parser.add_argument(
        "--ttl", type=_ttl, metavar="DURATION", help='such as "15m" or "365d"; default: auth.token_ttl'
    )


def run(options: argparse.Namespace) -> int:
    config = load(options.config)
    data_dir = data_directory(config)
    keys = load_signing_keys(config, data_dir, make=False)
    access = Access(Settings(config), keys, {}, None if config.auth.users else kept_admin(data_dir))
    if access.user(options.user) is None:
        raise Usage(f"there is no user {options.user!r} in {options.config}")
    print(access.issue(options.user, time.time(), options.ttl).token, flush=True)
    return OK


def _ttl(text: str) -> float:
    try:
        seconds = float(text) if text.isascii() and text.isdecimal() else duration(text)
    except InvalidValue as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 1 <= seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError("must be from 1 second to 100 years")
    return seconds
