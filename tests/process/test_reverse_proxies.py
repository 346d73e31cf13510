"""nginx, HAProxy, Apache, Traefik and Envoy, configured as in docs/proxies.md, in front of a started daemon."""

from __future__ import annotations

import re
import socket as stdlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.certificates import self_signed
from tests.support.daemon_process import PASSWORD, Daemon, closing_connection, receive, running, wait_until
from tests.support.deadlines import SECONDS
from tests.support.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "proxies.md"
CLIENT = "127.0.0.2"
"""Where the clients' connections come from; the proxy's come from 127.0.0.1."""
METRICS = "/api/cluster/custom-metrics"


def documented(proxy: str) -> str:
    """The configuration in the section of that proxy."""
    found = re.search(rf"^## {proxy} .*?^```\w*\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1]


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, f"{old} is not in docs/proxies.md any more"
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int, daemon: str) -> list[str]:
    server = replaced(
        documented("nginx"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/ops.example.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/private/ops.example.key", f"{folder}/key.pem"),
        ("127.0.0.1:8080", daemon),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(config)]


def haproxy(folder: Path, port: int, daemon: str) -> list[str]:
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    config = folder / "haproxy.cfg"
    config.write_text(
        replaced(
            documented("HAProxy"),
            ("bind :443", f"bind 127.0.0.1:{port}"),
            ("/etc/haproxy/ops.example.pem", str(both)),
            ("127.0.0.1:8080", daemon),
        )
    )
    return ["haproxy", "-db", "-f", str(config)]


def apache(folder: Path, port: int, daemon: str) -> list[str]:
    host = replaced(
        documented("Apache"),
        ("<VirtualHost *:443>", f"<VirtualHost 127.0.0.1:{port}>"),
        ("/etc/ssl/ops.example.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/private/ops.example.key", f"{folder}/key.pem"),
        ("127.0.0.1:8080", daemon),
    )
    modules = "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
        for name in ("mpm_event", "authz_core", "ssl", "socache_shmcb", "headers", "proxy", "proxy_http")
    )
    config = folder / "apache.conf"
    config.write_text(
        f"{modules}User nobody\nGroup nogroup\nServerName ops.example\nListen 127.0.0.1:{port}\n"
        f"DefaultRuntimeDir {folder}\nPidFile {folder}/apache.pid\nErrorLog {folder}/apache.log\n{host}"
    )
    return ["apache2", "-DFOREGROUND", "-f", str(config)]


def traefik(folder: Path, port: int, daemon: str) -> list[str]:
    config = folder / "traefik.yml"
    config.write_text(
        replaced(
            documented("Traefik"),
            ("/etc/ssl/ops.example.pem", f"{folder}/cert.pem"),
            ("/etc/ssl/private/ops.example.key", f"{folder}/key.pem"),
            ("127.0.0.1:8080", daemon),
        )
    )
    entry = f"--entryPoints.https.address=127.0.0.1:{port}"
    return [beside("traefik"), entry, f"--providers.file.filename={config}"]


def envoy(folder: Path, port: int, daemon: str) -> list[str]:
    config = folder / "envoy.yaml"
    config.write_text(
        replaced(
            documented("Envoy"),
            ("address: 0.0.0.0, port_value: 443", f"address: 127.0.0.1, port_value: {port}"),
            ("/etc/ssl/ops.example.pem", f"{folder}/cert.pem"),
            ("/etc/ssl/private/ops.example.key", f"{folder}/key.pem"),
            ("port_value: 8080", f"port_value: {daemon.rpartition(':')[2]}"),
        )
    )
    return [beside("envoy"), "--use-dynamic-base-id", "--concurrency", "1", "-c", str(config)]


def beside(program: str) -> str:
    """A program of a Python package in this environment."""
    return str(Path(sys.executable).with_name(program))


PROXIES = {"nginx": nginx, "haproxy": haproxy, "apache2": apache, "traefik": traefik, "envoy": envoy}
FROM_PYPI = {"traefik", "envoy"}
"""90 MB: `make prove-proxies` installs them."""


@dataclass
class Proxied:
    daemon: Daemon
    port: int

    @property
    def host(self) -> str:
        return f"ops.example:{self.port}"

    def client(self) -> httpx.Client:
        """A client at the proxy, as a page of the proxy's own origin would be."""
        return httpx.Client(
            transport=httpx.HTTPTransport(verify=False, local_address=CLIENT),
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": self.host, "Origin": f"https://{self.host}"},
            timeout=SECONDS,
        )


@contextmanager
def proxied(name: str, folder: Path) -> Iterator[Proxied]:
    self_signed(folder)
    port = free_port()
    server = f'allowed_origins = ["https://ops.example:{port}"]\ntrusted_proxies = ["127.0.0.1"]'
    with running(folder, server=server) as daemon:
        process = subprocess.Popen(
            PROXIES[name](folder, port, daemon.address), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            found = Proxied(daemon, port)
            with found.client() as http:
                wait_until(lambda: answers(http))
            yield found
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in FROM_PYPI else pytest.mark.needs(name))
        for name in PROXIES
    ],
)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


def log_in(http: httpx.Client) -> None:
    answer = http.post("/api/auth/login", json={"username": "admin", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    http.headers["Authorization"] = f"Bearer {answer.json()['token']}"


def test_a_page_can_log_in_and_chunks_arrive(behind: Proxied) -> None:
    with behind.client() as http:
        log_in(http)
        pieces = iter([b'{"name":"by_proxy",', b'"type":"gauge"}'])
        made = http.post(METRICS, content=pieces, headers={"Content-Type": "application/json"})
        assert made.status_code == 201, made.text
        assert http.delete(METRICS, params={"name": "by_proxy"}).status_code == 200
        http.headers["Origin"] = "https://evil.example"
        assert http.post(f"{METRICS}/reset").status_code == 403


@pytest.mark.parametrize("forged", [{}, {"X-Forwarded-For": "192.0.2.99"}, {"Forwarded": "for=192.0.2.99"}])
def test_a_websocket_is_live_and_has_the_clients_address(behind: Proxied, forged: dict[str, str]) -> None:
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    socket = stdlib.create_connection(("127.0.0.1", behind.port), SECONDS, source_address=(CLIENT, 0))
    options = {
        "sock": socket,
        "ssl": tls,
        "origin": f"https://{behind.host}",
        "additional_headers": forged,
        "proxy": None,
    }
    url = f"wss://{behind.host}/ws/cluster?token={behind.daemon.token()}"
    with closing_connection(url, options) as client, behind.daemon.client() as http:
        receive(client, "status")
        (view,) = http.get("/api/cluster/clients").json()["clients"]
        assert view["address"] == CLIENT
        assert http.post(METRICS, json={"name": "live", "type": "gauge"}).status_code == 201
        assert "live" in receive(client, "custom_metrics")["data"]
        assert http.delete(METRICS, params={"name": "live"}).status_code == 200
        client.close()
        wait_until(lambda: http.get("/api/cluster/clients").json()["total"] == 0)


def test_an_event_stream_is_not_buffered(behind: Proxied) -> None:
    with behind.client() as http, behind.daemon.client() as direct:
        log_in(http)
        with http.stream("GET", "/api/cluster/events") as stream:
            lines = stream.iter_lines()
            assert '"type":"status"' in next(line for line in lines if line.startswith("data:"))
            assert direct.post(METRICS, json={"name": "streamed", "type": "gauge"}).status_code == 201
            assert "streamed" in next(line for line in lines if '"custom_metrics"' in line and "seq" in line)
        assert direct.delete(METRICS, params={"name": "streamed"}).status_code == 200
