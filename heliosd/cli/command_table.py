"""The commands, in the order in which `heliosd --help` shows them.

To add one: a row here, and a module `heliosd/cli/NAME.py` (dashes become underscores) with `add_options(parser)`
and `run(options) -> int`. Only the module of the command that is run is imported, so its imports cost nobody else.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from msgspec import Struct


class CommandModule(Protocol):
    """What a module of a command offers."""

    def add_options(self, parser: argparse.ArgumentParser, /) -> None:
        """Add its options and arguments, with light imports only."""
        ...

    def run(self, options: argparse.Namespace, /) -> int:
        """Run it and return the exit code. Errors that `main` reports may rise."""
        ...


class CommandEntry(Struct, frozen=True):
    """One command: its name, one sentence about it, and its other names."""

    name: str
    summary: str
    aliases: tuple[str, ...] = ()

    def load(self) -> CommandModule:
        module = import_module(f"heliosd.cli.{self.name.replace('-', '_')}")
        return cast(CommandModule, module)


COMMANDS: tuple[CommandEntry, ...] = (
    CommandEntry("serve", "Run the daemon; `heliosd --config FILE` is the same."),
    CommandEntry("check-config", "Check a configuration file and print every problem with its key and line."),
    CommandEntry("hash-password", "Read a password and print its hash for the configuration file."),
    CommandEntry("token", "Print a signed token for a configured user."),
    CommandEntry("backup", "Write the state of a data directory to one file, also while the daemon runs."),
    CommandEntry(
        "restore", "Put the state of a backup in place of the data directory's; the daemon must be stopped."
    ),
    CommandEntry(
        "reset-password", "Read a new password for a user; a running daemon ends that user's sessions."
    ),
    CommandEntry("watch", "Show what happens in the cluster, live, until Ctrl-C."),
    CommandEntry("top", "Show the members and the custom metrics, live, with rates, until Ctrl-C."),
    CommandEntry("status", "Show the cluster as a node sees it; with --check a verdict for scripts."),
    CommandEntry("members", "Show the members; add or remove one.", ("peers",)),
    CommandEntry("history", "Show what has happened: since when, of which types; who led at three."),
    CommandEntry("transfer", "Hand leadership to another member."),
    CommandEntry("metrics", "Show the custom metrics; register, change or delete one."),
    CommandEntry("snapshot", "Show the newest snapshot; take one; show those before."),
    CommandEntry("clients", "Show who is connected; disconnect one."),
    CommandEntry(
        "simulate", "Play a script of faults, and print what every correct client must have received."
    ),
    CommandEntry("may-stop", "Ask for a permit to stop a member: 0 if the cluster keeps its quorum, else 5."),
    CommandEntry("completion", "Print the completions of this command line for bash, zsh or fish."),
)


def find(given: Sequence[str]) -> CommandEntry | None:
    """The command that the first word names; None if it names none."""
    word = given[0] if given else ""
    return next((entry for entry in COMMANDS if word in (entry.name, *entry.aliases)), None)
