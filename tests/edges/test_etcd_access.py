"""The client of etcd and who may: users and passwords, tokens that end, rights, and certificates."""

from __future__ import annotations

import os
import random
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from msgspec.structs import replace

from heliosd.cluster.etcd.client import calls
from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.errors import (
    EtcdDenied,
    EtcdError,
    EtcdLearnerBehind,
    EtcdLoginRefused,
    EtcdUnavailable,
    missing_right,
)
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.etcd.client.requests import put
from heliosd.cluster.etcd.client.responses import read_token
from heliosd.cluster.etcd.client.streams import YOUNG_TOKEN_SECONDS
from heliosd.cluster.etcd.client.transport import GatewayRequest
from heliosd.config.model import EtcdConfig
from tests.support.deadlines import SECONDS
from tests.support.etcd_certificates import EtcdCertificates
from tests.support.etcd_cluster import EtcdAuth, EtcdCluster
from tests.support.etcd_endpoints import END, KEY, PREFIX, client_of, in_thread, url
from tests.support.ports import free_port

pytestmark = pytest.mark.needs("etcd")

AUTH = EtcdAuth()
OUTSIDE = b"/elsewhere"
DESCRIPTORS = Path("/proc/self/fd")

T = TypeVar("T")


@pytest.fixture(scope="module")
def guarded() -> Iterator[EtcdCluster]:
    """One member that knows users, whose tokens end soon after their last use."""
    with EtcdCluster.start(1, auth=AUTH, options=["--auth-token-ttl", "1"]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> EtcdCertificates:
    return EtcdCertificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(certificates: EtcdCertificates) -> Iterator[EtcdCluster]:
    """One member that wants client certificates."""
    with EtcdCluster.start(1, tls=certificates) as cluster:
        yield cluster


@pytest.fixture
def login(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "password"
    file.write_text(AUTH.password + "\n")
    return {"username": AUTH.username, "password_file": file}


def ended(cluster: EtcdCluster, token: str) -> bool:
    """Whether etcd refuses the token."""
    headers = {"Authorization": token}
    request = urllib.request.Request(url(cluster, 0) + "/v3/kv/range", b'{"key":"L2hlbGlvc2QvYQ=="}', headers)
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    return False


# Users and passwords.


async def test_a_user_with_the_right_reads_writes_and_watches(
    guarded: EtcdCluster, login: dict[str, Any]
) -> None:
    async with client_of(guarded, **login) as client:
        assert (await client.txn([], [put(KEY, b"x")])).succeeded
        async with client.watch(PREFIX, END) as watch:
            assert (await anext(watch)).created
        assert (await client.lease_grant(10)).seconds == 10


def recorded_tokens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each token that a login of the client will return."""
    tokens: list[str] = []

    def recorded(content: bytes) -> str:
        tokens.append(read_token(content))
        return tokens[-1]

    monkeypatch.setattr(calls, "read_token", recorded)
    return tokens


@pytest.mark.extended
async def test_a_token_that_has_ended_is_renewed_for_reads_writes_and_watches(
    guarded: EtcdCluster, login: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = recorded_tokens(monkeypatch)
    async with client_of(guarded, **login) as client:
        version = (await client.txn([], [put(KEY, b"x")])).header.revision
        for call in (
            lambda: client.range(KEY),
            lambda: client.txn([], [put(KEY, b"y")]),
            lambda: watched_once(client, version),
        ):
            token = tokens[-1]
            assert token
            await until_ended(guarded, token)
            await call()
            assert tokens[-1] != token
        await until_ended(guarded, tokens[-1])
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.range, KEY)


async def until_ended(cluster: EtcdCluster, token: str) -> None:
    """Each use of a token that still holds makes it last longer, also this question."""
    while not await in_thread(ended, cluster, token):  # noqa: ASYNC110 - etcd sends no signal
        await trio.sleep(2.2)


async def watched_once(client: EtcdClient, revision: int) -> None:
    async with client.watch(PREFIX, END, revision) as watch:
        assert (await anext(watch)).created
        assert (await anext(watch)).events


async def test_a_wrong_password_is_reported_and_not_sent_again_until_the_file_has_another(
    guarded: EtcdCluster, login: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    file = login["password_file"]
    file.write_text("c4nary-wrong")
    async with client_of(guarded, **login) as client:
        for _ in range(3):
            with pytest.raises(EtcdLoginRefused) as raised:
                await client.range(KEY)
            text = "etcdserver: authentication failed, invalid user ID or password; the user heliosd needs"
            assert str(raised.value).startswith(f"{url(guarded, 0)}: {text}")
            assert "etcdctl user passwd heliosd" in str(raised.value)
        with pytest.raises(EtcdLoginRefused):
            async with client.watch(PREFIX, END):
                pass
        assert guarded.members[0].log.count("invalid user ID or password") <= 1
        file.write_text(AUTH.password)
        await client.range(KEY)
    assert "c4nary" not in caplog.text
    assert AUTH.password not in caplog.text


async def test_a_user_is_asked_for_by_name_if_none_is_configured(guarded: EtcdCluster) -> None:
    async with client_of(guarded) as client:
        with pytest.raises(EtcdLoginRefused, match="authentication is on in etcd, and no user was shown"):
            await client.txn([], [put(KEY, b"x")])
        with pytest.raises(EtcdLoginRefused):
            async with client.watch(PREFIX, END):
                pass


async def test_a_missing_right_is_reported_as_such(guarded: EtcdCluster, login: dict[str, Any]) -> None:
    async with client_of(guarded, **login) as client:
        with pytest.raises(EtcdDenied) as raised:
            await client.range(OUTSIDE)
        grant = missing_right("/kv/range", AUTH.username, "/heliosd/")
        assert str(raised.value) == f"{url(guarded, 0)}: etcdserver: permission denied; {grant}"
        with pytest.raises(EtcdDenied):
            await client.txn([], [put(OUTSIDE, b"x")])
        with pytest.raises(EtcdDenied):
            await client.member_add(["http://127.0.0.1:1"])
        with pytest.raises(EtcdDenied):
            async with client.watch(OUTSIDE):
                pass
        with pytest.raises(EtcdDenied):
            async with client.snapshot(url(guarded, 0)):
                pass
        assert client.endpoints()[0].reason == ""


async def test_a_password_file_that_is_gone_is_reported_and_nothing_was_written(
    guarded: EtcdCluster, login: dict[str, Any]
) -> None:
    login["password_file"].unlink()
    async with client_of(guarded, **login) as client:
        with pytest.raises(EtcdUnavailable, match=r"cannot read password_file .*: No such file or directory"):
            await client.txn([], [put(KEY, b"x")])


async def test_authentication_may_be_turned_on_and_tokens_be_forgotten_later(login: dict[str, Any]) -> None:
    with EtcdCluster.start(1) as cluster:
        async with client_of(cluster, **login) as client:
            await client.txn([], [put(KEY, b"before")])
            await in_thread(cluster.enable_auth, AUTH)
            await client.txn([], [put(KEY, b"after")])
            await in_thread(cluster.restart, 0)  # simple tokens do not outlive it
            assert (await client.range(KEY)).kvs[0].version == 2


# Certificates.


def shown(certificates: EtcdCertificates, name: str = "client") -> dict[str, Any]:
    return {
        "ca_cert": certificates.ca_cert,
        "client_cert": getattr(certificates, f"{name}_cert"),
        "client_key": getattr(certificates, f"{name}_key"),
    }


async def reason_refused(cluster: EtcdCluster, **changes: Any) -> str:
    """Why a write cannot be made: never of unknown outcome, and the same each time."""
    async with client_of(cluster, **changes) as client:
        reasons = set()
        for _ in range(3):
            with pytest.raises(EtcdUnavailable) as error:
                await client.txn([], [put(KEY, b"x")])
            reasons.add(error.value.reason)
        assert len(reasons) == 1
        with pytest.raises(EtcdUnavailable):
            await client.status(error.value.endpoint)
        return reasons.pop()


def copied(certificates: EtcdCertificates, folder: Path) -> dict[str, Path]:
    """What is `shown`, in files of that folder."""
    files = {name: folder / name for name in shown(certificates)}
    for name, file in files.items():
        file.write_bytes(shown(certificates)[name].read_bytes())
    return files


async def test_a_client_certificate_opens_everything(
    encrypted: EtcdCluster, certificates: EtcdCertificates
) -> None:
    async with client_of(encrypted, **shown(certificates)) as client:
        assert (await client.txn([], [put(KEY, b"x")])).succeeded
        async with client.watch(PREFIX, END) as watch:
            assert (await anext(watch)).created
        async with client.snapshot(url(encrypted, 0)) as snapshot:
            async for _ in snapshot:
                pass
        assert snapshot.sha256


async def test_a_certificate_that_does_not_fit_is_named(
    encrypted: EtcdCluster, certificates: EtcdCertificates
) -> None:
    ca = {"ca_cert": certificates.ca_cert}
    assert await reason_refused(encrypted, **ca) == "it wants a client certificate, and none is configured"
    # The words after the colon depend on the Go that etcd was built with.
    for name in ("stranger", "expired"):
        assert (await reason_refused(encrypted, **shown(certificates, name))).startswith(
            "it refused our certificate: "
        )
    wrong = shown(certificates) | {"ca_cert": certificates.stranger_ca}
    assert "its certificate is not trusted: unable to get local issuer" in await reason_refused(
        encrypted, **wrong
    )
    assert "its certificate is not trusted" in await reason_refused(
        encrypted, **shown(certificates) | {"ca_cert": None}
    )


async def test_http_and_https_confused_is_said_so(
    guarded: EtcdCluster, encrypted: EtcdCluster, certificates: EtcdCertificates
) -> None:
    plain = (url(encrypted, 0).replace("https", "http"),)
    assert (
        await reason_refused(encrypted, endpoints=plain)
        == "it closed the connection without an answer; is it https?"
    )
    secure = (url(guarded, 0).replace("http", "https"),)
    assert await reason_refused(encrypted, endpoints=secure) == "it broke off the TLS handshake; is it http?"


async def test_certificates_are_read_anew_when_their_files_change(
    encrypted: EtcdCluster, certificates: EtcdCertificates, tmp_path: Path
) -> None:
    files = {name: tmp_path / name for name in ("ca_cert", "client_cert", "client_key")}
    async with client_of(encrypted, **files) as client:
        with pytest.raises(EtcdUnavailable, match=r"cannot read .*/ca_cert: No such file or directory"):
            await client.range(KEY)
        for file in files.values():
            file.write_text("not PEM")
        with pytest.raises(EtcdUnavailable, match="the certificate files cannot be used"):
            await client.range(KEY)
        for name, file in files.items():
            file.write_bytes(
                shown(certificates, "stranger" if name != "ca_cert" else "client")[name].read_bytes()
            )
        with pytest.raises(EtcdUnavailable, match="it refused our certificate"):
            await client.range(KEY)
        for name, file in files.items():
            file.write_bytes(shown(certificates)[name].read_bytes())
        await client.range(KEY)


@pytest.mark.parametrize("step", ["a key of another pair", "half a file", "no file"])
async def test_while_a_certificate_is_being_replaced_the_former_one_is_used(
    encrypted: EtcdCluster,
    certificates: EtcdCertificates,
    tmp_path: Path,
    step: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = copied(certificates, tmp_path)
    async with client_of(encrypted, **files) as client:
        await client.range(KEY)
        if step == "a key of another pair":
            files["client_cert"].write_bytes(shown(certificates, "stranger")["client_cert"].read_bytes())
        elif step == "half a file":
            files["client_key"].write_text("half of a ke")
        else:
            files["client_key"].unlink()
        for _ in range(2):
            async with client.attached(url(encrypted, 0)) as connection:  # a new one
                assert b"etcd_server_is_leader" in connection.body
        assert len(caplog.records) == 1
        assert "those read before" in caplog.text
        files["client_cert"].write_bytes(shown(certificates, "stranger")["client_cert"].read_bytes())
        files["client_key"].write_bytes(shown(certificates, "stranger")["client_key"].read_bytes())
        with pytest.raises(EtcdUnavailable, match="it refused our certificate"):
            async with client.attached(url(encrypted, 0)):
                ...


async def test_certificate_files_that_hang_hold_up_nobody(
    encrypted: EtcdCluster,
    certificates: EtcdCertificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = copied(certificates, tmp_path)
    async with client_of(encrypted, **files) as client:
        await client.range(KEY)
        files["client_key"].unlink()
        os.mkfifo(files["client_key"])  # reading it waits for a writer
        monkeypatch.setattr("heliosd.cluster.etcd.client.certificates.READ_SECONDS", 0.1)
        for _ in range(3):
            async with client.attached(url(encrypted, 0)) as connection:  # a new one
                assert b"etcd_server_is_leader" in connection.body
        assert "cannot read the certificate files within 0.1 s" in caplog.text
        os.close(os.open(files["client_key"], os.O_RDWR | os.O_NONBLOCK))  # the thread that reads goes on


async def test_a_list_is_not_called_the_same_without_certificates(
    encrypted: EtcdCluster, certificates: EtcdCertificates, tmp_path: Path
) -> None:
    async with client_of(encrypted, **shown(certificates)) as client:
        listed = await client.member_list(url(encrypted, 0))
        assert await client.lists_the_same(url(encrypted, 0), listed)
    missing = shown(certificates) | {"client_key": tmp_path / "none"}
    async with client_of(encrypted, **missing) as client:
        assert not await client.lists_the_same(url(encrypted, 0), listed)


async def test_password_and_certificate_together_but_for_a_common_name(
    certificates: EtcdCertificates, login: dict[str, Any]
) -> None:
    with EtcdCluster.start(1, tls=certificates, auth=AUTH) as cluster:
        async with client_of(cluster, **shown(certificates), **login) as client:
            await client.txn([], [put(KEY, b"x")])
        async with client_of(cluster, **shown(certificates, "named"), **login) as client:
            with pytest.raises(EtcdLoginRefused, match="no client certificate with a common name"):
                await client.txn([], [put(KEY, b"x")])


async def test_a_handshake_that_hangs_is_reported_and_leaves_no_socket_open(
    certificates: EtcdCertificates,
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    config = EtcdConfig(endpoints=(f"https://127.0.0.1:{listener.socket.getsockname()[1]}",))
    async with listener, EtcdClient(replace(config, ca_cert=certificates.ca_cert)) as client:
        before = len(list(DESCRIPTORS.iterdir()))
        for _ in range(10):
            with trio.move_on_after(0.05):
                await client.range(KEY)
        assert len(list(DESCRIPTORS.iterdir())) <= before
        with pytest.raises(EtcdUnavailable, match="no answer within 1 s"):
            await client.status(config.endpoints[0])


def test_no_error_has_a_place_for_a_secret() -> None:
    for kind in (EtcdError, EtcdUnavailable):
        assert set(vars(kind("http://h", "why"))) == {"endpoint", "reason"}
    assert {each.name for each in fields(GatewayRequest) if not each.repr} == {"body", "token"}


async def test_a_token_that_its_member_forgot_in_a_restart_is_renewed_for_a_watch(
    login: dict[str, Any],
) -> None:
    """A simple token is in the memory of the members; etcd 3.5 says "permission denied" to a watch without one."""
    with EtcdCluster.start(1, auth=AUTH) as cluster:
        async with client_of(cluster, **login) as client:
            revision = (await client.txn([], [put(KEY, b"x")])).header.revision
            await trio.sleep(YOUNG_TOKEN_SECONDS)
            await in_thread(cluster.restart, 0)
            await in_thread(cluster.leader)
            await watched_once(client, revision)


@pytest.mark.extended
async def test_a_learner_is_promoted_where_authentication_is_on(login: dict[str, Any]) -> None:
    with EtcdCluster.start(2, auth=EtcdAuth(root=True)) as cluster:
        async with client_of(cluster, **login) as client:
            spare = cluster.spare("etcd-3")
            added = await until_done(lambda: client.member_add([spare.peer_url]))
            await in_thread(cluster.join, spare)
            leader = url(cluster, await in_thread(cluster.leader))
            await until_done(lambda: client.member_promote(leader, added.id))
            assert not any(each.is_learner for each in await client.members(leader))


async def until_done(call: Callable[[], Awaitable[T]]) -> T:
    """etcd refuses to add a member until all have been connected for 5 s, and to promote one that is behind."""
    with trio.fail_after(SECONDS):
        while True:
            try:
                return await call()
            except (EtcdUnavailable, EtcdLearnerBehind):
                await trio.sleep(0.1)  # etcd reports to nobody when it will accept it


async def test_an_endpoint_of_another_cluster_with_authentication_does_not_touch_our_login(
    guarded: EtcdCluster, login: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = recorded_tokens(monkeypatch)
    other = EtcdAuth(password="not the same")
    (tmp_path / "other").write_text(other.password)
    other_login = {"username": other.username, "password_file": tmp_path / "other"}
    with EtcdCluster.start(1, auth=other) as foreign:
        async with client_of(guarded, **login) as client:
            identity = ClusterIdentity((await client.status(url(guarded, 0))).header.cluster_id)
        async with client_of(foreign, **other_login) as client:
            for _ in range(20):  # a member compares the index in a token with its own
                await client.txn([], [put(KEY, b"foreign")])
        urls = (url(guarded, 0), url(foreign, 0))
        async with EtcdClient(EtcdConfig(endpoints=urls, **login), random.Random(1), identity) as client:
            await client.txn([], [put(KEY, b"ours")])
            await until_ended(guarded, tokens[-1])
            for _ in range(2):
                with suppress(EtcdError):
                    await client.status(urls[1])
            assert (await client.range(KEY)).kvs[0].value == b"ours"


async def test_where_a_verified_endpoint_does_not_answer_the_login_is_made_at_another(
    guarded: EtcdCluster, login: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = recorded_tokens(monkeypatch)
    ours, silent = url(guarded, 0), f"http://127.0.0.1:{free_port()}"
    config, identity = EtcdConfig(endpoints=(ours, silent), **login), ClusterIdentity()
    async with client_of(guarded, **login) as client:
        identity.own = (await client.status(ours)).header.cluster_id
    async with EtcdClient(config, random.Random(1), identity) as client:
        await client.txn([], [put(KEY, b"x")])
        identity.seen(silent, identity.own, trio.current_time())
        identity.lost(ours)
        await until_ended(guarded, tokens[-1])
        assert (await client.range(KEY)).kvs[0].value == b"x"
