"""A started daemon behind a reverse proxy: the client's address, a prefix, Unix sockets, several addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, receive, running, wait_until, write_config
from tests.support.deadlines import SECONDS
from tests.support.ports import free_port

SERVER = 'trusted_proxies = ["127.0.0.1", "unix"]\nbase_path = "/helios"'
CLIENT, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxied")


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[Daemon]:
    config = write_config(folder, server=SERVER)
    text = config.read_text().replace("login_attempts_per_minute = 1000", "login_attempts_per_minute = 10")
    config.write_text(
        text.replace('listen = "127.0.0.1:0"', f'listen = ["127.0.0.1:0", "unix:{folder}/sock"]')
    )
    with running(folder, config) as started:
        yield started
        assert started.stop() == 0


def forwarded(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": f"203.0.113.9, {address}", "X-Forwarded-Proto": "https"}


def log_in(daemon: Daemon, address: str, password: str) -> int:
    body = {"username": "admin", "password": password}
    url = f"{daemon.url}/helios/api/auth/login"
    return httpx.post(url, json=body, headers=forwarded(address), timeout=SECONDS, verify=False).status_code


def test_wrong_passwords_of_one_forwarded_address_do_not_lock_out_another(daemon: Daemon) -> None:
    wait_until(lambda: log_in(daemon, CLIENT, "wrong") == 429)
    assert log_in(daemon, OTHER, "wrong") == 401


def test_the_clients_address_stands_in_the_list_of_clients_and_in_the_log(daemon: Daemon) -> None:
    with (
        daemon.client() as http,
        daemon.connect(daemon.token(), additional_headers=forwarded(CLIENT)) as socket,
    ):
        receive(socket, "status")
        (client,) = http.get("/api/cluster/clients").json()["clients"]
        assert client["address"] == CLIENT
    wait_until(lambda: any(line["event"] == "client left" for line in daemon.lines))
    assert {line["address"] for line in daemon.lines if line["event"] == "client left"} == {CLIENT}


def test_the_page_and_all_that_it_loads_work_below_the_prefix(daemon: Daemon) -> None:
    with httpx.Client(base_url=daemon.url, timeout=SECONDS, verify=False) as http:
        moved = http.get("/helios")
        assert (moved.status_code, moved.headers["Location"]) == (308, "/helios/")
        for prefix in ("/helios", ""):
            page = http.get(f"{prefix}/")
            assert page.status_code == 200
            links = [part.split('"')[0] for part in page.text.replace("src=", "href=").split('href="')[1:]]
            assert links
            for link in links:
                assert http.get(f"{page.url}{link}").status_code == 200, link


def test_a_proxy_on_the_unix_socket_is_served(daemon: Daemon, folder: Path) -> None:
    ready = next(line for line in daemon.lines if line["event"] == "ready")
    assert ready["also"] == [f"unix:{folder}/sock"]
    transport = httpx.HTTPTransport(uds=f"{folder}/sock")
    headers = {"Authorization": f"Bearer {daemon.token()}", **forwarded(CLIENT)}
    with httpx.Client(transport=transport, base_url="http://localhost", headers=headers) as http:
        assert http.get("/api/cluster/status").status_code == 200
        assert (
            http.post("/api/cluster/custom-metrics", json={"name": "m", "type": "gauge"}).status_code == 201
        )


def test_two_daemons_share_a_port_that_both_allow_to_be_shared(tmp_path: Path) -> None:
    shared = f"127.0.0.1:{free_port()}"
    folders = [tmp_path / "one", tmp_path / "two"]
    with ExitStack() as until_stopped:
        daemons = []
        for folder in folders:
            folder.mkdir()
            daemons.append(
                until_stopped.enter_context(running(folder, listen=shared, server="reuse_port = true"))
            )
        assert {daemon.address for daemon in daemons} == {shared}
        assert daemons[0].stop() == 0
        for _ in range(5):
            assert httpx.get(f"http://{shared}/healthz", timeout=SECONDS, verify=False).status_code == 200
