"""Open sockets of a running daemon whose rights, keys or passwords are taken away."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.support.command_line import printed_by
from tests.support.daemon_process import Daemon, close_code, receive, running, wait_until
from tests.support.deadlines import SECONDS, at_most
from tests.support.issuer_tokens import ISSUER, document, jwk, key, signed
from tests.support.passwords import cheap_hash

OTHER_HASH = cheap_hash("another word")
AT_MOST = 1.0
"""Seconds from the reload's signal to the close."""


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[Daemon]:
    """For a test that changes the key."""
    with running(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("shared")) as started:
        yield started


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """One for several tests: after each it has its first configuration again."""
    whole = shared.config.read_text(encoding="utf-8")
    yield shared
    assert reload(shared, whole) == "configuration reloaded"


def reload(daemon: Daemon, text: str | None = None) -> str:
    """Write this text to the config file, if any, and have it read. Returns the event that is logged."""
    if text is not None:
        daemon.config.write_text(text, encoding="utf-8")
    before = len(reloads(daemon))
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(reloads(daemon)) > before)
    return reloads(daemon)[-1]


def reloads(daemon: Daemon) -> list[str]:
    return [line["event"] for line in daemon.lines if "reloaded" in line.get("event", "")]


def viewer(text: str, old: str, new: str) -> str:
    """The config with something changed in the section of the user viewer."""
    return re.sub(rf'(name = "viewer"\n(?:.+\n)*?){old}', rf"\g<1>{new}", text)


def issued(daemon: Daemon, user: str, ttl: str) -> str:
    """A token from `heliosd token`."""
    options = ["--config", str(daemon.config), "--user", user, "--ttl", ttl]
    return printed_by("token", *options, STATE_DIRECTORY=str(daemon.config.parent / "state")).strip()


