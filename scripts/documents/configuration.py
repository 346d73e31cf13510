"""docs/configuration.md: every key, from the types that a configuration file is read into."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Struct

from heliosd.config import model
from heliosd.config.permissions import PERMISSIONS
from heliosd.config.values import MAX_ALERTS, InvalidValue
from heliosd.daemon.reload import NEEDS_RESTART

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


def _sections(struct: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    for name, hint in get_type_hints(struct).items():
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield f"{prefix}{name}", hint
            yield from _sections(hint, f"{prefix}{name}.")


SECTIONS: Mapping[str, type] = dict(_sections(model.Config))
TABLES: Mapping[str, tuple[str, type]] = {
    "auth.users": ("[[auth.users]]", model.UserConfig),
    "alert": ("[[alert]]", model.AlertConfig),
}
HEAD = """\
# The configuration, key by key

Made from the types that the file is read into by `make documents`; a test fails when this page is out of date.
[config.example.toml](../config.example.toml) is a file to start from: it has every key with its default. How to
change one on a running daemon is in [operating.md](operating.md#changing-the-configuration).

The file is TOML. Keys that heliosd does not know are mistakes. A duration is a number of seconds (`5.0`) or text
such as `"250ms"`, `"15m"`, `"1h30m"`, `"365d"`. `""` means: not set. Relative paths start at the folder of the
file, and `~` is the home directory. `heliosd check-config --config FILE` lists every mistake with its line and key.

"Takes effect": *reload* means within a second of SIGHUP, *start* means at the next start. The certificate that
`tls_cert` and `tls_key` name is read again at a SIGHUP and when the files change.

"""
KINDS = {str: "text", bool: "`true`, `false`", int: "whole number", float: "number"}


def configuration_page() -> str:
    """The whole page."""
    return HEAD + "\n".join(_parts()).rstrip("\n") + "\n"


def _parts() -> Iterator[str]:
    defaults = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    comments = _comments()
    for section, struct in SECTIONS.items():
        yield f"## [{section}]\n\n| key | value | default | takes effect | |\n| --- | --- | --- | --- | --- |"
        table: Any = defaults
        for name in section.split("."):
            table = table[name]
        for name, hint in get_type_hints(struct, include_extras=True).items():
            key = f"{section}.{name}"
            if key in SECTIONS or key in TABLES or key == "auth.roles":
                continue
            effect = "start" if any(f"{key}.".startswith(f"{each}.") for each in NEEDS_RESTART) else "reload"
            default = _toml(table[name])
            yield f"| `{name}` | {_kind(hint)} | `{default}` | {effect} | {comments.get(key, '')} |".replace(
                "  |", " |"
            )
        yield ""
        if section == "auth":
            yield from _roles(defaults["auth"]["roles"])
    for section, (shown, struct) in TABLES.items():
        most = f"At most {MAX_ALERTS}" if section == "alert" else "Any number"
        yield f"## {shown}\n\n{most} of them; they take effect at a reload.\n"
        yield "| key | value | |\n| --- | --- | --- |"
        for name, hint in get_type_hints(struct, include_extras=True).items():
            key = {"hold": "for", "place": ""}.get(name, name)
            if key:
                yield _row(f"`{key}`", _kind(hint), comments.get(f"{section}.{key}", ""))
        yield ""
    yield "What an alert sends, and its conditions: [alerts.md](alerts.md)."


def _roles(roles: Mapping[str, list[str]]) -> Iterator[str]:
    yield "### [auth.roles]\n"
    yield f"A role is a name and a list of permissions: {', '.join(f'`{one}`' for one in sorted(PERMISSIONS))}."
    yield "This table replaces the default one, so a role that it does not name does not exist.\n"
    yield "```toml\n[auth.roles]"
    yield from (f"{name} = {_toml(permissions)}" for name, permissions in roles.items())
    yield "```\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |".replace("  |", " |")


def _kind(hint: Any) -> str:
    """What a key takes, in the words of its reader where that has some."""
    if get_origin(hint) is Literal:
        return ", ".join(f'`"{one}"`' for one in get_args(hint))
    if get_origin(hint) is Annotated:
        kind, read = get_args(hint)
        several = get_origin(kind) is tuple
        said = _range(read, get_args(kind)[0] if several else kind)
        return f"list of {said}" if several else said
    if get_origin(hint) is tuple:
        return "list"
    return KINDS.get(hint, "path" if "Path" in str(hint) else _plain(hint))


def _plain(hint: Any) -> str:
    return {"AlertCondition": "condition"}.get(getattr(hint, "__name__", ""), "text")


def _range(read: Any, kind: Any) -> str:
    """A reader names its range when it refuses a value far outside."""
    if type(None) in get_args(kind):
        return f'`"auto"`, or {_range(read, get_args(kind)[0])}'
    if kind in {int, float}:
        try:
            read(-1e300 if kind is float else -(10**30))
        except InvalidValue as error:
            low, _, high = str(error).removeprefix("must be from ").partition(" to ")
            if high.endswith(" s"):
                return f"duration from {low.removesuffix(' s')} s"
            return f"{KINDS[kind]}, {low} to {high}"
    words = {
        "url": "http or https URLs",
        "url_or_nothing": 'http or https URL, or `""`',
        "listen": "addresses, or one: `HOST:PORT`, `[v6]:PORT`, `unix:/PATH`, `fd:N`",
        "origin": "origins: `scheme://host[:port]`, or `null`",
        "proxy": "addresses or networks, or `unix`",
        "base_path": '`""` or `/PREFIX`',
        "identifier": "1 to 64 of A-Z a-z 0-9 . _ -",
        "some_text": "text, not empty",
        "for_system": "text, not empty",
    }
    return words.get(read.__name__, "text")


def _comments() -> dict[str, str]:
    """What the example says about each key, behind it on its line."""
    found: dict[str, str] = {}
    section = ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("# ")
        if head := re.match(r"\[+([\w.]+)\]+", text):
            section = head[1]
        elif key := re.match(r"(\w+) = (?:\"[^\"]*\"|\[[^#]*\]|[^#\"]+?)\s*(?:# (.*))?$", text):
            found[f"{section}.{key[1]}"] = (key[2] or "").replace("|", "\\|")
    return found


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case list():
            return f"[{', '.join(_toml(part) for part in value)}]"
        case dict():
            return f"{{ {', '.join(f'{name} = {_toml(part)}' for name, part in value.items())} }}"
        case _:
            return str(value)
