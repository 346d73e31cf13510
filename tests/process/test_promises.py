"""Every client is sent what docs/protocol.md promises, whatever it subscribed to, also when the daemon is killed.

The long form (`make prove-promises`) takes ten minutes on each backend.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest

from tests.support.daemon_process import running, write_config
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_nodes import etcd_config
from tests.support.ports import free_port
from tests.support.promise_checker import PromiseCheck, check

# Small queues, so that slow clients lose something, and values that come often.
WEBSOCKET = """
send_buffer = 16
metrics_interval = 0.02
status_interval = 0.5
latency_interval = 0.5
"""
ENDS = (signal.SIGHUP, signal.SIGKILL, signal.SIGTERM)


class Checking:
    """A check in a thread of its own."""

    def __init__(self, promises: PromiseCheck, rate: float) -> None:
        self.promises = promises
        self._failed: list[BaseException] = []
        self._rate = rate
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            check(self.promises, self._rate)
        except BaseException as error:
            self._failed.append(error)

    def go_on(self, seconds: float) -> None:
        """Check for so long, or until something is found."""
        self._thread.join(seconds)
        if not self._thread.is_alive() or self.promises.broken:
            self.finish()
            pytest.fail("the check ended by itself")

    def finish(self) -> None:
        """Let the clients settle, and raise what was found."""
        self.promises.stopping = True
        self._thread.join(180)
        print(self.promises.summary())
        for broken in self.promises.broken[:20]:
            print(broken[:400])
        assert not self._thread.is_alive(), "the clients did not settle"
        if self._failed:
            raise self._failed[0]
        assert self.promises.broken == []
        assert self.promises.compared > 0


def promises_hold(
    folder: Path, config: Path, *, clients: int, seconds: float, ends: Sequence[signal.Signals], rate: float
) -> None:
    """A check of `seconds`, during which the daemon gets each of `ends`, evenly spread; it is started again after
    those that stop it."""
    checking: Checking | None = None
    left = list(ends)
    stretch = seconds / (len(ends) + 1)
    while True:
        with running(folder, config) as daemon:
            if checking is None:
                promises = PromiseCheck(daemon.url, daemon.token(), clients, seconds=inf)
                checking = Checking(promises, rate)
            checking.go_on(stretch)
            while left and left[0] is signal.SIGHUP:
                daemon.process.send_signal(left.pop(0))
                checking.go_on(stretch)
            if not left:
                checking.finish()
                return
            end = left.pop(0)
            assert daemon.stop(end) == (0 if end is signal.SIGTERM else -end)
            assert not [line for line in daemon.lines if line.get("level") == "error"]


def simulated(folder: Path) -> Path:
    return write_config(folder, listen=f"127.0.0.1:{free_port()}", websocket=WEBSOCKET)


def test_every_client_is_sent_what_is_promised_while_the_daemon_is_stopped_and_killed(tmp_path: Path) -> None:
    promises_hold(tmp_path, simulated(tmp_path), clients=8, seconds=6.0, ends=ENDS, rate=60)


@pytest.mark.slow
def test_for_ten_minutes_thirty_clients_are_sent_what_is_promised(tmp_path: Path) -> None:
    promises_hold(tmp_path, simulated(tmp_path), clients=30, seconds=600.0, ends=20 * ENDS, rate=100)


@pytest.mark.slow
@pytest.mark.needs("etcd")
def test_for_ten_minutes_beside_etcd_thirty_clients_are_sent_what_is_promised(tmp_path: Path) -> None:
    with EtcdCluster.start(3) as cluster:
        listen = f"127.0.0.1:{free_port()}"
        config = etcd_config(tmp_path / "node", "etcd-1", cluster, listen=listen, websocket=WEBSOCKET)
        promises_hold(tmp_path / "node", config, clients=30, seconds=600.0, ends=10 * ENDS, rate=50)
