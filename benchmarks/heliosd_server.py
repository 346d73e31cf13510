"""heliosd as a server to measure: this checkout's daemon, or another's beside it."""

from __future__ import annotations

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from .process import HERE, START_SECONDS, Running, ServerFailed, Task, launched, output
from .tokens import write_tokens

ROOT = HERE.parent


@dataclass(frozen=True, slots=True)
class Heliosd:
    """A daemon as its users run it: a config file, users, tokens, real status messages.

    Only status messages: one of another type that is due in the same moment would share their write.
    """

    name: str = "heliosd"
    checkout: Path = ROOT
    python: str = sys.executable
    """The interpreter in whose environment the checkout's heliosd is installed."""
    fanout: str = ""
    """`websocket.fanout`; "": the default."""
    speaks_tls: bool = True

    def missing(self) -> str:
        if self.checkout != ROOT:
            return ""
        return "" if util.find_spec("heliosd.daemon") else "heliosd (pip install -e . in this environment)"

    def build(self) -> None:
        pass

    def version(self) -> str:
        if self.checkout != ROOT:
            commit = output(["git", "rev-parse", "--short", "HEAD"], cwd=self.checkout).strip()
            return f"commit {commit} in {self.checkout}"
        packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("heliosd", "trio"))
        return f"{packages}, Python {sys.version.split()[0]}"

    def start(self, task: Task) -> Iterator[Running]:
        config = task.scratch / "heliosd.toml"
        config.write_text(self._config(task))
        module = "heliosd" if task.beats is None else "benchmarks.heliosd_on_beats"
        command = [self.python, "-m", module, "serve", "--config", str(config)]
        with launched(command, task, self.checkout) as (pid, address):
            _wait_until_ready(f"http{'s' if task.certificate else ''}://{address}/readyz")
            token = self._output("token", "--config", str(config), "--user", "viewer").strip()
            own = task.scratch / "tokens" if task.own_tokens else None
            if own is not None:
                write_tokens(own, config, "viewer", task.clients)
            yield Running(self.name, pid, address, f"/ws/cluster?token={'' if own else token}", token, own)

    def _config(self, task: Task) -> str:
        pem = json.dumps(str(task.certificate))
        password_hash = self._output("hash-password", text="benchmark password\n").splitlines()[-1]
        return f"""
            [node]
            data_dir = {json.dumps(str(task.scratch / "data"))}
            [server]
            listen = "127.0.0.1:0"
            {f"tls_cert = {pem}" if task.certificate else ""}
            {f"tls_key = {pem}" if task.certificate else ""}
            [websocket]
            status_interval = {task.interval}
            latency_interval = 3600
            uptime_interval = 3600
            max_clients = {task.clients + 100}
            {f'fanout = "{self.fanout}"' if self.fanout else ""}
            [[auth.users]]
            name = "viewer"
            password_hash = {json.dumps(password_hash)}
            roles = ["viewer"]
            [log]
            format = "json"
            """

    def _output(self, *arguments: str, text: str | None = None) -> str:
        return output([self.python, "-m", "heliosd", *arguments], text=text, cwd=self.checkout)


def _wait_until_ready(url: str) -> None:
    """Until the daemon answers 200: a cluster without a leader sends other messages than one at rest."""
    deadline = time.monotonic() + START_SECONDS
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5, context=anyone):
                return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    raise ServerFailed(f"{url} did not answer 200 in {START_SECONDS:.0f} s")
