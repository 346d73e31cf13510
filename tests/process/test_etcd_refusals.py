"""heliosd and an etcd that wants certificates and passwords: right ones work, and wrong ones are reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.support.daemon_process import Daemon, wait_until
from tests.support.deadlines import SECONDS
from tests.support.etcd_certificates import EtcdCertificates
from tests.support.etcd_cluster import EtcdAuth, EtcdCluster
from tests.support.etcd_nodes import METRICS, etcd_config, starting

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


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, guarded: tuple[EtcdCluster, EtcdCertificates]
) -> Iterator[Daemon]:
    """A heliosd that may do all it needs, also after each test with it."""
    with guest(tmp_path_factory.mktemp("served"), guarded) as daemon:
        daemon.wait_ready()
        yield daemon


def reason(daemon: Daemon) -> str:
    answer = httpx.get(f"{daemon.url}/readyz", timeout=SECONDS, verify=False)
    assert answer.status_code == 503
    return str(answer.json()["reason"])


def complaints(daemon: Daemon) -> list[str]:
    return [line["event"] for line in daemon.lines if line["event"].startswith("etcd:")]


def answer_to(http: httpx.Client, path: str, body: object) -> httpx.Response:
    """The first answer but 503: on a busy machine etcd may not answer in time."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(http.post(path, json=body))
        return answers[-1].status_code != 503

    wait_until(answered)
    return answers[-1]


@pytest.mark.extended
def test_with_the_right_certificate_and_password_everything_works(served: Daemon) -> None:
    with served.client() as http:
        assert http.post(METRICS, json={"name": "app_x", "type": "gauge"}).status_code == 201
        assert http.get("/api/cluster/status").json()["leader"]["is_leader"]
        refused = answer_to(http, "/api/cluster/peers", {"id": "more", "address": "127.0.0.1:1"})
        assert refused.status_code == 409, refused.text
        assert "permission denied" in refused.json()["error"]


@pytest.mark.extended
def test_a_wrong_password_is_logged_once_and_tried_again_until_it_fits(
    tmp_path: Path, guarded: tuple[EtcdCluster, EtcdCertificates]
) -> None:
    with guest(tmp_path, guarded, password="not-this-one") as daemon:
        assert "invalid user ID or password" in reason(daemon)
        assert any("invalid user ID or password" in line for line in complaints(daemon))
        assert len(complaints(daemon)) <= 4
        (tmp_path / "etcd_password").write_text(AUTH.password)
        daemon.wait_ready()


@pytest.mark.parametrize("certificate", ["stranger", "expired"])
@pytest.mark.extended
def test_a_certificate_that_etcd_refuses_is_reported(
    tmp_path: Path, guarded: tuple[EtcdCluster, EtcdCertificates], certificate: str
) -> None:
    with guest(tmp_path, guarded, certificate=certificate) as daemon:
        assert "certificate" in reason(daemon)
        assert any("certificate" in line for line in complaints(daemon))
        assert len(complaints(daemon)) <= 4


def test_a_missing_right_is_reported(tmp_path: Path, guarded: tuple[EtcdCluster, EtcdCertificates]) -> None:
    with guest(tmp_path, guarded, more='prefix = "/elsewhere/"') as daemon:
        wait_until(lambda: "permission denied" in reason(daemon))
        assert any("permission denied" in line for line in complaints(daemon))
        assert len(complaints(daemon)) <= 4


@pytest.mark.parametrize("left", ["READ", ""])
@pytest.mark.extended
def test_a_right_that_is_taken_away_is_reported_and_used_again_once_it_is_given_back(
    served: Daemon, guarded: tuple[EtcdCluster, EtcdCertificates], left: str
) -> None:
    """Also by a heliosd that has nothing to write; and the watch that is open goes on."""
    cluster, _ = guarded
    before = len(complaints(served))
    try:
        if left:
            cluster.grant(AUTH, left)
        else:
            cluster.take_away(AUTH)
        # The members take it over one after the other, and meanwhile one of them may still allow what another
        # has refused.
        wait_until(lambda: "permission denied" in why_not_ready(served))
        with served.client() as http:
            refused = http.post(METRICS, json={"name": "app_denied", "type": "gauge"})
            assert refused.status_code == 503
            assert "permission denied" in refused.json()["error"]
            assert http.get("/api/cluster/status").json()["leader"]["is_leader"]
        wait_until(lambda: "permission denied" in why_not_ready(served))
        assert any("permission denied" in line for line in complaints(served)[before:])
    finally:
        cluster.grant(AUTH)
    served.wait_ready()  # nothing is written meanwhile
    with served.client() as http:
        assert http.post(METRICS, json={"name": "app_denied", "type": "gauge"}).status_code == 201
        assert http.delete(METRICS, params={"name": "app_denied"}).is_success
    assert len(complaints(served)) - before <= 8


def why_not_ready(daemon: Daemon) -> str:
    """ "" if it is."""
    return str(httpx.get(f"{daemon.url}/readyz", timeout=SECONDS, verify=False).json().get("reason", ""))


@pytest.mark.extended
def test_a_login_that_is_taken_away_is_reported_and_used_again_once_it_is_back(
    served: Daemon, guarded: tuple[EtcdCluster, EtcdCertificates]
) -> None:
    cluster, _ = guarded
    user = {"user": AUTH.username, "role": f"of-{AUTH.username}"}
    cluster.ask(0, "/v3/auth/user/delete", {"name": AUTH.username})
    try:
        wait_until(lambda: "invalid user ID or password" in why_not_ready(served))
    finally:
        cluster.ask(0, "/v3/auth/user/add", {"name": AUTH.username, "password": AUTH.password})
        cluster.ask(0, "/v3/auth/user/grant", user)
    served.wait_ready()


@pytest.mark.extended
def test_a_full_database_is_reported_and_writes_go_on_once_there_is_space(tmp_path: Path) -> None:
    with EtcdCluster.start(1, options=["--quota-backend-bytes", str(2 * 1024 * 1024)]) as cluster:
        config = etcd_config(tmp_path / "full", "etcd-1", cluster)
        with starting(tmp_path / "full", config) as daemon:
            daemon.wait_listening()
            daemon.wait_ready()
            fill(cluster)
            wait_until(lambda: any(word in why_not_ready(daemon) for word in ("NOSPACE", "space exceeded")))
            with daemon.client() as http:
                refused = http.post(METRICS, json={"name": "app_full", "type": "gauge"})
                assert refused.status_code == 503
                assert "space exceeded" in refused.json()["error"]
            make_room(cluster)
            daemon.wait_ready()
            with daemon.client() as http:
                assert http.post(METRICS, json={"name": "app_full", "type": "gauge"}).status_code == 201
            assert daemon.stop() == 0


def fill(cluster: EtcdCluster) -> None:
    """Until etcd takes no more."""
    with pytest.raises(OSError, match="space exceeded"):
        put_for_ever(cluster)


def put_for_ever(cluster: EtcdCluster) -> None:
    for number in count():
        cluster.put(f"/elsewhere/{number % 2}", "x" * 50_000)


def make_room(cluster: EtcdCluster) -> None:
    header = cluster.ask(0, "/v3/kv/range", {"key": "YQ=="})["header"]
    cluster.ask(0, "/v3/kv/compaction", {"revision": header["revision"], "physical": True})
    cluster.ask(0, "/v3/maintenance/defragment", {})
    alarm = {"action": "DEACTIVATE", "memberID": header["member_id"], "alarm": "NOSPACE"}
    cluster.ask(0, "/v3/maintenance/alarm", alarm)
