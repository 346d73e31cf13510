"""Which upgrade requests are accepted, and how the others are answered before the upgrade."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.auth.tickets import Tickets
from heliosd.hub.direct_writes import DirectWrites
from heliosd.web.authentication import Authenticator
from heliosd.web.http.listeners import Address
from heliosd.web.http.websocket_upgrade import Upgrade
from heliosd.web.session_cookie import NAME
from heliosd.web.stream.admission import Admission
from heliosd.web.stream.connection_log import LINES_A_SECOND, ConnectionLog
from heliosd.web.stream.websocket import WebSocketEndpoint
from heliosd.websocket.readiness import Readiness
from tests.support.hub_harness import ADDED, House, now, open_house
from tests.support.socket_pairs import connected

FOREIGN = "https://evil.example"


async def no_issuer(kid: str) -> None:
    raise AssertionError(kid)


@dataclass
class Daemon:
    house: House
    endpoint: WebSocketEndpoint

    @property
    def token(self) -> str:
        return self.house.access.issue("admin", now().wall).token

    async def ask(
        self, query: dict[str, str] | None = None, *, stay: trio.Event | None = None, **fields: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to one upgrade request; the connection ends then, or after `stay`."""
        upgrade = Upgrade(
            key=b"dGhlIHNhbXBsZSBub25jZQ==",
            query=urlencode(query or {}),
            host="helios.example:8080",
            origins=(),
            authorization=(),
            subprotocols=(),
            extensions="",
        )._replace(**fields)
        async with connected(over_tls=False) as (ours, theirs), trio.open_nursery() as nursery:
            nursery.start_soon(self.endpoint.serve, upgrade, b"", ours, Address("192.0.2.1", 50_000))
            answer = b""
            while b"\r\n\r\n" not in answer:
                piece = await theirs.receive_some()
                assert piece
                answer += piece
            head, _, body = answer.partition(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            while status != 101 and (piece := await theirs.receive_some()):
                body += piece
            if stay is not None:
                await stay.wait()
            await theirs.aclose()
        return status, json.loads(body) if status != 101 else {}


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with open_house() as house:
        readiness = Readiness()
        house.nursery.start_soon(readiness.run)
        admission = Admission(settings=house.settings, hub=house.hub, now=now)
        house.nursery.start_soon(admission.connection_log.run)
        endpoint = WebSocketEndpoint(
            settings=house.settings,
            authenticator=Authenticator(house.access, Tickets(), no_issuer, now),
            hub=house.hub,
            admission=admission,
            readiness=readiness,
        )
        yield Daemon(house, endpoint)


async def test_a_token_is_enough_without_an_origin(daemon: Daemon) -> None:
    assert await daemon.ask({"token": daemon.token}) == (101, {})


async def test_a_refused_origin_is_named_with_the_host_and_the_key_in_the_answer_and_in_the_log(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    status, body = await daemon.ask({"token": daemon.token}, origins=(FOREIGN,))
    assert status == 403
    for text in (body["error"], "".join(capsys.readouterr())):
        for part in (FOREIGN, "helios.example:8080", "server.allowed_origins"):
            assert part in text


async def test_with_a_good_bearer_token_in_the_header_any_origin_is_allowed(daemon: Daemon) -> None:
    authorization = (f"Bearer {daemon.token}",)
    for origins in ((FOREIGN,), ("null",), ("http://helios.example:8080",)):
        assert (await daemon.ask(authorization=authorization, origins=origins))[0] == 101


@pytest.mark.parametrize("authorization", [(), ("Basic YTpi",), ("",), ("Bearer ",)])
async def test_other_headers_do_not_make_an_origin_allowed(
    daemon: Daemon, authorization: tuple[str, ...]
) -> None:
    answer = await daemon.ask({"token": daemon.token}, authorization=authorization, origins=(FOREIGN,))
    assert answer[0] == 403


async def test_a_bad_token_in_the_header_is_401_whatever_the_origin(daemon: Daemon) -> None:
    status, body = await daemon.ask(authorization=("Bearer nonsense",), origins=(FOREIGN,))
    assert (status, body) == (401, {"error": "Invalid token"})


async def test_a_listed_origin_is_allowed_by_any_credentials(daemon: Daemon) -> None:
    settings = daemon.house.settings
    server = replace(settings.current.server, allowed_origins=(FOREIGN,))
    settings.current = replace(settings.current, server=server)
    assert (await daemon.ask({"token": daemon.token}, origins=(FOREIGN,)))[0] == 101


@pytest.mark.parametrize(
    ("origins", "status"),
    [((), 101), (("http://localhost:8080",), 101), ((FOREIGN,), 403), (("http://localhost:9",), 403)],
)
async def test_the_session_cookie_opens_a_socket_for_an_own_page(
    daemon: Daemon, origins: tuple[str, ...], status: int
) -> None:
    cookies = (f"a=b; {NAME}={daemon.token}",)
    assert (await daemon.ask(cookies=cookies, origins=origins, host="localhost:8080"))[0] == status


async def test_a_bad_session_cookie_is_401(daemon: Daemon) -> None:
    assert await daemon.ask(cookies=(f"{NAME}=x.y.z",)) == (401, {"error": "Invalid token"})


@pytest.mark.parametrize("digits", [400, 5000])
async def test_a_number_of_many_digits_in_a_filter_is_refused_and_named(daemon: Daemon, digits: int) -> None:
    said = f'{{"status":{{"min_interval":{"9" * digits}}}}}'
    status, body = await daemon.ask({"token": daemon.token, "filter": said})
    assert status == 400
    assert body["field"].startswith("filter")


async def test_who_is_admitted_during_a_fan_out_has_a_place_before_it_joins(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = trio.Event()

    async def write(*_: object) -> None:
        await over.wait()

    monkeypatch.setattr(DirectWrites, "write", write)
    house, connections = daemon.house, daemon.house.hub.connections
    websocket = replace(house.settings.current.websocket, max_clients=3)
    house.settings.current = replace(house.settings.current, websocket=websocket)
    house.join()
    await house.begin_to_publish(ADDED)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(partial(daemon.ask, {"token": daemon.token}, stay=over))
        while connections.counters.connections["accepted"] < 2:
            await trio.lowlevel.checkpoint()
        assert connections.count() == 1
        assert (await daemon.ask({"token": daemon.token}))[0] == 503
        over.set()
    assert (await daemon.ask({"token": daemon.token}))[0] == 101


async def test_of_many_refusals_in_a_second_fifty_are_logged_and_the_rest_counted(
    autojump_clock: MockClock, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ConnectionLog()
    nursery.start_soon(log.run)
    for _ in range(2000):
        log.refused("192.0.2.1:50000", 401, "Invalid token")
    await trio.sleep(1.5)
    output = "".join(capsys.readouterr())
    assert output.count("client refused") == LINES_A_SECOND
    assert output.count("refused=1950") == 1
    log.refused("192.0.2.1:50000", 401, "Invalid token")
    assert "".join(capsys.readouterr()).count("client refused") == 1
