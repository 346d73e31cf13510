"""Options from the environment: `--an-option` is also `HELIOSD_AN_OPTION`, or the older `HELIOS_AN_OPTION`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from .options import long_name, options_of, verbs_of

PREFIXES = ("HELIOSD_", "HELIOS_")
TARGET = {"url", "user", "password_file", "token_file", "client_config"}
"""The destinations of `options.add_target`; `target.py` weighs those against each other."""
_ON, _OFF = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def variable(environment: Mapping[str, str], name: str) -> str | None:
    """The value of `HELIOSD_NAME`, else of `HELIOS_NAME`; None if neither is set or it is empty."""
    return next((value for prefix in PREFIXES if (value := environment.get(prefix + name))), None)


def use_environment(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Make the environment's values the defaults of the parser's options. Ends the program with the parser's error
    if a value cannot be one."""
    for verb in verbs_of(parser).values():
        use_environment(verb, environment)
    for action in options_of(parser):
        if parser.get_default("target_group") and action.dest in TARGET:
            continue
        name = long_name(action)[2:].upper().replace("-", "_")
        text = variable(environment, name)
        if text is None or action.default is argparse.SUPPRESS:
            continue
        if action.nargs == 0:
            if text.lower() not in _ON | _OFF:
                parser.error(f"{PREFIXES[0]}{name}: must be 1 or 0, not {text!r}")
            action.default = text.lower() in _ON
            continue
        try:
            value = action.type(text) if callable(action.type) else text
        except (ValueError, TypeError, argparse.ArgumentTypeError) as wrong:
            parser.error(f"{PREFIXES[0]}{name}: {wrong}")
        if action.choices is not None and value not in action.choices:
            parser.error(f"{PREFIXES[0]}{name}: must be one of {', '.join(action.choices)}, not {text!r}")
        # An option that may be given several times: once.
        several = isinstance(action, argparse._AppendAction)
        action.default, action.required = _FromEnvironment([value]) if several else value, False


class _FromEnvironment(list[object]):
    """The default of an option that may be given several times. argparse copies it before it appends: if the option
    is given, it counts alone."""

    def __copy__(self) -> list[object]:
        return []
