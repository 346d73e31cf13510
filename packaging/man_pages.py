"""heliosd(1) from the parser of the command line, and heliosd.toml(5) from config.example.toml.

python packaging/man_pages.py FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from heliosd import __version__
from heliosd.cli.command_table import COMMANDS
from heliosd.cli.main import parser_for

ROOT = Path(__file__).parents[1]
EXIT_CODES = (
    ("0", "well"),
    ("1", "failed while running"),
    ("2", "wrong usage or configuration"),
    ("3", "cannot connect"),
    ("4", "the login or the right was refused"),
    ("5", "the cluster is not healthy"),
)


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "heliosd.1").write_text(commands_page(), encoding="utf-8")
    (folder / "heliosd.toml.5").write_text(config_page(), encoding="utf-8")


def commands_page() -> str:
    """heliosd(1)."""
    lines = [
        *_head("HELIOSD", 1, "heliosd", "live view of a Raft cluster"),
        ".SH SYNOPSIS",
        ".B heliosd",
        r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...",
        ".SH DESCRIPTION",
        _escaped(parser_for([]).description or ""),
        "Every option --NAME of a command is also the variable HELIOSD_NAME.",
        ".SH COMMANDS",
    ]
    for entry in COMMANDS:
        parser = _subparser(entry.name)
        lines += [f".SS {_escaped(' '.join(parser.format_usage().split()).removeprefix('usage: '))}"]
        lines += [_escaped(entry.summary)]
        lines += _options(parser)
    lines += [".SH EXIT STATUS"]
    for code, meaning in EXIT_CODES:
        lines += [".TP", f".B {code}", meaning]
    lines += [".SH FILES"]
    for file, meaning in (
        ("/etc/heliosd/heliosd.toml", "the configuration of the service"),
        ("/var/lib/heliosd", "its data"),
        ("/usr/share/doc/heliosd", "the documentation"),
    ):
        lines += [".TP", f".I {file}", meaning]
    lines += [".SH SEE ALSO", r".BR heliosd.toml (5)"]
    return "\n".join(lines) + "\n"


def config_page() -> str:
    """heliosd.toml(5)."""
    example = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    return "\n".join(
        [
            *_head("HELIOSD.TOML", 5, "heliosd.toml", "configuration of heliosd"),
            ".SH DESCRIPTION",
            "Every key with its default:",
            ".PP",
            ".nf",
            *map(_escaped, example.splitlines()),
            ".fi",
            ".SH SEE ALSO",
            ".BR heliosd (1)",
            "",
        ]
    )


def _head(title: str, section: int, name: str, summary: str) -> list[str]:
    return [
        f'.TH {title} {section} "" "heliosd {__version__}"',
        ".SH NAME",
        f"{name} \\- {summary}",
    ]


def _subparser(name: str) -> argparse.ArgumentParser:
    """The parser of one command, with its options."""
    for action in parser_for([name])._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[name]  # type: ignore[no-any-return]
    raise LookupError(name)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from (".TP", f".B {_escaped(name)}", _escaped(below.description or ""))
            continue
        if action.help is argparse.SUPPRESS:
            continue
        metavar = action.metavar or action.dest.upper()
        value = "" if action.nargs == 0 else f" {metavar}"
        names = ", ".join(f"{name}{value}" for name in action.option_strings) or str(metavar)
        yield from (
            ".TP",
            f".B {_escaped(names)}",
            _escaped((action.help or "") % {"default": action.default}),
        )


def _escaped(text: str) -> str:
    """As roff shows it: a dash is one to copy, and no line begins a request."""
    escaped = text.replace("\\", "\\e").replace("-", r"\-")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


if __name__ == "__main__":
    main()
