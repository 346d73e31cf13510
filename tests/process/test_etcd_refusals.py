"""heliosd and an etcd that wants certificates and passwords: what fits works, and what does not is said plainly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from daemon_process import SECONDS, Daemon, wait_until
from etcd_certificates import EtcdCertificates
from etcd_cluster import EtcdAuth, EtcdCluster
from etcd_nodes import METRICS, etcd_config, starting

pytestmark = pytest.mark.needs("etcd")
AUTH = EtcdAuth()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EtcdCluster, EtcdCertificates]]:
    certificates = EtcdCertificates.make(tmp_path_factory.mktemp("certificates"))
    with EtcdCluster.start(1, tls=certificates, auth=AUTH) as cluster:
        yield cluster, certificates


@contextmanager
def guest(
    folder: Path,
    guarded: tuple[EtcdCluster, EtcdCertificates],
    *,
    certificate: str = "client",
    password: str = AUTH.password,
    more: str = "",
) -> Iterator[Daemon]:
    """A heliosd that shows this certificate and this password. It listens."""
    cluster, certificates = guarded
    secret = folder / "etcd_password"
    secret.touch(0o600)
    secret.write_text(password)
    section = f"""
ca_cert = "{certificates.ca_cert}"
client_cert = "{getattr(certificates, certificate + "_cert")}"
client_key = "{getattr(certificates, certificate + "_key")}"
username = "{AUTH.username}"
password_file = "{secret}"
{more}
"""
    config = etcd_config(folder / "guest", "etcd-1", cluster, etcd=section)
    with starting(folder / "guest", config) as daemon:
        daemon.wait_listening()
        yield daemon
        assert daemon.stop() == 0
    assert password not in "".join(daemon.raw) or not password


def reason(daemon: Daemon) -> str:
    answer = httpx.get(f"{daemon.url}/readyz", timeout=SECONDS)
    assert answer.status_code == 503
    return str(answer.json()["reason"])


def complaints(daemon: Daemon) -> list[str]:
    return [line["event"] for line in daemon.lines if line["event"].startswith("etcd:")]


def test_with_the_right_certificate_and_password_everything_works(
    tmp_path: Path, guarded: tuple[EtcdCluster, EtcdCertificates]
) -> None:
    with guest(tmp_path, guarded) as daemon:
        daemon.wait_ready()
        with daemon.client() as http:
            assert http.post(METRICS, json={"name": "app_x", "type": "gauge"}).status_code == 201
            assert http.get("/api/cluster/status").json()["leader"]["is_leader"]
            refused = http.post("/api/cluster/peers", json={"id": "more", "address": "127.0.0.1:1"})
            assert refused.status_code == 409
            assert "permission denied" in refused.json()["error"]


def test_a_wrong_password_is_said_once_and_tried_again_until_it_fits(
    tmp_path: Path, guarded: tuple[EtcdCluster, EtcdCertificates]
) -> None:
    with guest(tmp_path, guarded, password="not-this-one") as daemon:
        assert "invalid user ID or password" in reason(daemon)
        assert any("invalid user ID or password" in line for line in complaints(daemon))
        assert len(complaints(daemon)) <= 4
        (tmp_path / "etcd_password").write_text(AUTH.password)
        daemon.wait_ready()


@pytest.mark.parametrize("certificate", ["stranger", "expired"])
def test_a_certificate_that_etcd_refuses_is_said_plainly(
    tmp_path: Path, guarded: tuple[EtcdCluster, EtcdCertificates], certificate: str
) -> None:
    with guest(tmp_path, guarded, certificate=certificate) as daemon:
        assert "certificate" in reason(daemon)
        assert any("certificate" in line for line in complaints(daemon))
        assert len(complaints(daemon)) <= 4


def test_a_missing_right_is_said_plainly(
    tmp_path: Path, guarded: tuple[EtcdCluster, EtcdCertificates]
) -> None:
    with guest(tmp_path, guarded, more='prefix = "/elsewhere/"') as daemon:
        wait_until(lambda: "permission denied" in reason(daemon))
        assert any("permission denied" in line for line in complaints(daemon))
        assert len(complaints(daemon)) <= 4
