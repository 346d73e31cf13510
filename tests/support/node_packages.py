"""Node's package ws, for tests that run a WebSocket client of Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .daemon_process import lacking

EXAMPLE = Path(__file__).parents[2] / "examples" / "javascript"
DEBIAN_WS = Path("/usr/share/nodejs/ws")
INSTALL_SECONDS = 120.0


def copy_of_javascript(folder: Path) -> Path:
    """A copy of examples/javascript as `folder`, with the package that a Node older than 22 needs."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    asked = ["node", "--print", "typeof WebSocket"]
    if subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() != "function":
        provide_ws(folder)
    return folder


def provide_ws(folder: Path) -> None:
    """Let Node find the package ws from `folder`: Debian's, else npm's. Skips the test where there is neither."""
    if DEBIAN_WS.is_dir():
        (folder / "node_modules").mkdir()
        (folder / "node_modules" / "ws").symlink_to(DEBIAN_WS)
        return
    if shutil.which("npm") is None:
        lacking("Node's package ws: neither node-ws nor npm is installed")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(EXAMPLE / name, folder)
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if installed.returncode != 0:
        lacking(f"npm cannot fetch Node's package ws: {installed.stderr[-500:]}")
