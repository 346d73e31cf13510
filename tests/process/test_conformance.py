"""The echo endpoint, by other people's software: a client library in short, the Autobahn test suite in full."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.support.daemon_process import lacking, wait_until
from tests.support.ports import HeldPorts

ROOT = Path(__file__).parents[2]
CASES = [f"{category}.*" for category in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13)]
DECLINED = ("13.3.", "13.5.")
"""They demand a window that the shared frame does not keep: the offer is declined, and nothing is compressed."""
GOOD = {"OK", "INFORMATIONAL"}


@pytest.fixture
def url() -> Iterator[str]:
    ports = HeldPorts()
    port = ports.take()
    server = subprocess.Popen([sys.executable, "-m", "tests.conformance.echo", str(port)], cwd=ROOT)
    url = f"ws://127.0.0.1:{port}/"

    def answers() -> bool:
        try:
            with connect(url):
                return True
        except OSError:
            return False

    try:
        wait_until(answers)
        yield url
    finally:
        server.terminate()
        server.wait()
        ports.close()


def test_texts_and_binaries_whole_and_in_fragments_come_back(url: str) -> None:
    with connect(url, max_size=None) as client:
        for message in ("", "Grüße 😀", b"", bytes(range(256)) * 1000, "x" * 200_000):
            client.send(message)
            assert client.recv() == message
        client.send(["a", "b", "c"])
        assert client.recv() == "abc"
        client.send([b"\xff", b"", b"\x00"])
        assert client.recv() == b"\xff\x00"
    assert client.protocol.close_code == 1000


def test_text_that_is_no_utf8_is_closed_with_1007(url: str) -> None:
    with connect(url) as client:
        client.send(b"\xce\xba\xff", text=True)
        with pytest.raises(ConnectionClosedError):
            client.recv()
    assert client.protocol.close_code == 1007


@pytest.mark.slow
def test_the_autobahn_suite_finds_nothing(url: str, tmp_path: Path) -> None:
    made = subprocess.run([ROOT / "scripts" / "autobahn"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        lacking(made.stderr)
    spec = {"outdir": str(tmp_path), "servers": [{"agent": "heliosd", "url": url}], "cases": CASES}
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"exclude-cases": [], "exclude-agent-cases": {}}))
    wstest = [made.stdout.strip(), "-m", "fuzzingclient", "-s", str(tmp_path / "spec.json")]
    with (tmp_path / "log").open("w") as log:
        subprocess.run(wstest, check=True, stdout=log, stderr=log)
    cases = json.loads((tmp_path / "index.json").read_text())["heliosd"]
    print(len(cases), Counter((case["behavior"], case["behaviorClose"]) for case in cases.values()))
    assert len(cases) > 500
    assert {
        name: case
        for name, case in cases.items()
        if not name.startswith(DECLINED) and not {case["behavior"], case["behaviorClose"]} <= GOOD
    } == {}
