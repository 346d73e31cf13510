"""A token for each of thousands of clients, as `heliosd token` would make them one by one."""

from __future__ import annotations

import time
from pathlib import Path

from heliosd.auth.access import Access
from heliosd.auth.first_start import load_signing_keys
from heliosd.config.loader import data_directory, load
from heliosd.config.model import Settings


def write_tokens(path: Path, config_path: Path, user: str, count: int) -> None:
    """Writes `count` tokens of a configured user, one a line, into a new file that nobody else can read."""
    config = load(config_path)
    access = Access(Settings(config), load_signing_keys(config, data_directory(config), make=False), {}, None)
    path.touch(mode=0o600)
    path.write_text("".join(f"{access.issue(user, time.time(), None).token}\n" for _ in range(count)))
