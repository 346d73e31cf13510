"""Every command that a document shows is one that there is: of heliosd, of make, and of scripts in this repository.

What they do is run elsewhere: docs/command-line.md in `tests/process/test_commands.py`, the pages that are pasted
in `tests/process/test_pasted_documents.py`, proxies, simulations, examples and units in the tests of their own.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliosd.cli.main import parser_for

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for pattern in ("*.md", "docs/*.md", "examples/*.md") for path in ROOT.glob(pattern))
TARGETS = set(re.findall(r"^([\w./$()-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
ENDS = {"|", "||", "&&", ";", ">", ">>", "<", "2>", "&", "#"}


def commands(page: Path) -> Iterator[str]:
    """Each command of a page's blocks, without its prompt, on one line."""
    for language, text in re.findall(
        r"^```(sh|console)[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        for line in text.replace("\\\n", " ").splitlines():
            if language == "sh":
                yield line
            elif line.startswith(("$ ", "# ")):
                yield line[2:]


def words_of(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    return list(lexer)


def calls_of_heliosd(command: str) -> Iterator[list[str]]:
    """The arguments of each call in a command, such as `sudo heliosd status | head`."""
    words = words_of(command)
    first = True
    for place, word in enumerate(words):
        if first and (word == "heliosd" or word.endswith("/bin/heliosd") or word == ".run/heliosd"):
            rest = words[place + 1 :]
            end = next((number for number, other in enumerate(rest) if other in ENDS), len(rest))
            yield rest[:end]
        elif word not in {"sudo", "timeout", "env"} and not re.fullmatch(r"[A-Z_]+=.*|[0-9]+", word):
            first = False
        if word in ENDS:
            first = True


def test_every_call_of_heliosd_is_one_that_the_command_line_takes() -> None:
    seen = 0
    for page in PAGES:
        for command in commands(page):
            for words in calls_of_heliosd(command):
                seen += 1
                if words and "--version" not in words and "--help" not in words:
                    try:
                        parser_for(words).parse_args(words)
                    except SystemExit:
                        pytest.fail(f"{page.name}: {command}")
    assert seen > 60


def test_every_target_of_make_is_in_the_makefile() -> None:
    named = {
        (page.name, word)
        for page in PAGES
        for command in commands(page)
        for word in re.findall(r"^make ((?:[a-z.][\w./-]* ?)*)", command)[:1]
    }
    assert len(named) > 10
    missing = {
        (page, target)
        for page, words in named
        for target in words.split()
        if target not in TARGETS and target.replace(".venv", "$(VENV)") not in TARGETS
    }
    assert missing == set()


def test_every_program_of_this_repository_that_is_called_is_there() -> None:
    called = {
        (page.name, word)
        for page in PAGES
        for command in commands(page)
        for word in re.findall(r"(?:^|\s)((?:scripts|examples|packaging|findings)/[\w./-]+)", command)
        if "/.run/" not in word  # made by the example
    }
    assert len(called) >= 3
    assert {(page, path) for page, path in called if not (ROOT / path).exists()} == set()


def test_every_block_that_is_pasted_is_a_script_that_bash_reads() -> None:
    for page in PAGES:
        for text in re.findall(r"^```sh[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            read = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
            assert (read.returncode, read.stderr) == (0, ""), (page.name, text)
