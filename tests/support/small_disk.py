"""A disk that a test can fill: a tmpfs of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from .daemon_process import lacking

INODES = 100


class SmallDisk:
    """What is mounted on `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"
        self._ballast.mkdir()

    def fill(self) -> None:
        """Leave not one byte."""
        with suppress(OSError), (self._ballast / "bytes").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def use_up_inodes(self) -> None:
        """Leave room in files that are there, but for no other file."""
        with suppress(OSError):
            for number in count():
                (self._ballast / str(number)).touch()

    def free(self) -> None:
        """Give back all that was taken."""
        for file in self._ballast.iterdir():
            file.unlink()

    def remount(self, options: str) -> None:
        """With other options, such as `ro`."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@contextmanager
def small_disk(path: Path, size: str = "4m") -> Iterator[SmallDisk]:
    """A tmpfs on the new folder `path`, until the block ends. Without the right to mount the test is skipped."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={INODES}", "tmpfs", str(path)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        lacking("this machine does not allow mounting a tmpfs")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)
