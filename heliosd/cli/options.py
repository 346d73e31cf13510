"""The options of the commands that talk to a daemon; without the slow imports of the code that reads them."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8080"


def add_target(parser: argparse.ArgumentParser) -> None:
    """The daemon and the user; `target.target_of` reads them."""
    group = parser.add_argument_group("the daemon and the user")
    group.add_argument("--url", metavar="URL", help=f"or HELIOSD_URL; default {DEFAULT_URL}")
    group.add_argument("--user", metavar="NAME", help="or HELIOSD_USER, or asked for")
    group.add_argument("--password-file", type=Path, metavar="FILE", help="or HELIOSD_PASSWORD, or asked for")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="or HELIOSD_TOKEN; instead of user and password"
    )


def add_watch(parser: argparse.ArgumentParser) -> None:
    """What `watch` shows, and from which event on."""
    parser.add_argument(
        "--types",
        metavar="TYPES",
        help="show these alone, separated by commas: state_changes, peer_changes, snapshot, custom_metrics, "
        "status, latency, uptime",
    )
    parser.add_argument(
        "--since", metavar="EPOCH:SEQ", help="begin with the events beyond this one; default: now"
    )
    parser.add_argument(
        "--json", action="store_true", help="print every message, one a line, as it was received"
    )
