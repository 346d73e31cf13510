"""The options that several commands share; without the slow imports of the code that reads them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from .report import FORMATS

DEFAULT_URL = "http://127.0.0.1:8080"
Parser = argparse.ArgumentParser


def add_target(parser: Parser) -> None:
    """The daemon and the user; `target.target_of` reads them."""
    group = parser.add_argument_group("the daemon and the user")
    group.add_argument("--url", metavar="URL", help=f"or HELIOSD_URL; default {DEFAULT_URL}")
    group.add_argument("--user", metavar="NAME", help="or HELIOSD_USER, or asked for")
    group.add_argument("--password-file", type=Path, metavar="FILE", help="or HELIOSD_PASSWORD, or asked for")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="or HELIOSD_TOKEN; instead of user and password"
    )
    group.add_argument(
        "--client-config",
        type=Path,
        metavar="FILE",
        help="where these stand if not here or in the environment (TOML, mode 0600); "
        "default ~/.config/heliosd/client.toml",
    )
    parser.set_defaults(target_group=True)


def add_output(parser: Parser, *, repeats: bool = False) -> None:
    """`-o`, and for what can be shown again and again `-w`. `requests.run_report` reads them."""
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", choices=FORMATS, default="table", help="default: table")
    if repeats:
        group.add_argument(
            "-w",
            "--watch",
            action=_Repeat,
            type=seconds,
            nargs="?",
            const=2.0,
            metavar="SECONDS",
            help="show it again every SECONDS (2)",
        )


class _Repeat(argparse.Action):
    """Stores the seconds, and that the command line says so: what cannot be repeated must refuse that, but passes
    over a value from the environment, which is not meant for it."""

    def __call__(
        self, _parser: Parser, namespace: argparse.Namespace, values: Any, _option: str | None = None
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.watch_given = True


def add_verbs(
    parser: Parser,
    verbs: Mapping[str, tuple[str, Callable[[Parser], None]]],
    *,
    default: str,
    reads: Collection[str],
    shared: Callable[[Parser], None],
) -> None:
    """Verbs below a command, as in `heliosd members add`: each with a sentence and a function that adds its
    arguments. `options.verb` is the verb, `default` without one. `shared` adds options that may stand before and
    after it. All verbs but `reads` are done once, whatever `-w` says: `requests.run_report` refuses it."""
    shared(parser)
    parser.set_defaults(verb=default)
    below = parser.add_subparsers(metavar="VERB", title="verbs", description=f"default: {default}")
    for name, (summary, add_arguments) in verbs.items():
        verb = below.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        add_arguments(verb)
        own = {action.dest for action in options_of(verb)}
        shared(verb)
        for action in options_of(verb):
            if action.dest not in own:
                # What stands before the verb, and the environment, must not be overwritten by this default.
                action.default = argparse.SUPPRESS
            if isinstance(action, _Repeat) and name not in reads:
                action.help = argparse.SUPPRESS
        verb.set_defaults(verb=name, once=name not in reads)


def options_of(parser: Parser) -> list[argparse.Action]:
    """Its options with a long name, without `--help` and `--version`."""
    # argparse has no public list of a parser's options; argcomplete and shtab read the same attribute.
    actions = parser._actions
    return [action for action in actions if long_name(action) and action.dest not in {"help", "version"}]


def verbs_of(parser: Parser) -> dict[str, Parser]:
    """The parsers of its verbs, by name."""
    choices: dict[str, Parser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices |= action.choices
    return choices


def long_name(action: argparse.Action) -> str:
    """`--name`; "" if it has none."""
    return next((text for text in action.option_strings if text.startswith("--")), "")


def seconds(text: str) -> float:
    """A number of seconds of at least 0.1."""
    value = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError("must be from 0.1 to 86400 seconds")
    return value


def add_watch(parser: Parser) -> None:
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
        "--lines", action="store_true", help="a line for each event also on a terminal, instead of a screen"
    )
    parser.add_argument(
        "--json", action="store_true", help="print every message, one a line, as it was received"
    )
