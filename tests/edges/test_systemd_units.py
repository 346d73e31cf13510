"""The units in systemd/, held against systemd's own check and against what heliosd does."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heliosd.config.model import ServerConfig

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"


def settings(unit: str, section: str) -> dict[str, list[str]]:
    """The settings of one section; a name may stand more than once."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in (UNITS / unit).read_text().splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif current == section and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


SERVICE = settings("heliosd.service", "Service")


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is missing: install the package systemd")
        pytest.skip("systemd-analyze is not installed")
    # The check wants the command to exist, so the copy names one that does.
    installed = shlex.split(SERVICE["ExecStart"][0])[0]
    service = (UNITS / "heliosd.service").read_text()
    (tmp_path / "heliosd.service").write_text(
        service.replace(f"ExecStart={installed}", f"ExecStart={sys.executable}")
    )
    shutil.copy(UNITS / "heliosd.socket", tmp_path)
    (tmp_path / "heliosd.service.d").mkdir()
    shutil.copy(UNITS / "socket-activation.conf", tmp_path / "heliosd.service.d")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    result = subprocess.run(
        [*command, tmp_path / "heliosd.service", tmp_path / "heliosd.socket"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_service_runs_the_command_that_the_documentation_installs() -> None:
    program, *arguments = shlex.split(SERVICE["ExecStart"][0])
    assert arguments == ["serve", "--config", "/etc/heliosd/config.toml"]
    page = (ROOT / "docs" / "systemd.md").read_text()
    assert f"python3 -m venv {Path(program).parents[1]}\n" in page
    assert f"`{SERVICE['ExecStart'][0]}`" in page


def test_stopping_has_longer_than_the_grace_for_clients() -> None:
    assert int(SERVICE["TimeoutStopSec"][0]) > ServerConfig().shutdown_grace + 5


def test_the_service_passes_what_heliosd_looks_for() -> None:
    assert SERVICE["Type"] == ["notify"]
    assert SERVICE["StateDirectory"] == ["heliosd"]
    assert [value.partition(":")[0] for value in SERVICE["LoadCredential"]] == ["jwt_secret"]
    assert SERVICE["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_the_socket_is_on_loopback_and_the_one_that_heliosd_would_open() -> None:
    (listen,) = ServerConfig().listen
    assert settings("heliosd.socket", "Socket")["ListenStream"] == [f"{listen.host}:{listen.port}"]
