"""The command line, from the outside: what it prints where, and with which exit code.

Each command that is tested here runs in a process of its own (`heliosd`) once or twice; its other cases are called
within the test's (`called`), which costs almost nothing.
"""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from heliosd import __version__
from heliosd.auth.passwords import DECOY, verify
from heliosd.cli.command_table import CommandEntry, CommandModule
from tests.support.command_line import exit_code_of
from tests.support.deadlines import SECONDS

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
SECRET = b"0123456789abcdef0123456789abcdef"
COMMAND = [sys.executable, "-m", "heliosd"]


def heliosd(*arguments: str | Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, with an environment that names no directories but those given."""
    kept = {
        name: value for name, value in os.environ.items() if name not in {"STATE_DIRECTORY", "XDG_STATE_HOME"}
    }
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        check=False,
        env=kept | env,
    )
    assert b"Traceback" not in done.stderr
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


Called = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Called:
    """As `heliosd`, but within the test's process. What it does not report itself is raised."""

    def call(*arguments: str | Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
        for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = exit_code_of(*map(str, arguments))
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with the user eva, its own data directory, and a key."""
    (tmp_path / "data").mkdir(mode=0o700)
    key = tmp_path / "data" / "jwt_secret"
    key.write_bytes(SECRET)
    key.chmod(0o600)
    file = tmp_path / "heliosd.toml"
    file.write_text(f"""
        [node]
        data_dir = "data"
        [[auth.users]]
        name = "eva"
        password_hash = "{DECOY}"
        roles = ["viewer"]
    """)
    return file


def test_version_and_help_are_printed_on_standard_output(called: Called) -> None:
    assert heliosd("--version").stdout == f"heliosd {__version__}\n"
    done = called("--help")
    assert done.returncode == 0
    for command in ("serve", "check-config", "hash-password", "token", "watch"):
        assert command in done.stdout
        assert called(command, "--help").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["serve"],
        ["--config"],
        ["--conf", "x"],
        ["check-config"],
        ["token", "--config", "x"],
        ["token", "--config", "x", "--user", "eva", "--ttl", "soon"],
        ["token", "--config", "x", "--user", "eva", "--ttl", "0"],
        ["token", "--config", "x", "--user", "eva", "--ttl", "101000d"],
        ["hash-password", "secret"],
    ],
)
def test_wrong_usage_is_reported_on_standard_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code = exit_code_of(*arguments)
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert "usage: heliosd" in printed.err


def test_a_process_that_was_called_wrongly_ends_with_2() -> None:
    done = heliosd("fly")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: heliosd" in done.stderr


def test_the_example_is_a_good_configuration() -> None:
    done = heliosd("check-config", "--config", EXAMPLE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{EXAMPLE}: ok\n", "")


def test_every_problem_is_printed_with_its_key(tmp_path: Path, called: Called) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[websocket]\nsend_buffer = 0\nping_intervall = 1\n[log]\nlevel = "loud"\n')
    done = called("check-config", "--config", file)
    assert done.returncode == 2
    assert sorted(line.partition(":")[0] for line in done.stdout.splitlines()) == [
        "log.level",
        "websocket.ping_intervall",
        "websocket.send_buffer",
    ]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path, called: Called) -> None:
    done = called("check-config", "--config", tmp_path / "absent.toml")
    assert done.returncode == 2
    assert "absent.toml" in done.stdout


def test_the_files_that_a_configuration_names_are_checked_too(tmp_path: Path, called: Called) -> None:
    (tmp_path / "short").write_text("short")
    (tmp_path / "cert.pem").write_text("no certificate")
    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / "bad.toml"
    file.write_text("""
        [server]
        tls_cert = "cert.pem"
        tls_key = "cert.pem"
        [auth]
        jwt_secret_file = "short"
        [cluster]
        backend = "etcd"
        [cluster.etcd]
        ca_cert = "absent.pem"
        username = "helios"
        password_file = "pipe"
    """)
    done = called("check-config", "--config", file)
    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "server.tls_cert",
        "auth.jwt_secret_file",
        "cluster.etcd.ca_cert",
        "cluster.etcd.password_file",
    ]
    assert "pipe is not a regular file" in done.stdout


def test_missing_files_are_reported_with_all_other_problems(tmp_path: Path, called: Called) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[log]\nlevel = "loud"\n[auth]\njwt_secret_file = "absent"\n')
    checked = called("check-config", file)
    assert (checked.returncode, checked.stderr) == (2, "")
    found = [line.partition(":")[0] for line in checked.stdout.splitlines()]
    assert found == ["log.level", "auth.jwt_secret_file"]
    assert [line.rpartition("(")[2] for line in checked.stdout.splitlines()] == ["line 2)", "line 4)"]
    served = heliosd("serve", "--config", file)
    assert (served.returncode, served.stdout) == (2, "")
    assert served.stderr.splitlines() == [f"heliosd: {file}: {line}" for line in checked.stdout.splitlines()]


def test_what_an_alert_names_must_be_there(tmp_path: Path, called: Called) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("""
        [[alert]]
        name = "first"
        when = "nothing"
        url = "http://127.0.0.1/"
        [[alert]]
        name = "second"
        when = "leader_lost"
        url = "http://127.0.0.1/"
        secret_file = "absent"
        [[alert]]
        name = "third"
        when = "leader_lost"
        command = ["./no-such-program", "--now"]
        [[alert]]
        name = "fourth"
        when = "leader_lost"
        command = ["true"]
    """)
    done = called("check-config", file)
    found = [(line.partition(":")[0], line.rpartition("(")[2]) for line in done.stdout.splitlines()]
    assert done.returncode == 2
    assert found == [
        ("alert[0].when", "line 4)"),
        ("alert[1].secret_file", "line 10)"),
        ("alert[2].command", "line 14)"),
    ]


def test_check_config_takes_the_file_as_an_argument_too(called: Called) -> None:
    done = called("check-config", EXAMPLE)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{EXAMPLE}: ok\n", "")


@pytest.mark.parametrize("arguments", [["serve", "--config"], ["--config"]])
def test_the_daemon_does_not_start_on_a_bad_configuration(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[websocket]\nsend_buffer = 0\nread_timeout = true\n")
    done = heliosd(*arguments, file)
    assert done.returncode == 2
    assert done.stdout == ""
    assert [line.split(": ")[:3] for line in done.stderr.splitlines()] == [
        ["heliosd", str(file), "websocket.send_buffer"],
        ["heliosd", str(file), "websocket.read_timeout"],
    ]


@pytest.mark.parametrize("given", [b"correct horse", b"correct horse\n", b"correct horse\r\n"])
def test_a_password_from_standard_input_becomes_a_hash_on_the_last_line(given: bytes, called: Called) -> None:
    done = called("hash-password", stdin=given)
    assert done.returncode == 0
    assert verify(done.stdout.splitlines()[-1], "correct horse")
    assert "correct" not in done.stdout + done.stderr


def test_a_password_is_read_from_a_pipe() -> None:
    done = heliosd("hash-password", stdin=b"correct horse\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert verify(done.stdout.strip(), "correct horse")


@pytest.mark.parametrize("given", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"x" * 1025, b"x" * 1_000_000])
def test_what_cannot_be_a_password_is_refused(given: bytes, called: Called) -> None:
    done = called("hash-password", stdin=given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("heliosd: the password ")


def on_a_terminal(*answers: str) -> tuple[int, str]:
    """Run hash-password on a terminal of its own, answering each prompt; its exit code and all that was seen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "hash-password"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        close_fds=True,
    )
    os.close(theirs)
    waiting, seen, deadline = list(answers), "", time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline and select.select([ours], [], [], SECONDS)[0]:
            try:
                seen += os.read(ours, 4096).decode()
            except OSError:  # Linux says so when the other end is closed
                break
            if waiting and seen.count(": ") > len(answers) - len(waiting):
                os.write(ours, f"{waiting.pop(0)}\n".encode())
        return process.wait(timeout=SECONDS), seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown() -> None:
    code, seen = on_a_terminal("correct horse", "correct horse")
    assert code == 0
    assert "correct" not in seen
    assert verify(seen.splitlines()[-1], "correct horse")


def test_on_a_terminal_two_different_passwords_are_refused() -> None:
    code, seen = on_a_terminal("one", "other")
    assert code == 2
    assert "differ" in seen
    assert "$argon2id$" not in seen


def test_a_token_is_all_that_is_printed(config: Path) -> None:
    before = time.time()
    done = heliosd("token", "--config", config, "--user", "eva", "--ttl", "15m")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["iss"], claims["roles"]) == ("eva", "heliosd", ["viewer"])
    assert 900 <= claims["exp"] - before <= 931


