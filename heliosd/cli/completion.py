"""`heliosd completion SHELL`: the completions, made from the parsers of all commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .command_table import COMMANDS
from .exits import OK
from .options import options_of, verbs_of

SHELLS = ("bash", "zsh", "fish")
Words = dict[tuple[str, ...], dict[str, str]]
"""For each command, and each command with its verb: the words that may follow, with what they are for."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    words, choices = completions()
    match options.shell:
        case "bash":
            print(_bash(words, choices))
        case "zsh":
            # zsh runs bash's completions, since 4.2.
            print("autoload -U +X compinit && compinit -i\nautoload -U +X bashcompinit && bashcompinit")
            print(_bash(words, choices))
        case _:
            print("\n".join(_fish(words, choices)))
    return OK


def completions() -> tuple[Words, dict[str, list[str]]]:
    """The words of every command, and the values of every option that has choices; FILE options have `<file>`."""
    words: Words = {(): {}}
    values: dict[str, list[str]] = {}
    for entry in COMMANDS:
        parser = argparse.ArgumentParser(prog=f"heliosd {entry.name}", allow_abbrev=False)
        entry.load().add_options(parser)
        for name in (entry.name, *entry.aliases):
            words[()][name] = entry.summary
            _collect(parser, (name,), words, values)
    return words, values


def _collect(
    parser: argparse.ArgumentParser, path: tuple[str, ...], words: Words, values: dict[str, list[str]]
) -> None:
    here = words.setdefault(path, {})
    for verb, below in verbs_of(parser).items():
        here[verb] = str(below.description)
        _collect(below, (*path, verb), words, values)
    for action in parser._actions:
        if not action.option_strings and action.choices is not None and not verbs_of(parser):
            here |= dict.fromkeys(map(str, action.choices), str(action.help or ""))
    for action in options_of(parser):
        if action.help == argparse.SUPPRESS:
            continue
        for option in action.option_strings:
            here[option] = str(action.help or "").replace("%%", "%")
            if action.choices is not None:
                values[option] = [str(choice) for choice in action.choices]
            elif action.metavar == "FILE":
                values[option] = ["<file>"]
            elif action.nargs not in {0, "?"}:
                values[option] = []


def _bash(words: Words, values: dict[str, list[str]]) -> str:
    cases = "\n".join(
        f'        "{" ".join(path)}") words="{" ".join(below)}" ;;' for path, below in words.items() if path
    )
    options = "\n".join(
        f"        {option}) {_bash_values(known)}; return ;;" for option, known in sorted(values.items())
    )
    return f"""_heliosd() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=
    COMPREPLY=()
    case $previous in
{options}
    esac
    local path="${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}"
    [ "$COMP_CWORD" -le 2 ] && path=${{COMP_WORDS[1]}}
    [ "$COMP_CWORD" -le 1 ] && path=
    case $path in
{_bash_verbs(words)}
    esac
    case $path in
        "") words="{" ".join(words[()])} --help --version" ;;
{cases}
    esac
    COMPREPLY=( $(compgen -W "$words" -- "$current") )
}}
complete -o default -F _heliosd heliosd"""


def _bash_verbs(words: Words) -> str:
    """With a verb its own words, else those of the command."""
    pairs = "|".join(f'"{" ".join(path)}"' for path in words if len(path) == 2)
    return f"        {pairs}) ;;\n        *) path=${{path%% *}} ;;"


def _bash_values(known: list[str]) -> str:
    if known == ["<file>"]:
        return 'COMPREPLY=( $(compgen -f -- "$current") )'
    return f'COMPREPLY=( $(compgen -W "{" ".join(known)}" -- "$current") )'


def _fish(words: Words, values: dict[str, list[str]]) -> Iterator[str]:
    yield "complete -c heliosd -f"
    for word, summary in words[()].items():
        yield f"complete -c heliosd -n __fish_use_subcommand -a {word} -d {_quoted(summary)}"
    for path, below in words.items():
        if not path:
            continue
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in path)
        for word, summary in below.items():
            if not word.startswith("-"):
                what = f"-a {word}"
            else:
                what = f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
                known = values.get(word)
                if known == ["<file>"]:
                    what += " -r -F"
                elif known is not None:
                    what += " -x" + (f" -a {_quoted(' '.join(known))}" if known else "")
            yield f"complete -c heliosd -n {_quoted(condition)} {what} -d {_quoted(summary)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
