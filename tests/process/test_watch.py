"""`heliosd watch`, as its user runs it, against a daemon that is restarted, killed, and too fast for it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.certificates import self_signed
from tests.support.command_line import exit_code_of
from tests.support.daemon_process import PASSWORD, Daemon, running, wait_until, write_config
from tests.support.deadlines import SECONDS
from tests.support.ports import free_port

COMMAND = [sys.executable, "-m", "heliosd", "watch"]
METRICS = "/api/cluster/custom-metrics"
QUIET = "status_interval = 600.0\nlatency_interval = 600.0\nuptime_interval = 600.0"


def environment(daemon: Daemon | None = None, /, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HELIOSD_")}
    if daemon is not None:
        kept |= {"HELIOSD_URL": daemon.url, "HELIOSD_USER": "admin", "HELIOSD_PASSWORD": PASSWORD}
    return kept | more


class Watch:
    """A running watch. Its standard output is read by a thread that the test can pause."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.complaints: list[str] = []
        self.reading = threading.Event()
        self.reading.set()
        assert process.stdout is not None
        assert process.stderr is not None
        self._threads = [
            threading.Thread(target=self._read, args=(process.stdout, self.lines)),
            threading.Thread(target=self._read, args=(process.stderr, self.complaints)),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line)
            if lines is self.lines:
                self.reading.wait()

    def wait(self, *parts: str, lines: list[str] | None = None) -> str:
        """The first line with all of these."""
        among = self.lines if lines is None else lines

        def found() -> str | None:
            return next((line for line in list(among) if all(part in line for part in parts)), None)

        try:
            wait_until(lambda: found() is not None or self.process.poll() is not None)
        finally:
            line = found()
            assert line is not None, f"{parts} not in {among[-15:]}; {self.complaints[-5:]}"
        return line

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines)]

    def events(self) -> list[int]:
        return [message["seq"] for message in self.messages() if "seq" in message]

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)

    def join(self) -> None:
        self.reading.set()
        for thread in self._threads:
            thread.join(SECONDS)


@contextmanager
def watching(*arguments: str | Path, env: dict[str, str]) -> Iterator[Watch]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    watch = Watch(process)
    try:
        yield watch
    finally:
        process.kill()
        process.wait(SECONDS)
        watch.join()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


Once = Callable[..., tuple[int, str, str]]


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Once:
    """Run one that ends by itself, within the test's process: its exit code, its output and its complaints."""

    def run(*arguments: str | Path, env: dict[str, str]) -> tuple[int, str, str]:
        for name in ("HELIOSD_URL", "HELIOSD_USER", "HELIOSD_PASSWORD", "HELIOSD_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        code = exit_code_of("watch", *map(str, arguments))
        return code, *capfd.readouterr()

    return run


def register(http: httpx.Client, name: str, help_text: str = "") -> None:
    answer = http.post(METRICS, json={"name": name, "type": "gauge", "help": help_text})
    assert answer.status_code == 201, answer.text


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("watch"), websocket=QUIET) as started:
        yield started


# -- what is shown ------------------------------------------------------------------------------------------------


def test_events_are_printed_in_words(daemon: Daemon) -> None:
    with watching(env=environment(daemon)) as watch, daemon.client() as http:
        watch.wait("node-1 is ", " leads")
        watch.wait("connected to", lines=watch.complaints)
        peer = {"id": "in_words", "address": "127.0.0.1:7099"}
        assert http.post("/api/cluster/peers", json=peer).status_code == 201
        watch.wait("peer in_words at 127.0.0.1:7099 added")
        register(http, "in_words")
        watch.wait("metric in_words registered (gauge)")
        http.put(METRICS, json={"name": "in_words", "value": 123456789.5})
        wait_until(lambda: "123456789.5" in http.get(METRICS, params={"name": "in_words"}).text)
        http.delete(METRICS, params={"name": "in_words"})
        watch.wait("metric in_words deleted")
        http.request("DELETE", "/api/cluster/peers", json={"id": "in_words"})
        watch.wait("peer in_words", "removed")
        assert watch.interrupt() == 130
        watch.join()
        assert "\x1b" not in "".join(watch.lines)
        assert "123456789.5" not in "".join(watch.lines)
        assert "--since" in watch.complaints[-1]
        assert not any("Traceback" in line for line in watch.complaints)


def test_values_are_printed_when_they_are_asked_for(daemon: Daemon) -> None:
    with (
        watching("--types", "custom_metrics", env=environment(daemon)) as watch,
        daemon.client() as http,
    ):
        watch.wait("node-1 is ")
        register(http, "asked_for")
        http.put(METRICS, json={"name": "asked_for", "value": 123456789.5})
        watch.wait("asked_for = 123456789.5")


