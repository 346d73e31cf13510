"""Programs in a terminal of a given size: tmux runs them, and what it shows is read back."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .daemon_process import wait_until
from .deadlines import SECONDS


class Terminal:
    """One session of a tmux server of its own."""

    def __init__(self, tmux: list[str], name: str) -> None:
        self._tmux = tmux
        self._name = name

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, timeout=SECONDS, check=True
        )
        return done.stdout

    def lines(self) -> list[str]:
        """What it shows now, without the empty lines at the end."""
        return self.command("capture-pane", "-p", "-t", self._name).rstrip("\n").split("\n")

    def wait(self, *parts: str) -> list[str]:
        """What it shows once all of these are to be seen in it."""
        shown: list[str] = []

        def there() -> bool:
            nonlocal shown
            shown = self.lines()
            return all(part in "\n".join(shown) for part in parts)

        try:
            wait_until(there)
        except AssertionError as error:
            error.add_note("\n".join(shown))
            raise
        return shown

    def resize(self, width: int, height: int) -> None:
        self.command("resize-window", "-t", self._name, "-x", str(width), "-y", str(height))

    def press(self, key: str) -> None:
        """A key by tmux's name, such as C-c."""
        self.command("send-keys", "-t", self._name, key)

    def terminate(self, number: signal.Signals) -> None:
        """Send this to the program that runs in it."""
        shell = int(self.command("display-message", "-p", "-t", self._name, "#{pane_pid}"))
        (program,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        os.kill(int(program), number)

    def is_as_before(self) -> bool:
        """Whether it shows its normal screen, with the cursor, and wraps lines."""
        modes = self.command(
            "display-message", "-p", "-t", self._name, "#{alternate_on}#{cursor_flag}#{wrap_flag}"
        )
        return modes == "011\n"


@contextmanager
def terminal(
    folder: Path, width: int, height: int, command: Sequence[str], env: Mapping[str, str]
) -> Iterator[Terminal]:
    """A terminal in which this runs; when it has ended, `ended CODE` is shown and the terminal stays. `folder` is
    for tmux's socket: its path must be short."""
    tmux = ["tmux", "-S", str(folder / f"tmux-{width}-{command[-1]}"), "-f", "/dev/null"]
    shell = f"trap : INT; {shlex.join(command)}; echo ended $?; exec sleep 3600"
    size = ["-x", str(width), "-y", str(height)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELIOS", "TMUX"))}
    subprocess.run(
        [*tmux, "new-session", "-d", "-s", "one", *size, f"exec sh -c {shlex.quote(shell)}"],
        env={**kept, **env} | {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color"},
        timeout=SECONDS,
        check=True,
    )
    opened = Terminal(tmux, "one")
    try:
        yield opened
    finally:
        opened.command("kill-server")


def assert_nothing_is_wrapped(lines: Sequence[str], width: int) -> None:
    """Every row and border of a table ends as it begins, within the width."""
    for line in lines:
        assert len(line) <= width, line
        if line.startswith(("|", "+")):
            assert line.endswith(line[0]), "\n".join(lines)
