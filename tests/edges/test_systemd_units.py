"""The units in systemd/, held against systemd's own check and against what heliosd does."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heliosd.config.model import ServerConfig
from heliosd.daemon.main import EXIT_USAGE
from tests.support.daemon_process import lacking

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


INSTANCE = settings("heliosd@.service", "Service")


def systemd_analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        lacking("systemd-analyze is missing: install the package systemd")
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    # The check wants the command to exist, so the copies name one that does.
    installed = shlex.split(SERVICE["ExecStart"][0])[0]
    for unit in UNITS.glob("*.service"):
        text = unit.read_text().replace(f"ExecStart={installed}", f"ExecStart={sys.executable}")
        (tmp_path / unit.name.replace("@", "@one")).write_text(text)
    shutil.copy(UNITS / "heliosd.socket", tmp_path)
    (tmp_path / "heliosd.service.d").mkdir()
    for drop_in in UNITS.glob("*.conf"):
        shutil.copy(drop_in, tmp_path / "heliosd.service.d")
    units = [tmp_path / name for name in ("heliosd.service", "heliosd@one.service", "heliosd.socket")]
    result = systemd_analyze("verify", "--man=no", "--recursive-errors=no", *units)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", ["heliosd.service", "heliosd@.service"])
def test_systemd_rates_the_services_as_closed(unit: str) -> None:
    result = systemd_analyze("security", "--offline=true", "--threshold=15", UNITS / unit)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_instance_is_the_service_with_its_own_configuration_and_state() -> None:
    differing = {name for name in SERVICE | INSTANCE if SERVICE.get(name) != INSTANCE.get(name)}
    assert differing == {"ExecStart", "StateDirectory", "RuntimeDirectory"}
    assert INSTANCE["ExecStart"] == [SERVICE["ExecStart"][0].replace("heliosd.toml", "%i.toml")]
    assert INSTANCE["StateDirectory"] == INSTANCE["RuntimeDirectory"] == ["heliosd/%i"]


def test_the_service_runs_the_command_that_the_documentation_names() -> None:
    (command,) = SERVICE["ExecStart"]
    assert f"`{command}`" in (ROOT / "docs" / "systemd.md").read_text()
    config = shlex.split(command)[-1]
    for page in ("install.md", "operating.md"):
        assert config in (ROOT / "docs" / page).read_text()


def test_what_heals_is_tried_for_ever_and_a_wrong_configuration_is_not() -> None:
    assert settings("heliosd.service", "Unit")["StartLimitIntervalSec"] == ["0"]
    assert SERVICE["RestartPreventExitStatus"] == [str(EXIT_USAGE)]


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