def test_with_json_every_message_is_a_line_as_it_was_received(daemon: Daemon) -> None:
    with watching("--json", env=environment(daemon)) as watch, daemon.client() as http:
        watch.wait('"type":"status"')
        register(http, "as_json")
        watch.wait('"as_json"')
        types = [message["type"] for message in watch.messages()]
        assert types[:3] == ["connected", "welcome", "status"]
        assert watch.interrupt() == 130
        assert watch.complaints == []


def test_types_narrow_what_is_shown(daemon: Daemon) -> None:
    with (
        watching("--json", "--types", "peer_changes,snapshot", env=environment(daemon)) as watch,
        daemon.client() as http,
    ):
        watch.wait('"type":"status"')
        register(http, "not_shown")
        assert http.post("/api/cluster/snapshot").status_code == 201
        watch.wait('"type":"snapshot"')
        assert "not_shown" not in "".join(line for line in watch.lines if '"seq"' in line)


@pytest.mark.extended
def test_since_begins_where_an_earlier_run_stopped(daemon: Daemon) -> None:
    with daemon.client() as http:
        with watching("--json", env=environment(daemon)) as watch:
            watch.wait('"type":"status"')
            (welcome,) = [m["data"] for m in watch.messages() if m["type"] == "welcome"]
            watch.interrupt()
        register(http, "while_away")
        since = f"{welcome['epoch']}:{welcome['seq']}"
        with watching("--json", "--since", since, env=environment(daemon)) as watch:
            watch.wait('"while_away"', '"seq"')
            wait_until(lambda: any(m["type"] == "status" for m in watch.messages()))
            assert watch.events() == [welcome["seq"] + 1]
        with watching("--since", f"another-epoch:{welcome['seq']}", env=environment(daemon)) as watch:
            watch.wait("GAP", "a new count")


def test_on_a_terminal_there_is_colour_unless_it_is_not_wanted(daemon: Daemon) -> None:
    def seen(**env: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            COMMAND, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(daemon, TERM="xterm", **env)
        )
        os.close(theirs)
        shown, deadline = "", time.monotonic() + SECONDS
        try:
            while " healthy" not in shown and time.monotonic() < deadline:
                if select.select([ours], [], [], 1)[0]:
                    shown += os.read(ours, 4096).decode()
        finally:
            process.kill()
            process.wait(SECONDS)
            os.close(ours)
        assert " healthy" in shown
        return shown

    colour = re.compile("\x1b\\[[1-9][0-9;]*m")
    assert colour.search(seen(NO_COLOR=""))
    assert not colour.search(seen(NO_COLOR="1"))


# -- its user -----------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_reported_in_one_line(daemon: Daemon, once: Once) -> None:
    error = f"heliosd: Invalid credentials (admin at {daemon.url})\n"
    assert once(env=environment(daemon, HELIOSD_PASSWORD="wrong")) == (4, "", error)


def test_a_user_without_the_permission_to_watch_gets_that_reason(daemon: Daemon, once: Once) -> None:
    code, printed, complaint = once("--user", "nobody", env=environment(daemon))
    assert (code, printed) == (4, "")
    assert "permission" in complaint