def test_a_token_holds_for_the_configured_time_by_default(config: Path, called: Called) -> None:
    config.write_text('[auth]\ntoken_ttl = "2h"\n' + config.read_text())
    token = called("token", "--config", config, "--user", "eva").stdout.strip()
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert 7200 <= claims["exp"] - claims["iat"] <= 7201


def test_a_token_for_an_unknown_user_is_wrong_usage(config: Path, called: Called) -> None:
    done = called("token", "--config", config, "--user", "adam")
    assert (done.returncode, done.stdout) == (2, "")
    assert "adam" in done.stderr


def test_a_token_without_a_key_makes_none_and_says_what_is_missing(config: Path, called: Called) -> None:
    key = config.parent / "data" / "jwt_secret"
    key.unlink()
    done = called("token", "--config", config, "--user", "eva")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(key) in done.stderr
    assert not key.exists()


def test_a_token_without_a_data_directory_makes_none(tmp_path: Path, called: Called) -> None:
    done = called("token", "--config", EXAMPLE, "--user", "admin", XDG_STATE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "jwt_secret" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_user_of_the_first_start_can_have_a_token(config: Path, called: Called) -> None:
    config.write_text('[node]\ndata_dir = "data"\n')
    assert called("token", "--config", config, "--user", "admin").returncode == 2
    (config.parent / "data" / "admin_password_hash").write_text(DECOY + "\n")
    done = called("token", "--config", config, "--user", "admin")
    assert jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])["roles"] == ["admin"]


@pytest.fixture
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell: with PYTHONUNBUFFERED a write fails at once, and not only when the output is flushed."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.mark.usefixtures("buffered")
@pytest.mark.parametrize(
    "arguments",
    [["token", "--config", "heliosd.toml", "--user", "eva"], ["check-config", "absent"], ["--help"]],
)
def test_a_closed_standard_output_ends_any_command_quietly(arguments: list[str], config: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
            cwd=config.parent,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.usefixtures("buffered")
@pytest.mark.parametrize("arguments", [["check-config", str(EXAMPLE)], ["completion", "bash"], ["--help"]])
def test_output_that_a_disk_does_not_take_is_a_failure_in_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=SECONDS, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"heliosd: [Errno 28] No space left on device\n")


def test_ctrl_c_while_the_command_is_still_being_loaded_ends_it_quietly(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(entry: CommandEntry) -> CommandModule:
        raise KeyboardInterrupt

    monkeypatch.setattr(CommandEntry, "load", interrupted)
    assert exit_code_of("status") == 130
    assert capfd.readouterr().err == ""
