"""A client whose network is gone sends nothing more, not even an end: the daemon must notice without it.

This needs a network namespace, so root: a part of `make prove-connections`, skipped elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon_process import running, wait_until
from tests.support.deadlines import SECONDS
from tests.support.ports import free_port
from tests.support.private_networks import private_network

READ_TIMEOUT = 3.0
SLACK_SECONDS = 1.0
HERE, THERE = f"{private_network(0)}.1", f"{private_network(0)}.2"

CLIENT = """
import os, sys
from websockets.sync.client import connect
headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
with connect(sys.argv[1], additional_headers=headers, proxy=None) as socket:
    for message in socket:
        print("received", flush=True)
"""


@contextmanager
def another_network() -> Iterator[tuple[str, str]]:
    """A namespace with a cable to here; yields its name and that of our end of the cable."""
    space, cable = f"heliosd-{os.getpid()}", f"hd{os.getpid()}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=SECONDS)

    try:
        ip("netns", "add", space)
    except (OSError, subprocess.CalledProcessError) as refused:
        pytest.skip(f"no network namespaces here: {refused}")
    try:
        ip("link", "add", cable, "type", "veth", "peer", "name", "far", "netns", space)
        ip("addr", "add", f"{HERE}/30", "dev", cable)
        ip("link", "set", cable, "up")
        ip("-n", space, "addr", "add", f"{THERE}/30", "dev", "far")
        ip("-n", space, "link", "set", "far", "up")
        yield space, cable
    finally:
        subprocess.run(["ip", "link", "del", cable], check=False, capture_output=True, timeout=SECONDS)
        ip("netns", "del", space)


@pytest.mark.slow
def test_a_client_behind_a_dead_link_is_gone_by_the_read_timeout(tmp_path: Path) -> None:
    timing = f"read_timeout = {READ_TIMEOUT}\nping_interval = 0.5\nstatus_interval = 0.5"
    listen = f"{HERE}:{free_port()}"
    with another_network() as (space, cable), running(tmp_path, listen=listen, websocket=timing) as daemon:
        client = subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-c", CLIENT, f"ws://{listen}/ws/cluster"],
            env={**os.environ, "TOKEN": daemon.token()},
            stdout=subprocess.PIPE,
        )
        try:
            assert client.stdout is not None
            until = time.monotonic() + READ_TIMEOUT + 1  # its pongs have kept it so long
            while time.monotonic() < until:
                assert client.stdout.readline() == b"received\n"
            with daemon.client() as http:
                assert http.get("/api/cluster/clients").json()["total"] == 1
                subprocess.run(["ip", "link", "set", cable, "down"], check=True, timeout=SECONDS)
                began = time.monotonic()
                wait_until(lambda: any(line["event"] == "client left" for line in daemon.lines))
                assert time.monotonic() - began < READ_TIMEOUT + 1 + SLACK_SECONDS
        finally:
            client.kill()
            client.wait(SECONDS)
            if client.stdout is not None:
                client.stdout.close()
        assert daemon.stop() == 0