@pytest.mark.extended
def test_files_hold_the_secrets(daemon: Daemon, once: Once, tmp_path: Path) -> None:
    secret, token, wrong = tmp_path / "password", tmp_path / "token", tmp_path / "wrong"
    secret.write_text(PASSWORD + "\n")
    token.write_text(daemon.token("viewer") + "\n")
    wrong.write_text("eyJ.wrong.token\n")
    url = {"HELIOSD_URL": daemon.url}
    ways: list[list[str | Path]] = [["--user", "viewer", "--password-file", secret], ["--token-file", token]]
    for arguments in ways:
        with watching(*arguments, env=environment(**url)) as watch:
            watch.wait("node-1 is ")
            command_line = Path(f"/proc/{watch.process.pid}/cmdline").read_bytes()
            assert PASSWORD.encode() not in command_line
    with watching("--url", daemon.url, env=environment(HELIOSD_TOKEN=token.read_text().strip())) as watch:
        watch.wait("node-1 is ")
    error = f"heliosd: Invalid token (the token of {wrong} at {daemon.url})\n"
    assert once("--token-file", wrong, env=environment(**url)) == (4, "", error)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--since", "5"], "EPOCH:SEQ"),
        (["--types", "weather"], "weather"),
        (["--url", "localhost:8080"], "URL"),
        (["--url", "http://admin:hidden@localhost"], "password"),
        (["--token-file", "/nonexistent"], "/nonexistent"),
        (["--token-file", "/dev/null"], "one line"),
        (["--token-file", "/dev/null", "--user", "a"], "not both"),
        (["--user", "a", "--password-file", "/nonexistent"], "/nonexistent"),
        (["--user", "a"], "HELIOSD_PASSWORD"),
        ([], "HELIOSD_USER"),
        (["--password", "secret"], "--password"),
        (["--token", "secret"], "--token"),
    ],
)
def test_wrong_usage_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    for name in ("HELIOSD_URL", "HELIOSD_USER", "HELIOSD_PASSWORD", "HELIOSD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    code = exit_code_of("watch", *arguments)
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert word in printed.err
    assert "hidden" not in printed.err


@pytest.mark.extended
def test_over_tls(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    with running(tmp_path, server=f'tls_cert = "{cert}"\ntls_key = "{key}"') as daemon:
        with watching(env=environment(daemon, SSL_CERT_FILE=str(cert))) as watch:
            watch.wait("node-1 is ")
            assert watch.interrupt() == 130, watch.complaints
        with watching(env=environment(daemon)) as watch:
            watch.wait("certificate verify failed", "trying again", lines=watch.complaints)
        assert daemon.stop() == 0


# -- what must not be lost ----------------------------------------------------------------------------------------


def test_a_daemon_that_comes_back_is_followed_without_a_hole_or_a_double(tmp_path: Path) -> None:
    config = write_config(tmp_path, listen=f"127.0.0.1:{free_port()}", websocket=QUIET)
    # It resumes twice after an orderly end, and twice after none.
    ends = [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    names = [[f"metric_{number}_{metric}" for metric in range(6)] for number in range(len(ends))]
    with ExitStack() as stack:
        watch: Watch | None = None
        for number, end in enumerate(ends):
            with running(tmp_path, config) as daemon, daemon.client() as http:
                if watch is None:
                    watch = stack.enter_context(watching("--json", env=environment(daemon)))
                    watch.wait('"type":"status"')
                for name in names[number][:3]:
                    register(http, name)
                watch.wait(f'"{names[number][2]}"', '"seq"')
                for name in names[number][3:]:
                    register(http, name)
                if number == len(ends) - 1:
                    watch.wait(f'"{names[number][-1]}"', '"seq"')
                # Else it ends at once: the newest events may be on their way, or not yet.
                daemon.stop(end)
        assert watch is not None
        messages = watch.messages()
        types = [message["type"] for message in messages]
        assert types.count("connected") == len(ends)
        assert types.count("disconnected") >= len(ends) - 1
        assert "gap" not in types
        events = watch.events()
        assert events == list(range(events[0], events[0] + len(events)))
        defined = [m["data"] for m in messages if m["type"] == "custom_metrics" and "seq" in m]
        assert [name for data in defined for name in data] == [name for each in names for name in each]


@pytest.mark.extended
def test_a_reader_that_pauses_learns_precisely_what_it_missed(tmp_path: Path) -> None:
    with (
        running(tmp_path, websocket=f"{QUIET}\nsend_buffer = 4\nmetrics_interval = 3600") as daemon,
        daemon.client() as http,
        watching("--json", env=environment(daemon)) as watch,
    ):
        watch.wait('"type":"status"')
        watch.reading.clear()
        for number in range(5000):
            register(http, f"metric_{number % 900}_{number}", "x" * 4000)
            if number >= 800:
                http.delete(METRICS, params={"name": f"metric_{(number - 800) % 900}_{number - 800}"})
            if number % 50 == 0 and http.get("/api/cluster/clients").json()["clients"][0]["dropped"]:
                break
        watch.reading.set()
        # Only then: before, the daemon may have no room for it either.
        watch.wait('{"type":"gap"')
        register(http, "at_the_end")
        watch.wait('"at_the_end"', '"seq"')
        covered: list[int] = []
        gaps = 0
        for message in watch.messages():
            if message["type"] == "gap":
                gaps += 1
                assert message["data"]["reason"] == "slow_consumer"
                covered += range(message["data"]["from_seq"], message["data"]["to_seq"] + 1)
            elif "seq" in message:
                covered.append(message["seq"])
        assert gaps >= 1
        assert covered == list(range(covered[0], covered[0] + len(covered)))


@pytest.mark.extended
def test_ctrl_c_ends_it_even_while_its_output_is_not_read(tmp_path: Path) -> None:
    fast = "status_interval = 0.01\nlatency_interval = 0.01\nuptime_interval = 0.01"
    with running(tmp_path, websocket=fast) as daemon, watching("--json", env=environment(daemon)) as watch:
        watch.wait('"type":"status"')
        watch.reading.clear()
        with daemon.client() as http:
            wait_until(lambda: http.get("/api/cluster/clients").json()["clients"][0]["queue"] > 0)
        assert watch.interrupt() == 130
        assert not any("Traceback" in line or "Fatal" in line for line in watch.complaints)


def test_a_reader_that_leaves_ends_it_quietly(daemon: Daemon) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "--json"], stdout=writing, stderr=subprocess.PIPE, env=environment(daemon), text=True
    )
    os.close(writing)
    try:
        assert os.read(reading, 10)
        os.close(reading)
        with daemon.client() as http:
            register(http, "nobody_reads")
        _, complaints = process.communicate(timeout=SECONDS)
        assert (process.returncode, complaints) == (1, "")
    finally:
        process.kill()
        process.wait(SECONDS)
