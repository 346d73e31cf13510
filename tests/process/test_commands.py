"""The commands that ask a daemon: one daemon, and every command that docs/command-line.md shows."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from heliosd.cli.main import parser_for
from tests.support.command_line import exit_code_of, heliosd_process
from tests.support.daemon_process import PASSWORD, Daemon, running, wait_until
from tests.support.deadlines import SECONDS
from tests.support.ports import free_port
from tests.support.scripted_server import answering

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
CAPTURE = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("commands")) as started:
        started.wait_ready()
        yield started


@pytest.fixture(scope="module")
def token(daemon: Daemon) -> str:
    return daemon.token()


@pytest.fixture(autouse=True)
def environment(daemon: Daemon, token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HELIOSD_URL", daemon.url)
    monkeypatch.setenv("HELIOSD_TOKEN", token)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def printed(capfd: CAPTURE, *arguments: str, code: int = 0) -> str:
    """Standard output of one command, which ends with this code."""
    capfd.readouterr()
    ended = exit_code_of(*arguments)
    seen = capfd.readouterr()
    assert ended == code, (arguments, seen)
    if code == 0:
        assert seen.err == ""
    return seen.out if code == 0 else seen.err


def as_json(capfd: CAPTURE, *arguments: str) -> Any:
    return json.loads(printed(capfd, *arguments, "-o", "json"))


def shown_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ heliosd ") for line in lines if line.startswith("$ heliosd ")]


def test_every_command_of_the_page_works(capfd: CAPTURE) -> None:
    commands = [command for command in shown_commands() if not command.startswith(("watch", "top"))]
    assert len(commands) > 25
    for command in commands:
        words, _, _ = command.partition(">")
        printed(capfd, *shlex.split(words))


def test_the_live_commands_of_the_page_are_written_as_the_command_line_takes_them() -> None:
    live = [command.split() for command in shown_commands() if command.startswith(("watch", "top"))]
    assert len(live) > 2
    for words in live:
        assert parser_for(words).parse_args(words).command


def test_status_in_all_formats_tells_the_same(capfd: CAPTURE) -> None:
    status = as_json(capfd, "status")
    assert status["node"]["id"] == "node-1"
    table = printed(capfd, "status")
    assert table.startswith("+ Cluster: 3 members, term ")
    assert status["leader"]["id"] in table
    rows = [line.split("\t") for line in printed(capfd, "status", "-o", "tsv").splitlines()]
    assert rows[0] == ["member", "address", "role", "state", "lag", "ms", "contact"]
    assert [row[0] for row in rows[1:]] == ["node-1", "node-2", "node-3"]
    assert f"term: {status['node']['term']}" in printed(capfd, "status", "-o", "yaml")


def test_check_is_0_while_all_is_well_and_5_when_one_more_loss_is_too_many(
    capfd: CAPTURE, daemon: Daemon
) -> None:
    printed(capfd, "status", "--check")
    with daemon.client() as http:
        http.put("/api/cluster/simulation", json={"crashed": ["node-3"]})
        wait_until(lambda: as_json(capfd, "members")["problems"] != [])
        assert "quorum at risk: 2 of 3 voters" in printed(capfd, "status", "--check", code=5)
        http.put("/api/cluster/simulation", json={"crashed": ["node-2", "node-3"]})
        wait_until(lambda: not as_json(capfd, "members")["leader"])
        assert "no leader" in printed(capfd, "status", "--check", code=5)
        assert as_json(capfd, "status")["leader"]["id"] == ""
        assert "No leader" in printed(capfd, "transfer", code=1)
        http.put("/api/cluster/simulation", json={"crashed": []})
        daemon.wait_ready()
        wait_until(lambda: as_json(capfd, "members")["problems"] == [])


def test_members_have_one_shape_whoever_leads(capfd: CAPTURE) -> None:
    shapes = set()
    for target in ("node-2", "node-1"):
        if as_json(capfd, "members")["leader"] != target:
            assert as_json(capfd, "transfer", target) == {"leader": target}
        found = members_led_by(capfd, target)
        shapes.add((tuple(found), *(tuple(member) for member in found["members"])))
        assert [m["id"] for m in found["members"] if m["leader"]] == [target]
        assert (found["voters"], found["quorum"]) == (3, 2)
    assert len(shapes) == 1


def members_led_by(capfd: CAPTURE, leader: str) -> Any:
    """What `peers` shows once this member leads and all three are healthy."""
    shown: list[Any] = []

    def settled() -> bool:
        shown.append(as_json(capfd, "peers"))
        return bool((shown[-1]["leader"], shown[-1]["healthy_voters"]) == (leader, 3))

    wait_until(settled)
    return shown[-1]


def test_history_says_who_led_at_a_time(capfd: CAPTURE) -> None:
    everything = as_json(capfd, "history", "--since", "1970-01-01T00:00Z")
    elected = [
        event for event in everything["events"] if event["type"] == "state_change" and event["data"]["leader"]
    ]
    assert everything["leader_at_since"] is None
    last = elected[-1]
    later = as_json(capfd, "history", "--since", "0.001s", "--types", "state_changes")
    assert later["events"] == []
    assert later["leader_at_since"]["leader"] == last["data"]["leader"]
    assert " led, in term " in printed(capfd, "history", "--since", "0.001s", "--types", "state_changes")
    assert len(as_json(capfd, "history", "--limit", "1")["events"]) == 1
    cursor = f"{everything['epoch']}:{elected[0]['seq'] - 1}"
    assert as_json(capfd, "history", "--since", cursor)["events"][0]["seq"] == elected[0]["seq"]
    assert "--since" in printed(capfd, "history", "--since", "soon", code=2)
    assert "weather" in printed(capfd, "history", "--types", "weather", code=2)


def test_a_permit_is_given_to_one_and_with_5_and_a_reason_to_nobody_else(capfd: CAPTURE) -> None:
    permit = as_json(capfd, "may-stop", "node-3", "--seconds", "30")["permit"]
    assert (permit["member"], permit["user"]) == ("node-3", "admin")
    assert "admin has the permit to stop node-3" in printed(capfd, "may-stop", "node-2", code=5)
    assert "admin has the permit" in printed(capfd, "may-stop", "node-2", "--wait", "1.5", code=5)
    assert as_json(capfd, "may-stop", "--done", "node-3")["permit"]["id"] == permit["id"]
    assert as_json(capfd, "may-stop", "--done", "node-3") == {"permit": None}
    assert "Unknown peer" in printed(capfd, "may-stop", "node-9", code=1)


def test_a_permit_that_is_held_is_renewed_and_given_back_at_the_end(capfd: CAPTURE) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-m", "heliosd", "may-stop", "node-2", "--hold", "--seconds", "2", "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "{\n"
        began = time.monotonic()
        while time.monotonic() - began < 3.0:  # longer than it lasts without being renewed
            assert "to stop node-2" in printed(capfd, "may-stop", "node-1", code=5)
            time.sleep(0.5)  # asking costs more than waiting
        holder.send_signal(signal.SIGTERM)
        _, said = holder.communicate(timeout=SECONDS)
    finally:
        holder.kill()
        holder.wait()
    assert (holder.returncode, said) == (0, "heliosd: the permit is given back\n")
    printed(capfd, "may-stop", "node-1")
    printed(capfd, "may-stop", "--done", "node-1")


@pytest.mark.extended
def test_a_held_permit_that_may_still_be_out_at_the_end_is_a_failure(capfd: CAPTURE, daemon: Daemon) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-m", "heliosd", "may-stop", "node-2", "--hold"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert "may be stopped" in holder.stdout.readline()
        daemon.process.send_signal(signal.SIGSTOP)
        holder.send_signal(signal.SIGTERM)
        _, said = holder.communicate(timeout=SECONDS)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
        holder.kill()
        holder.wait()
    lost = "heliosd: the permit was not given back, and ends by its time: no answer within 5 s\n"
    assert (holder.returncode, said) == (1, lost)
    exit_code_of("may-stop", "--done", "node-2")  # it may have come back: the request was on its way


@pytest.mark.extended
def test_a_permit_to_hold_is_given_back_if_nobody_reads_of_it(capfd: CAPTURE) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "heliosd", "may-stop", "node-2", "--hold"],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"heliosd: the permit is given back\n")
    assert as_json(capfd, "may-stop", "--done", "node-2") == {"permit": None}


def test_counters_stand_in_full(capfd: CAPTURE) -> None:
    printed(capfd, "metrics", "register", "bytes_total", "counter")
    printed(capfd, "metrics", "inc", "bytes_total", "123456789012")
    assert "123456789012" in printed(capfd, "metrics")
    assert as_json(capfd, "metrics", "list", "bytes_total")["metrics"]["bytes_total"]["value"] == 123456789012
    assert "Unknown metric" in printed(capfd, "metrics", "inc", "nothing", code=1)
    printed(capfd, "metrics", "delete", "bytes_total")


def test_an_error_names_the_user_and_the_url(
    capfd: CAPTURE, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HELIOSD_TOKEN")
    monkeypatch.setenv("HELIOSD_USER", "admin")
    monkeypatch.setenv("HELIOSD_PASSWORD", PASSWORD)
    assert f"(admin at {daemon.url})" in printed(capfd, "members", "add", "x", "nowhere", code=2)
    right = f"heliosd: Permission required: cluster:admin (viewer at {daemon.url})\n"
    assert printed(capfd, "transfer", "--user", "viewer", code=4) == right
    monkeypatch.setenv("HELIOSD_PASSWORD", "wrong")
    wrong = printed(capfd, "status", code=4)
    assert wrong == f"heliosd: Invalid credentials (admin at {daemon.url})\n"
    dead = f"http://127.0.0.1:{free_port()}"
    refused = printed(capfd, "status", "--url", dead, code=3)
    assert refused.startswith(f"heliosd: cannot connect to {dead}: ")
    assert refused.endswith("(as admin)\n")


@pytest.mark.parametrize("arguments", [["status"], ["watch", "--json"]])
@pytest.mark.extended
def test_a_full_disk_behind_the_output_is_reported_in_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "heliosd", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"heliosd: [Errno 28] No space left on device\n")


@pytest.mark.extended
def test_a_wait_for_a_permit_outlasts_a_daemon_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as away:
        url = f"http://127.0.0.1:{away.getsockname()[1]}"
        command = [sys.executable, "-m", "heliosd", "may-stop", "etcd-1", "--wait", "60", "--url", url]
        with subprocess.Popen(
            command, stderr=subprocess.DEVNULL, env=os.environ | {"HELIOSD_TOKEN": "a.b.c"}
        ) as asking:
            away.settimeout(SECONDS)
            for _ in range(2):
                away.accept()[0].close()
            asking.kill()


def test_a_wait_for_a_permit_outlasts_a_proxy_whose_daemon_is_away(capfd: CAPTURE) -> None:
    permit = {"id": "p1", "member": "node-2", "expires_at": "2026-11-30T10:00:00Z"}
    with answering((502, "Bad Gateway"), (201, {"permit": permit})) as url:
        assert as_json(capfd, "may-stop", "node-2", "--wait", "60", "--url", url) == {"permit": permit}
    with answering((502, "Bad Gateway")) as url:
        assert "502" in printed(capfd, "may-stop", "node-2", "--url", url, code=1)


def test_a_transfer_that_was_made_is_a_success_for_who_may_not_read_the_names(capfd: CAPTURE) -> None:
    refused = 403, {"error": "Permission required: cluster:read"}
    with answering((200, {"leader": "node-2"}), refused) as url:
        assert printed(capfd, "transfer", "--url", url) == "node-2 leads\n"


def test_a_token_may_come_from_a_pipe(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELIOSD_TOKEN")
    assert "node-1" in heliosd_process("members", "--token-file", "/dev/stdin", given=token + "\n").stdout


@pytest.mark.extended
def test_outputs_that_are_closed_or_full_change_no_exit_code_but_that_of_lost_output() -> None:
    assert heliosd_process("status", shell=">&-", code=1).stderr == "heliosd: standard output is closed\n"
    assert heliosd_process("watch", shell=">&-", code=1).stderr == "heliosd: standard output is closed\n"
    for nowhere in ("2>/dev/full", "2>&-"):
        refused = heliosd_process("metrics", "inc", "absent", "-o", "json", shell=nowhere, code=1)
        assert refused.stdout == ""


def test_an_argument_that_is_not_utf_8_is_wrong_usage() -> None:
    assert heliosd_process("members", "remove", b"\xff", code=2).stderr == "heliosd: not UTF-8: '\\udcff'\n"


def test_credentials_come_from_a_file_that_nobody_else_may_read(
    capfd: CAPTURE, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("URL", "TOKEN"):
        monkeypatch.delenv(f"HELIOSD_{name}")
    kept = tmp_path / "heliosd" / "client.toml"
    kept.parent.mkdir()
    kept.write_text(f'url = "{daemon.url}"\nuser = "viewer"\npassword = "{PASSWORD}"\n')
    kept.chmod(0o640)
    assert f"chmod 600 {kept}" in printed(capfd, "status", code=2)
    kept.chmod(0o600)
    printed(capfd, "status")
    other = tmp_path / "other.toml"
    other.write_text(f'url = "{daemon.url}"\nsecret = 1\n')
    assert "secret" in printed(capfd, "status", "--client-config", str(other), code=2)
    other.write_text(f'url = "{daemon.url}"\ntoken = "{daemon.token("viewer")}"\n')
    other.chmod(0o600)
    monkeypatch.setenv("HELIOSD_CLIENT_CONFIG", str(other))
    printed(capfd, "members")


def test_without_a_home_that_can_be_read_a_command_goes_by_what_it_is_given(
    capfd: CAPTURE, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    no_folder = tmp_path / "file"
    no_folder.touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(no_folder))
    printed(capfd, "status")
    assert "Not a directory" in printed(capfd, "status", "--client-config", f"{no_folder}/x", code=2)
    for name in ("XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    printed(capfd, "status")
    assert "home directory" in printed(capfd, "status", "--client-config", "~/x", code=2)


def test_options_come_from_the_environment_too(capfd: CAPTURE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOS_OUTPUT", "json")
    assert json.loads(printed(capfd, "members"))["voters"] == 3
    assert printed(capfd, "members", "list", "-o", "tsv").startswith("member\t")
    monkeypatch.setenv("HELIOSD_OUTPUT", "yaml")
    assert printed(capfd, "members").startswith("members:\n")
    monkeypatch.setenv("HELIOSD_LABEL", "team=b")
    monkeypatch.setenv("HELIOSD_HELP_TEXT", "by the environment")
    printed(capfd, "metrics", "register", "by_environment", "gauge")
    metric = as_json(capfd, "metrics", "list", "by_environment")["metrics"]["by_environment"]
    assert (metric["help"], metric["labels"]) == ("by the environment", {"team": "b"})
    printed(capfd, "metrics", "register", "by_option", "gauge", "--label", "shift=1", "--label", "shop=2")
    metric = as_json(capfd, "metrics", "list", "by_option")["metrics"]["by_option"]
    assert metric["labels"] == {"shift": "1", "shop": "2"}
    monkeypatch.setenv("HELIOSD_OUTPUT", "xml")
    assert "HELIOSD_OUTPUT: must be one of table, json" in printed(capfd, "members", code=2)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("heliosd memb", ["members"]),
        ("heliosd members re", ["remove"]),
        ("heliosd members --out", ["--output"]),
        ("heliosd status -o y", ["yaml"]),
        ("heliosd metrics register --help-", ["--help-text"]),
        ("heliosd completion f", ["fish"]),
    ],
)
def test_bash_completes_commands_verbs_options_and_values(
    capfd: CAPTURE, line: str, expected: list[str]
) -> None:
    script = printed(capfd, "completion", "bash")
    words = line.split()
    typed = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}"
    call = f'{script}\n{typed}; _heliosd; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_the_completions_of_zsh_and_fish_name_every_command(capfd: CAPTURE) -> None:
    for shell in ("zsh", "fish"):
        script = printed(capfd, "completion", shell)
        for word in ("members", "peers", "may-stop", "history", "--since"):
            assert word.removeprefix("--") in script
