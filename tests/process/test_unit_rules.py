"""The main job under the rules of the unit: its system calls, its file systems, its user, on both backends."""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.daemon_process import Daemon, lacking, logging_process, receive
from tests.support.deadlines import SECONDS
from tests.support.debian_root import DebianRoot, build_package, debian_root
from tests.support.etcd_cluster import EtcdCluster
from tests.support.unit_rules import missing_programs, seccomp_program, under_the_rules

from .test_debian_package import USERS

METRICS = "/api/cluster/metrics"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRoot]:
    """Debian 12 with the package."""
    if missing := missing_programs():
        lacking(f"not installed: {missing}")
    folder = tmp_path_factory.mktemp("root")
    with debian_root("bookworm", folder) as root:
        root.install(build_package(folder))
        yield root


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["simulated", "etcd"])
def test_the_main_job_runs_under_the_rules_of_the_unit(backend: str, root: DebianRoot) -> None:
    config = root.path / "etc/heliosd/heliosd.toml"
    before = config.read_text()
    with ExitStack() as ended:
        text = before.replace(
            'listen = "127.0.0.1:8080"', 'listen = ["127.0.0.1:0", "unix:/run/heliosd/socket"]'
        )
        if backend == "etcd":
            cluster = ended.enter_context(EtcdCluster.start(1))
            text = text.replace('backend = "simulated"', 'backend = "etcd"')
            text = text.replace("http://127.0.0.1:2379", cluster.members[0].client_url)
        config.write_text(text + USERS)
        ended.callback(config.write_text, before)
        daemon = ended.enter_context(started(root))
        daemon.wait_listening()
        daemon.wait_ready()
        with daemon.client() as http, daemon.connect(daemon.token()) as socket:
            receive(socket, "status")
            assert http.post(METRICS, json={"name": "jobs", "type": "gauge"}).status_code == 201
            receive(socket, "custom_metrics")
            assert http.put(METRICS, json={"name": "jobs", "value": 7}).status_code == 200
            assert http.get(f"{METRICS}?name=jobs").json()["value"] == 7
            assert http.post("/api/cluster/snapshot").status_code == 201
            assert http.get("/metrics").status_code == 200
            assert http.get("/api/cluster/history").json()["events"]
        inside = child_of(daemon.pid)
        os.kill(inside, signal.SIGHUP)
        daemon.wait_logged(lambda line: line["event"] == "configuration reloaded")
        os.kill(inside, signal.SIGTERM)
        assert daemon.process.wait(SECONDS) == 0
        assert [line for line in daemon.lines if line.get("level") in {"error", "critical"}] == []


def child_of(process: int) -> int:
    """The one child of bubblewrap's process, which passes on no signals."""
    (child,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(child)


@contextmanager
def started(root: DebianRoot) -> Iterator[Daemon]:
    """The service's command under the rules of its unit."""
    owner = (root.path / "var/lib/heliosd").stat()
    command = ["env", "-i", "PATH=/usr/bin:/bin", f"STATE_DIRECTORY=/var/lib/{root.unit('StateDirectory')}"]
    command += shlex.split(root.unit("ExecStart"))
    with tempfile.TemporaryFile() as rules:
        rules.write(seccomp_program(root.unit_lines("SystemCallFilter")))
        rules.seek(0)
        number = rules.fileno()
        wrapped = under_the_rules(
            root.path, command, seccomp_fd=number, user=owner.st_uid, group=owner.st_gid
        )
        config = root.path / "etc/heliosd/heliosd.toml"
        with logging_process(wrapped, config, {}, pass_fds=(number,)) as daemon:
            yield daemon