def authorized(daemon: Daemon, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{daemon.url}/api/auth/me", headers=headers, timeout=SECONDS, verify=False).status_code


# -- taken away by a reload ------------------------------------------------------------------------------------


def take_away_and_time(daemon: Daemon, changed: str, code: int) -> None:
    whole = daemon.config.read_text(encoding="utf-8")
    token = daemon.token("viewer")
    with daemon.connect(token) as mine, daemon.connect(daemon.token("admin")) as other:
        receive(mine, "status")
        receive(other, "status")
        daemon.config.write_text(changed, encoding="utf-8")
        since = time.monotonic()
        daemon.process.send_signal(signal.SIGHUP)
        assert close_code(mine) == code
        assert time.monotonic() - since < at_most(AT_MOST)
        other.send('{"type":"ping"}')
        receive(other, "pong")
    assert authorized(daemon, token) in {200, 401}
    assert reload(daemon, whole) == "configuration reloaded"


def changes(text: str) -> list[tuple[str, int]]:
    return [
        (viewer(text, r'roles = \["viewer"\]', "roles = []"), 4403),
        (re.sub(r'\[\[auth.users\]\]\nname = "viewer"\n.+\n.+\n', "", text), 4403),
        (viewer(text, r'password_hash = ".+"', f'password_hash = "{OTHER_HASH}"'), 4401),
    ]


def test_a_role_a_user_or_a_password_that_is_taken_away_closes_its_sockets_at_once(daemon: Daemon) -> None:
    whole = daemon.config.read_text(encoding="utf-8")
    for changed, code in changes(whole):
        assert changed != whole
        for _ in range(5):
            take_away_and_time(daemon, changed, code)


@pytest.mark.slow
def test_rights_that_are_taken_away_close_their_sockets_a_hundred_times_of_a_hundred(daemon: Daemon) -> None:
    whole = daemon.config.read_text(encoding="utf-8")
    for changed, code in changes(whole):
        for _ in range(100):
            take_away_and_time(daemon, changed, code)


def test_after_a_changed_password_its_users_tokens_are_dead_and_a_new_login_works(daemon: Daemon) -> None:
    before, program = daemon.token("viewer"), issued(daemon, "viewer", "1h")
    admin = daemon.token("admin")
    assert [authorized(daemon, token) for token in (before, program, admin)] == [200] * 3
    whole = daemon.config.read_text(encoding="utf-8")
    reload(daemon, viewer(whole, r'password_hash = ".+"', f'password_hash = "{OTHER_HASH}"'))
    assert [authorized(daemon, token) for token in (before, program, admin)] == [401, 401, 200]
    login = {"username": "viewer", "password": "another word"}
    answer = httpx.post(f"{daemon.url}/api/auth/login", json=login, timeout=SECONDS, verify=False)
    assert authorized(daemon, answer.json()["token"]) == 200
    assert authorized(daemon, issued(daemon, "viewer", "1h")) == 200


# -- the daemon's own key --------------------------------------------------------------------------------------


def test_a_signing_key_gives_way_to_another_without_an_interruption(own_daemon: Daemon) -> None:
    daemon = own_daemon
    file = daemon.config.parent / "state" / "jwt_secret"
    old, new = file.read_text().strip(), "0123456789abcdef" * 4
    first = daemon.token()
    with ExitStack() as sockets:
        early = sockets.enter_context(daemon.connect(first))
        receive(early, "status")
        file.write_text(f"{new}\n{old}\n")
        assert reload(daemon) == "configuration reloaded"
        second = daemon.token()
        late = sockets.enter_context(daemon.connect(second))
        receive(late, "status")
        assert [authorized(daemon, token) for token in (first, second)] == [200, 200]
        early.send(json.dumps({"type": "ping"}))
        receive(early, "pong")
        # A file that cannot be used changes nothing at all.
        for broken in ("", "short\n", f"{new}\nshort\n", "x" * 64):
            file.write_text(broken)
            assert reload(daemon).startswith("configuration not reloaded")
            assert [authorized(daemon, token) for token in (first, second)] == [200, 200]
        file.unlink()
        assert reload(daemon).startswith("configuration not reloaded")
        file.write_text(f"{new}\n")
        assert reload(daemon) == "configuration reloaded"
        assert close_code(early) == 4401
        late.send(json.dumps({"type": "ping"}))
        receive(late, "pong")
    assert [authorized(daemon, token) for token in (first, second)] == [401, 200]
    assert old not in "".join(daemon.raw)
    assert new not in "".join(daemon.raw)


def test_a_configured_key_file_is_read_again_without_a_restart(own_daemon: Daemon) -> None:
    daemon = own_daemon
    configured = daemon.config.parent / "key"
    configured.write_text("fedcba9876543210" * 4)
    configured.chmod(0o600)
    token, text = daemon.token(), daemon.config.read_text(encoding="utf-8")
    assert (
        reload(daemon, text.replace("[auth]\n", '[auth]\njwt_secret_file = "key"\n'))
        == "configuration reloaded"
    )
    reloaded = [line for line in daemon.lines if line["event"] == "configuration reloaded"]
    assert reloaded[-1]["needs_restart"] == []
    assert authorized(daemon, token) == 401
    assert authorized(daemon, daemon.token()) == 200


# -- the end of a token ----------------------------------------------------------------------------------------


def test_a_short_token_is_warned_of_then_holds_events_back_until_a_newer_one(daemon: Daemon) -> None:
    token = issued(daemon, "viewer", "6s")
    claims = jwt.decode(token, options={"verify_signature": False})
    with daemon.connect(token) as socket, daemon.client() as admin:
        receive(socket, "status")
        warning = receive(socket, "token_expiring")
        assert datetime.fromisoformat(warning["data"]["expires_at"]).timestamp() == claims["exp"]
        make_event(admin, "before")
        first = receive_event(socket)
        wait_until(lambda: authorized(daemon, token) == 401, pause=0.2)
        drain(socket)
        for number in range(3):
            make_event(admin, f"during_{number}")
        assert drain(socket) == []
        auth = {"type": "auth", "id": 7, "data": {"token": issued(daemon, "viewer", "1h")}}
        socket.send(json.dumps(auth))
        answer = json.loads(socket.recv(SECONDS))
        assert (answer["type"], answer["id"]) == ("authenticated", 7)
        assert [receive_event(socket)["seq"] for _ in range(3)] == [first["seq"] + n for n in (1, 2, 3)]


def make_event(admin: httpx.Client, name: str) -> None:
    body = {"name": name, "type": "gauge"}
    assert admin.post("/api/cluster/custom-metrics", json=body).status_code == 201


def receive_event(socket: ClientConnection) -> dict[str, Any]:
    while True:
        message = json.loads(socket.recv(SECONDS))
        if "seq" in message:
            return dict(message)


def drain(socket: ClientConnection) -> list[str]:
    """The types of all that comes within half a second."""
    found = []
    try:
        while True:
            found.append(json.loads(socket.recv(0.5))["type"])
    except TimeoutError:
        return found


# -- an outside issuer -----------------------------------------------------------------------------------------


@contextmanager
def issuer(keys: dict[str, str]) -> Iterator[str]:
    """A server that publishes these keys (their kind by `kid`), changeable at any time. Its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = document(*(jwk(key(kind), kid) for kid, kind in keys.items()))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys"
        finally:
            server.shutdown()
            thread.join()


def issuer_token(seconds: float = 3600, **changes: Any) -> str:
    return signed(key("ES256"), "k1", alg="ES256", exp=time.time() + seconds, **changes)


def test_a_token_of_an_outside_issuer_opens_a_socket_and_renews_it(daemon: Daemon) -> None:
    whole = daemon.config.read_text(encoding="utf-8")
    with issuer({"k1": "ES256"}) as url:
        trusting = whole.replace("[auth]\n", f'[auth]\njwks_url = "{url}"\njwks_issuer = "{ISSUER}"\n')
        assert reload(daemon, trusting) == "configuration reloaded"
        assert authorized(daemon, issuer_token()) == 200
        with pytest.raises(InvalidStatus) as refused, daemon.connect(issuer_token(roles=["unheard-of"])):
            pass
        assert refused.value.response.status_code == 403
        with daemon.connect(issuer_token(5, jti="short")) as socket:
            receive(socket, "token_expiring")
            socket.send(json.dumps({"type": "auth", "id": 1, "data": {"token": issuer_token(jti="long")}}))
            assert receive(socket, "authenticated")["id"] == 1
            forged = signed(key("ES256", 1), "k1", alg="ES256", exp=time.time() + 60)
            socket.send(json.dumps({"type": "auth", "id": 2, "data": {"token": forged}}))
            assert receive(socket, "error")["id"] == 2
            socket.send(json.dumps({"type": "auth", "data": {"token": issuer_token(sub="someone-else")}}))
            assert close_code(socket) == 4403
        with daemon.connect(issuer_token()) as socket, daemon.connect(daemon.token("viewer")) as own:
            receive(socket, "status")
            receive(own, "status")
            since = time.monotonic()
            assert reload(daemon, whole) == "configuration reloaded"
            assert close_code(socket) == 4401
            assert time.monotonic() - since < at_most(AT_MOST)
            own.send('{"type":"ping"}')
            receive(own, "pong")
    assert authorized(daemon, issuer_token()) == 401


def test_another_url_of_an_outside_issuers_keys_ends_its_sockets_and_no_others(daemon: Daemon) -> None:
    whole = daemon.config.read_text(encoding="utf-8")
    with issuer({"k1": "ES256"}) as url:
        trusting = whole.replace("[auth]\n", f'[auth]\njwks_url = "{url}"\njwks_issuer = "{ISSUER}"\n')
        reload(daemon, trusting)
        # Its own end, in case nothing else closes the socket.
        with daemon.connect(issuer_token(30)) as socket, daemon.connect(daemon.token("viewer")) as own:
            receive(socket, "status")
            receive(own, "status")
            since = time.monotonic()
            assert reload(daemon, trusting.replace(url, f"{url}?v=2")) == "configuration reloaded"
            assert close_code(socket) == 4401
            assert time.monotonic() - since < at_most(AT_MOST)
            own.send('{"type":"ping"}')
            receive(own, "pong")
        assert authorized(daemon, issuer_token()) == 200


def test_while_the_issuer_is_down_its_users_get_503_and_ours_notice_nothing(daemon: Daemon) -> None:
    whole = daemon.config.read_text(encoding="utf-8")
    trusting = whole.replace(
        "[auth]\n", f'[auth]\njwks_url = "http://127.0.0.1:1/keys"\njwks_issuer = "{ISSUER}"\n'
    )
    reload(daemon, trusting)
    assert authorized(daemon, issuer_token()) == 503
    with pytest.raises(InvalidStatus) as refused, daemon.connect(issuer_token()):
        pass
    assert refused.value.response.status_code == 503
    assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 10
    with daemon.connect(daemon.token("viewer")) as own:
        receive(own, "status")


# -- limits ----------------------------------------------------------------------------------------------------


def test_more_clients_than_allowed_are_refused_with_a_jittered_time_to_come_back(tmp_path: Path) -> None:
    with (
        running(tmp_path, websocket="max_clients = 3\nmax_clients_per_user = 2") as daemon,
        ExitStack() as inside,
    ):
        admin, viewer_ = daemon.token("admin"), daemon.token("viewer")
        first = inside.enter_context(daemon.connect(admin))
        inside.enter_context(daemon.connect(admin))
        assert 1 <= refused(daemon, admin) <= 10
        inside.enter_context(daemon.connect(viewer_))
        waits = [refused(daemon, viewer_) for _ in range(20)]
        assert all(1 <= wait <= 10 for wait in waits)
        assert len(set(waits)) > 1
        with daemon.client() as http:
            counted = re.search(
                r'heliosd_ws_connections_total\{result="full"\} (\d+)', http.get("/metrics").text
            )
            assert counted is not None
            assert int(counted[1]) == 21
        # A place that becomes free can be taken.
        first.close()
        wait_until(lambda: httpx_clients(daemon, admin) == 2)
        inside.enter_context(daemon.connect(admin))


def refused(daemon: Daemon, token: str) -> int:
    """Seconds to wait, as the refusal says."""
    with pytest.raises(InvalidStatus) as caught, daemon.connect(token):
        pass
    response = caught.value.response
    assert response.status_code == 503
    assert json.loads(response.body or b"") == {"error": "Too many clients"}
    return int(response.headers["Retry-After"])


def httpx_clients(daemon: Daemon, token: str) -> int:
    answer = httpx.get(
        f"{daemon.url}/api/cluster/clients",
        headers={"Authorization": f"Bearer {token}"},
        timeout=SECONDS,
        verify=False,
    )
    return len(answer.json()["clients"])
