"""`make deb`: a Debian package for Debian 12 and 13 in dist/.

It has heliosd and the Python packages that it needs, at the versions of constraints.txt, in /usr/lib/heliosd, for
the system's own Python. Pure modules are the same for every Python; the compiled ones of each stand beside each
other, since the Python version is in their names. So one package serves both releases, and an upgrade of Debian
needs no other. docs/decisions.md says why it is no virtual environment.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from heliosd import __version__

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
"""Of Debian 12, Ubuntu 24.04 and Debian 13. The first decides where files differ that do not matter."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBCS = ("2014", "_2_17", "_2_28", "_2_34", "_2_35", "_2_36")
"""Wheels for these C libraries and older; Debian 12 has 2.36."""
CONTROL = """\
Package: heliosd
Version: {version}
Architecture: {architecture}
Maintainer: The heliosd authors <heliosd@localhost>
Installed-Size: {kilobytes}
Depends: python3 (>= 3.11), python3 (<< 3.14), adduser, libc6 (>= 2.36)
Suggests: systemd, etcd-server
Section: net
Priority: optional
Homepage: https://heliosd.invalid/
Description: live view of a Raft cluster
 heliosd pushes to people and programs, over WebSocket and server-sent events, what happens in a
 Raft cluster: leaders elected and lost, members that come, go and fail, snapshots, metrics. It
 watches an etcd cluster, or runs a simulated one.
"""

ENTRY = """\
heliosd ({version}) stable; urgency=medium

  * See changelog.gz.

 -- The heliosd authors <heliosd@localhost>  Thu, 01 Jan 1970 00:00:00 +0000
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--revision", default="1", help="of the package, behind heliosd's version")
    parser.add_argument("--architecture", choices=MACHINES, default="amd64")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    version = f"{__version__}-{chosen.revision}"
    os.umask(0o022)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        _modules(Path(scratch), tree / "usr/lib/heliosd", chosen.architecture)
        _files(tree, version)
        _control(tree, version, chosen.architecture)
        package = chosen.out / f"heliosd_{version}_{chosen.architecture}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(package)], check=True
        )


def _modules(scratch: Path, into: Path, architecture: str) -> None:
    """heliosd and what it needs, for each Python in one folder."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(scratch), str(ROOT)], check=True)
    (wheel,) = scratch.glob("heliosd-*.whl")
    machine = MACHINES[architecture]
    platforms = [f"--platform=manylinux{glibc}_{machine}" for glibc in GLIBCS]
    for python in PYTHONS:
        target = scratch / python
        subprocess.run(
            [*pip, "install", "--no-compile", "--only-binary=:all:", f"--python-version={python}", *platforms]
            + ["--constraint", str(ROOT / "constraints.txt"), "--target", str(target), str(wheel)],
            check=True,
        )
        shutil.rmtree(target / "bin", ignore_errors=True)
        _merge(target, into)


def _merge(target: Path, into: Path) -> None:
    """Add what is not there. Files of the same name must be equal, apart from the records of the installation."""
    for file in sorted(path for path in target.rglob("*") if path.is_file()):
        place = into / file.relative_to(target)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, place)
        elif place.read_bytes() != file.read_bytes() and file.parent.suffix != ".dist-info":
            sys.exit(f"{file.relative_to(target)} differs between Python versions")


def _files(tree: Path, version: str) -> None:
    """The command, the units, the configuration, the documentation."""
    _install(ROOT / "packaging/debian/heliosd", tree / "usr/bin/heliosd", 0o755)
    for unit in ("heliosd.service", "heliosd@.service", "heliosd.socket"):
        _install(ROOT / "systemd" / unit, tree / "usr/lib/systemd/system" / unit)
    doc = tree / "usr/share/doc/heliosd"
    for drop_in in ("socket-activation.conf", "etcd-certificates.conf"):
        _install(ROOT / "systemd" / drop_in, doc / "examples" / drop_in)
    _install(ROOT / "config.example.toml", doc / "examples/heliosd.toml")
    _install(ROOT / "packaging/debian/copyright", doc / "copyright")
    for page in (ROOT / "docs").iterdir():
        if page.is_file():  # the pictures are the README's, which is not installed
            _install(page, doc / page.name)
    _compress((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), doc / "changelog.gz")
    _compress(ENTRY.format(version=version), doc / "changelog.Debian.gz")
    with tempfile.TemporaryDirectory() as pages:
        subprocess.run([sys.executable, str(ROOT / "packaging/man_pages.py"), pages], check=True)
        for page in Path(pages).iterdir():
            section = page.suffix.removeprefix(".")
            _compress(page.read_text(encoding="utf-8"), tree / f"usr/share/man/man{section}/{page.name}.gz")
    for shell, place in (
        ("bash", "bash-completion/completions/heliosd"),
        ("zsh", "zsh/vendor-completions/_heliosd"),
        ("fish", "fish/vendor_completions.d/heliosd.fish"),
    ):
        script = subprocess.run(
            [sys.executable, "-m", "heliosd", "completion", shell], check=True, capture_output=True, cwd=ROOT
        )
        target = tree / "usr/share" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(script.stdout)
    # The commands that work on the data directory must find it without systemd.
    config = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    unset = 'data_dir = "" '
    if config.count(unset) != 1:
        sys.exit("config.example.toml has no data_dir to set")
    target = tree / "etc/heliosd/heliosd.toml"
    target.parent.mkdir(parents=True)
    target.write_text(config.replace(unset, 'data_dir = "/var/lib/heliosd" '), encoding="utf-8")
    target.chmod(0o640)


def _control(tree: Path, version: str, architecture: str) -> None:
    control = tree / "DEBIAN"
    control.mkdir()
    kilobytes = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    (control / "control").write_text(
        CONTROL.format(version=version, architecture=architecture, kilobytes=kilobytes)
    )
    (control / "conffiles").write_text("/etc/heliosd/heliosd.toml\n")
    for script in ("postinst", "prerm", "postrm"):
        _install(ROOT / "packaging/debian" / script, control / script, 0o755)


def _install(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _compress(text: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
