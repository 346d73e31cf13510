"""`heliosd reset-password`: in the configuration and for the first start's user, with and without a daemon."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest

from heliosd.auth.first_start import kept_admin
from heliosd.auth.passwords import hash_password, verify
from heliosd.config.loader import load
from tests.support.command_line import exit_code_of
from tests.support.daemon_process import PASSWORD, Daemon, close_code, running, write_config
from tests.support.deadlines import SECONDS

NEW = "battery staple"


def reset(monkeypatch: pytest.MonkeyPatch, config: Path, user: str, state: Path) -> int:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{NEW}\n".encode())))
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    return exit_code_of("reset-password", "--config", str(config), user)


def login(daemon: Daemon, user: str, password: str) -> int:
    return httpx.post(
        f"{daemon.url}/api/auth/login",
        json={"username": user, "password": password},
        timeout=SECONDS,
        verify=False,
    ).status_code


def test_a_running_daemon_takes_it_and_ends_the_sessions_of_that_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    config.chmod(0o640)
    with running(tmp_path, config) as daemon:
        viewer, admin = daemon.token("viewer"), daemon.token("admin")
        with daemon.connect(viewer) as theirs, daemon.connect(admin) as other:
            other.recv(SECONDS)
            assert reset(monkeypatch, config, "viewer", tmp_path / "state") == 0
            daemon.wait_logged(lambda line: line.get("event") == "configuration reloaded")
            assert close_code(theirs) == 4401
            other.ping().wait(SECONDS)
        assert [login(daemon, "viewer", password) for password in (PASSWORD, NEW)] == [401, 200]
        assert login(daemon, "admin", PASSWORD) == 200
        assert config.stat().st_mode & 0o777 == 0o640
        assert daemon.stop() == 0


def test_a_daemon_that_must_refuse_the_reload_is_named_and_keeps_the_old_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 4)
    key.chmod(0o600)
    config = write_config(tmp_path, auth=f'jwt_secret_file = "{key}"')
    with running(tmp_path, config) as daemon:
        key.unlink()
        assert reset(monkeypatch, config, "viewer", tmp_path / "state") == 1
        said = capsys.readouterr().err
        assert "auth.jwt_secret_file" in said
        assert "the old password holds" in said
        assert [login(daemon, "viewer", password) for password in (PASSWORD, NEW)] == [200, 401]


def test_where_no_daemon_is_found_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(hash=hash_password(PASSWORD)))
    assert reset(monkeypatch, config, "anna", tmp_path / "state") == 0
    assert f"no heliosd runs on {tmp_path / 'state'}" in capsys.readouterr().err


CONFIG = """
# The users of this site.
[[auth.users]]
name = "anna"       # first
password_hash = '{hash}'  # old
roles = ["admin"]

[[auth.users]]
roles = ["viewer"]
"password_hash" = "{hash}"
name = "bob"
"""


def test_only_the_hash_of_that_user_changes_in_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    before = CONFIG.format(hash=hash_password(PASSWORD))
    for user in ("anna", "bob"):
        config.write_text(before)
        assert reset(monkeypatch, config, user, tmp_path / "state") == 0
        users = {each.name: each.password_hash for each in load(config).auth.users}
        assert verify(users[user], NEW)
        changed = [
            (old, new)
            for old, new in zip(before.splitlines(), config.read_text().splitlines(), strict=True)
            if old != new
        ]
        assert len(changed) == 1
        assert changed[0][1].endswith("# old") == (user == "anna")


def test_a_hash_that_cannot_be_changed_by_itself_is_left_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    each = '{{ name = "{name}", password_hash = "{hash}", roles = ["admin"] }}'
    users = ", ".join(each.format(name=name, hash=hash_password(PASSWORD)) for name in ("anna", "bob"))
    config.write_text(f"[auth]\nusers = [ {users} ]\n")
    before = config.read_text()
    assert reset(monkeypatch, config, "bob", tmp_path / "state") == 1
    assert config.read_text() == before
    error = capsys.readouterr().err
    assert "unchanged" in error
    assert "$argon2id$" in error


def test_the_first_start_s_user_gets_another_password_while_the_daemon_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = tmp_path / "config.toml", tmp_path / "state"
    config.write_text("[log]\nlevel = 'info'\n")
    state.mkdir()
    (state / "admin_password_hash").write_text(hash_password(PASSWORD))
    (state / "admin_password").write_text(PASSWORD)
    assert reset(monkeypatch, config, "admin", state) == 0
    admin = kept_admin(state)
    assert admin is not None
    assert verify(admin.password_hash, NEW)
    assert not (state / "admin_password").exists()
    assert reset(monkeypatch, config, "nobody", state) == 2
