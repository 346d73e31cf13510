"""Pages of docs/ whose blocks are pasted one after the other, as their reader does it.

A block of the language `sh` is pasted into one shell. One that is marked `keeps-running` has a terminal of its own;
the next block is pasted once it has printed the last line of the `text` block that shows what it prints.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .daemon_process import wait_until

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KEEPS_RUNNING = "keeps-running"
KEPT = ".pasted-variables"
_BLOCK = re.compile(r"^```(sh|text|console)( [\w-]+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """What is pasted. `shown`: what stands below it as printed by it."""

    text: str
    keeps_running: bool
    shown: str


def copy_of_the_repository(folder: Path) -> Path:
    """As after a clone and `make run`: the same virtual environment, which nothing installs into again."""
    unwanted = shutil.ignore_patterns(".venv", ".git", ".run", "build", "dist", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=unwanted)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    for name in ("pyproject.toml", "constraints.txt", "requirements.lock"):
        os.utime(folder / name, (0, 0))  # older than the environment
    return folder


def blocks(page: str, section: str = "") -> list[Block]:
    """The blocks of a page of docs/ that are pasted, or of one of its sections."""
    text = (DOCS / page).read_text(encoding="utf-8")
    if section:
        text = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    found: list[Block] = []
    for language, mark, content in _BLOCK.findall(text):
        if language == "text" and found:
            found[-1] = Block(found[-1].text, found[-1].keeps_running, content)
        elif language == "sh":
            found.append(Block(content, mark.strip() == KEEPS_RUNNING, ""))
    return found


class Pasted:
    """What the pasted blocks have printed so far: each of the running terminals, and the shell."""

    def __init__(
        self, prefix: Sequence[str], inside: Path, env: Mapping[str, str], swaps: Mapping[str, str]
    ) -> None:
        self._prefix = list(prefix)
        self._inside = inside
        self._env = {**os.environ, **env}
        self._swaps = swaps
        self._until_closed = ExitStack()
        self._outputs = Path(self._until_closed.enter_context(tempfile.TemporaryDirectory(prefix="pasted-")))
        self.running: list[Path] = []
        self.shell = ""

    def paste(
        self, page: str, section: str = "", *, look: Callable[[Block], None] = lambda block: None
    ) -> None:
        """All blocks in their order. Every one of the shell must end well. `look` is called after each: it waits
        for what a reader sees before going on."""
        for block in blocks(page, section):
            self.paste_block(block)
            look(block)

    def paste_block(self, block: Block) -> None:
        text = block.text
        for old, new in self._swaps.items():
            text = text.replace(old, new)
        if block.keeps_running:
            self._start(text, block.shown, self._outputs / f"terminal-{len(self.running)}")
        else:
            self._run(text)

    def _start(self, text: str, shown: str, path: Path) -> None:
        with path.open("w") as output:
            process = subprocess.Popen(
                [*self._prefix, "bash", "-c", f"cd {self._inside}\n{text}"],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(path)
        self._until_closed.callback(_end, process)
        last = shown.split("\n")[-2].split() if shown else []
        if last:
            pattern = re.compile(rf"^ *{re.escape(last[0])} ", re.MULTILINE)
            wait_until(
                lambda: bool(pattern.search(path.read_text())) or process.poll() is not None, seconds=600
            )
            assert process.poll() is None, path.read_text()

    def _run(self, text: str) -> None:
        # Variables of one block are used in the next, so all that came before is kept in a file of the shell.
        script = (
            f"cd {self._inside}\n[ ! -e {KEPT} ] || . {KEPT}\nset -eo pipefail\n{text}\n"
            f"declare -p password token epoch > {KEPT} 2>/dev/null || true"
        )
        done = subprocess.run(
            [*self._prefix, "bash", "-c", script],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        self.shell += done.stdout + done.stderr
        assert done.returncode == 0, f"{text}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"

    def close(self) -> None:
        """End what keeps running, the last first, as Ctrl-C does."""
        self._until_closed.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def pasting(
    inside: Path,
    *,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    swaps: Mapping[str, str] | None = None,
) -> Iterator[Pasted]:
    """Terminals in the folder `inside`. `prefix` is put before every command, `swaps` are texts that are pasted
    differently, such as a port that is taken."""
    pasted = Pasted(prefix, inside, env or {}, swaps or {})
    try:
        yield pasted
    finally:
        pasted.close()
