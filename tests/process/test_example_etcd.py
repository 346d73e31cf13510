"""examples/etcd, as its reader would run it: three members, three heliosd, a leader that is killed, and Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import randrange
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection

from tests.support.daemon_process import closing_connection, receive, wait_until
from tests.support.deadlines import SECONDS

EXAMPLE = Path(__file__).parents[2] / "examples" / "etcd"
START_SECONDS = 60.0

pytestmark = pytest.mark.needs("etcd", "bash", "setsid")


@dataclass
class Example:
    folder: Path
    process: subprocess.Popen[str]
    addresses: list[str]
    password: str

    def started(self) -> list[int]:
        """Ids of the processes that were started on files in this folder and still run."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                arguments = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue
            if str(self.folder / ".run").encode() in arguments:
                found.append(int(entry.name))
        return found


def logged(socket: ClientConnection) -> dict[str, Any]:
    """The next `state_change` that is in the cluster's log."""
    while True:
        message = receive(socket, "state_change")
        if not message.get("provisional"):
            return message


def free_ports(count: int) -> int:
    """The first of so many ports in a row of which none is in use."""
    while True:
        first = randrange(20_000, 32_000)
        if all(is_free(port) for port in range(first, first + count)):
            return first


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def environment(folder: Path, etcd_port: int, heliosd_port: int) -> dict[str, str]:
    program = folder / "heliosd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m heliosd "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    ports = {"ETCD_PORT": str(etcd_port), "HELIOSD_PORT": str(heliosd_port)}
    return {**os.environ, **ports, "HELIOSD": str(program)}


@contextmanager
def running_example(folder: Path) -> Iterator[Example]:
    here = Path(shutil.copytree(EXAMPLE, folder / "etcd", ignore=shutil.ignore_patterns(".run")))
    process = subprocess.Popen(
        [here / "run.sh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(folder, free_ports(6), free_ports(3)),
    )
    assert process.stdout is not None
    printed = ""
    patience = threading.Timer(START_SECONDS, process.terminate)
    patience.start()
    try:
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        patience.cancel()
        addresses = re.findall(r"http://[0-9.:]+(?=/)", printed)
        password = re.search(r"password +(\w+)", printed)
        assert len(addresses) == 3, printed
        assert password is not None
        yield Example(here, process, addresses, password[1])
    finally:
        patience.cancel()
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=SECONDS)


@pytest.mark.extended
def test_every_heliosd_publishes_a_killed_leader_alike_and_ctrl_c_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    with running_example(tmp_path) as example:
        login = {"username": "admin", "password": example.password}
        token = httpx.post(
            f"{example.addresses[0]}/api/auth/login", json=login, timeout=SECONDS, verify=False
        ).json()["token"]
        sockets = [f"ws{each.removeprefix('http')}/ws/cluster?token={token}" for each in example.addresses]
        with (
            closing_connection(sockets[0], {}) as first,
            closing_connection(sockets[1], {}) as second,
            closing_connection(sockets[2], {}) as third,
        ):
            printed = subprocess.run(
                [example.folder / "kill-leader.sh", "4"],
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                check=True,
            ).stdout
            member = r"node-%s \([0-9a-f]{8,16}\)"
            killed, elected = member % r"(\d)", member % r"(?!\1)\d"
            assert re.fullmatch(rf"killed {killed}, the leader\n{elected} leads\nnode-\1 is back\n", printed)
            heard = [[logged(each) for _ in range(2)] for each in (first, second, third)]
        assert heard[0] == heard[1] == heard[2]
        assert [each["data"]["new_state"] for each in heard[0]] == ["Unknown", "Leader"]
        assert [each["seq"] for each in heard[0]] == [1, 2]
        assert len(example.started()) >= 6
        example.process.send_signal(signal.SIGINT)
        assert example.process.wait(SECONDS) == 130
        wait_until(lambda: example.started() == [])


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        ended = subprocess.run(
            [EXAMPLE / "run.sh"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=environment(tmp_path, free_ports(6), port),
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (
        1,
        f"port {port} is taken; HELIOSD_PORT=… chooses other ports for heliosd\n",
    )


def test_a_program_that_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "bash").symlink_to(shutil.which("bash") or "")
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    ended = subprocess.run(
        [shutil.which("bash") or "", EXAMPLE / "run.sh"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={"PATH": str(tmp_path)},
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        "etcd is missing: apt-get install etcd-server (Debian and Ubuntu)\n",
    )
