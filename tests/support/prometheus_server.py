"""A real Prometheus with the rules of examples/, scraping one heliosd."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .daemon_process import wait_until
from .deadlines import SECONDS
from .ports import free_port

RULES = Path(__file__).parents[2] / "examples/prometheus/heliosd.rules.yml"

CONFIG = """
global:
  scrape_interval: {interval}
  evaluation_interval: {interval}
rule_files: [rules.yml]
scrape_configs:
  - job_name: heliosd
    authorization: {{ credentials_file: token }}
    static_configs:
      - targets: ["{target}"]
"""


@dataclass
class Prometheus:
    url: str

    def api(self, path: str, **params: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=SECONDS, verify=False).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        return list(self.api("query", query=expression)["result"])

    def firing(self) -> set[str]:
        return {
            alert["labels"]["alertname"]
            for alert in self.api("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def fired(self, seconds: int) -> set[str]:
        """All alerts that fired within so long."""
        found = self.query(f'count_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])')
        return {series["metric"]["alertname"] for series in found}

    def scrapes_before(self, alert: str, false: str) -> int:
        """How many scrapes had found 0 for the series `false` when the alert fired first; of the last 5 minutes."""
        fired = min(self._times(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))
        return sum(at <= fired for at in self._times(false, "0"))

    def _times(self, series: str, value: str = "1") -> list[float]:
        """When the series had that value within the last 5 minutes, by the scrape or evaluation."""
        return [
            at for found in self.query(f"{series}[5m]") for at, sample in found["values"] if sample == value
        ]

    def scrapes(self) -> int:
        """How often the target was scraped."""
        found = self.query("count_over_time(up[1d])")
        return int(found[0]["value"][1]) if found else 0


@contextmanager
def prometheus(folder: Path, target: str, token: str, *, seconds: int) -> Iterator[Prometheus]:
    """It scrapes and evaluates every so many `seconds`; where the rules wait for 10 s, so that two scrapes must say
    so, they wait for less than one interval."""
    port = free_port()
    hold = "10s" if seconds > 10 else "500ms"
    (folder / "rules.yml").write_text(re.sub(r"for: 10s", f"for: {hold}", RULES.read_text()))
    (folder / "token").write_text(token)
    (folder / "prometheus.yml").write_text(CONFIG.format(interval=f"{seconds}s", target=target))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(lambda: process.poll() is None and _answers(server), pause=0.1)
        yield server
    finally:
        process.terminate()
        process.wait(SECONDS)


def _answers(server: Prometheus) -> bool:
    try:
        return httpx.get(f"{server.url}/-/ready", timeout=SECONDS, verify=False).is_success
    except httpx.HTTPError:
        return False
