"""A Debian release in a folder, by debootstrap: packages are installed there, and programs run there, as root."""

from __future__ import annotations

import os
import shlex
import shutil
import socket as stdlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from heliosd import __version__

from .daemon_process import Daemon, lacking, logging_process

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "debian"
"""Each release is fetched once."""
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
INCLUDE = "python3,adduser"
UNIT = "usr/lib/systemd/system/heliosd.service"


class DebianRoot:
    """One installed system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str) -> str:
        """Run a command there and return what it prints."""
        done = subprocess.run(self.inside(command), capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def inside(self, command: Sequence[str], user: str = "root") -> list[str]:
        """The command as seen from outside. Its mounts end with it; it keeps its process id."""
        place = shlex.quote(str(self.path))
        script = f'mount -t proc proc {place}/proc && exec chroot --userspec={user}:{user} {place} "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *command]

    def install(self, package: Path) -> None:
        """Install a package file, or upgrade to it."""
        (self.path / "tmp" / package.name).write_bytes(package.read_bytes())
        self.run("dpkg", "--install", f"/tmp/{package.name}")

    def files(self) -> set[str]:
        """Every file, apart from the records of apt, dpkg and the user database."""
        found = set()
        for folder, below, names in os.walk(self.path):
            inside = "/" + os.path.relpath(folder, self.path)
            if inside in {"/proc", "/var/lib/dpkg", "/var/log", "/var/cache", "/tmp", "/run"}:
                below.clear()
                continue
            found |= {f"{inside}/{name}".replace("/./", "/") for name in [*below, *names]}
        return {name for name in found if name.rstrip("-") not in USER_DATABASE}

    def unit_lines(self, name: str) -> list[str]:
        """The values of that name in the installed unit of the service."""
        lines = (self.path / UNIT).read_text().splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith(f"{name}=")]

    def unit(self, name: str) -> str:
        """The one value of that name."""
        (value,) = self.unit_lines(name)
        return value

    @contextmanager
    def service(self, listener: stdlib.socket) -> Iterator[Daemon]:
        """The service as its unit starts it behind heliosd.socket: with its command and user, on `listener`."""
        state = f"/var/lib/{self.unit('StateDirectory')}"
        env = ["env", "-i", f"STATE_DIRECTORY={state}", "LISTEN_FDS=1", "PATH=/usr/bin:/bin"]
        command = self.inside([*env, *shlex.split(self.unit("ExecStart"))], self.unit("User"))
        passes = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execvp(sys.argv[2], sys.argv[2:])"
        listener.set_inheritable(True)
        number = str(listener.fileno())
        with logging_process(
            [sys.executable, "-c", passes, number, *command],
            self.path / "etc/heliosd/heliosd.toml",
            {},
            pass_fds=(listener.fileno(),),
        ) as daemon:
            daemon.wait_listening()
            yield daemon


USER_DATABASE = {
    f"/etc/{name}" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid", ".pwd.lock")
}


@contextmanager
def debian_root(release: str, folder: Path) -> Iterator[DebianRoot]:
    """A fresh system of that release in `folder`, removed when the block ends."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        lacking("this needs root, and Debian's debootstrap")
    whole = CACHE / release
    if not (whole / ".whole").exists():
        shutil.rmtree(whole, ignore_errors=True)
        whole.parent.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", release, str(whole), MIRROR]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (whole / ".whole").touch()
    path = folder / release
    subprocess.run(["cp", "-a", "--reflink=auto", str(whole), str(path)], check=True)
    try:
        yield DebianRoot(path)
    finally:
        shutil.rmtree(path)


def build_package(folder: Path) -> Path:
    """The Debian package with revision 0, in `folder`: of this heliosd, or with HELIOSD_DEB from that file."""
    package = folder / f"heliosd_{__version__}-0_amd64.deb"
    if built := os.environ.get("HELIOSD_DEB"):
        return renumbered(Path(built), "0", package)
    command = [sys.executable, "packaging/build_deb.py", "--out", str(folder), "--revision", "0"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return package


def renumbered(package: Path, revision: str, target: Path | None = None) -> Path:
    """The same package with another revision, beside it or as `target`."""
    target = target or package.with_name(f"heliosd_{__version__}-{revision}_amd64.deb")
    tree = target.with_suffix(".tree")
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    numbered = f"Version: {__version__}-{revision}\n"
    control.write_text("".join(numbered if line.startswith("Version:") else line for line in lines))
    # What it weighs does not matter here, and the usual compression takes most of a minute on a busy machine.
    rebuild = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(target)]
    subprocess.run(rebuild, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return target
