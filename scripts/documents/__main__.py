"""Writes the pages that are made from the code; with `--check` it says which are out of date, and exits with 1."""

from __future__ import annotations

import sys
from pathlib import Path

from .configuration import configuration_page
from .messages import messages_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"messages.md": messages_page, "configuration.md": configuration_page}


def outdated() -> list[str]:
    """The pages that are not as they would be made now."""
    return [name for name, make in PAGES.items() if (DOCS / name).read_text(encoding="utf-8") != make()]


def main() -> int:
    if "--check" in sys.argv[1:]:
        for name in outdated():
            print(f"docs/{name} is out of date: make documents", file=sys.stderr)
        return 1 if outdated() else 0
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
