"""`heliosd token`: a signed token for a configured user, for programs that have no password."""

from __future__ import annotations

import argparse
import time

from heliosd.auth.access import Access
from heliosd.auth.first_start import kept_admin, load_signing_keys
from heliosd.config.loader import data_directory, load
from heliosd.config.model import Settings

from .exits import OK, Usage


def run(options: argparse.Namespace) -> int:
    config = load(options.config)
    data_dir = data_directory(config)
    keys = load_signing_keys(config, data_dir, make=False)
    access = Access(Settings(config), keys, {}, None if config.auth.users else kept_admin(data_dir))
    if access.user(options.user) is None:
        raise Usage(f"there is no user {options.user!r} in {options.config}")
    print(access.issue(options.user, time.time(), options.ttl).token, flush=True)
    return OK
