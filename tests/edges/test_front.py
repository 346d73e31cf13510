"""The front over real sockets: which handler gets a request, what is answered here, and what ends a connection."""

from __future__ import annotations

import json
import os
import resource
import socket as stdlib
import stat
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
import structlog
import trio
import trio.testing

from heliosd.config.addresses import Listen
from heliosd.web.http import front
from heliosd.web.http.front import Serve, ServeLive
from heliosd.web.http.listeners import ACCEPTED_AT_ONCE, WARNING_SECONDS, Address, ListenError, open_listeners
from heliosd.web.http.request_head import RequestHead
from heliosd.web.http.websocket_upgrade import Upgrade
from heliosd.websocket.tls import ClientStream, TLSStream
from tests.support.front_server import GET, KEY, Front, becomes, open_front, read_all, tls_contexts, upgrade

LIMIT_SECONDS = 60


def answering(text: bytes) -> Serve:
    async def answer(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        await stream.send_all(b" ".join((text, head.target, trailing, peer.host.encode())))

    return answer


def upgraded(text: bytes) -> ServeLive:
    async def answer(upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        words = (text, upgrade.key, upgrade.query.encode(), trailing, peer.host.encode())
        await stream.send_all(b" ".join(words))

    return answer


def status_and_error(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head
    assert b"\r\nConnection: close" in head
    return int(head.split(b" ")[1]), json.loads(body)["error"]


async def test_an_ordinary_request_goes_to_the_rest_with_the_bytes_behind_it() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=answering(b"rest")) as front:
            answer = await front.ask(b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
    assert answer == b"rest /a?b body 127.0.0.1"


async def test_an_upgrade_of_the_websocket_path_goes_live() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(live=upgraded(b"live")) as front:
            answer = await front.ask(upgrade(b"/ws/cluster?token=t"))
    assert answer == b"live %b token=t  127.0.0.1" % KEY


@pytest.mark.parametrize(
    "target", [b"//ws/cluster", b"/ws%2fcluster", b"/ws/cluster/", b"/", b"/api/cluster/status"]
)
async def test_an_upgrade_of_any_other_path_is_answered_404_and_counted(target: bytes) -> None:
    malformed: list[None] = []
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(count_malformed=lambda: malformed.append(None)) as front:
            assert status_and_error(await front.ask(upgrade(target))) == (404, "Not found")
    assert malformed == [None]


async def test_the_websocket_path_without_an_upgrade_says_what_it_speaks() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front() as front:
            answer = await front.ask(b"GET /ws/cluster HTTP/1.1\r\nHost: a\r\n\r\n")
            empty = await front.ask(b"HEAD /ws/cluster HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status_and_error(answer)[0] == 426
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert b"\r\nConnection: close, Upgrade\r\n" in answer
    assert empty == answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


async def test_another_websocket_version_is_answered_with_ours() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front() as front:
            answer = await front.ask(upgrade().replace(b"Version: 13", b"Version: 8"))
    assert status_and_error(answer)[0] == 426
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\n\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1500 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: " + b"b" * 20000, 431),
    ],
)
async def test_a_refusal_arrives_although_much_more_was_sent(sent: bytes, status: int) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front() as front:
            answer = await front.ask(sent + b"x" * 300_000)
    assert status_and_error(answer)[0] == status


async def test_a_refused_peer_that_never_closes_is_cut_after_a_second() -> None:
    async def send_for_ever(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.02)  # a peer that drips bytes, which is what is tested

    with trio.fail_after(LIMIT_SECONDS):
        async with open_front() as front, await front.connect() as stream:
            await stream.send_all(upgrade(b"/elsewhere"))
            await read_all(stream)
            began = trio.current_time()
            with pytest.raises(trio.BrokenResourceError):  # a reset, once the daemon has closed
                await send_for_ever(stream)
    assert trio.current_time() - began > 0.5


async def test_a_head_that_is_not_whole_in_time_is_closed_however_it_drips() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"a")
                await trio.sleep(0.02)

    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(head_seconds=0.3) as front:
            for opening in (b"", b"GET /", upgrade()[:-4] + b"\r\nX: "):
                async with await front.connect() as stream, trio.open_nursery() as nursery:
                    await stream.send_all(opening)
                    began = trio.current_time()
                    if opening:
                        nursery.start_soon(drip, stream)
                    with suppress(trio.BrokenResourceError):  # a reset, where a drop came unread
                        assert await stream.receive_some() == b""
                    assert trio.current_time() - began > 0.2
                    nursery.cancel_scope.cancel()


async def test_the_deadline_holds_for_a_tls_handshake_that_never_begins() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(tls=tls_contexts()[0], head_seconds=0.3) as front:
            assert await front.ask(b"") == b""


async def test_over_tls_the_same_request_is_served() -> None:
    server, client = tls_contexts()
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_front(rest=answering(b"rest"), tls=server) as front,
            trio.SSLStream(await front.connect(), client, server_hostname="127.0.0.1") as stream,
        ):
            await stream.send_all(GET)
            assert await read_all(stream) == b"rest /  127.0.0.1"


async def test_while_many_tls_handshakes_are_under_way_no_more_connections_are_accepted() -> None:
    begun = 0
    shake = TLSStream.do_handshake

    async def counted(stream: TLSStream) -> None:
        nonlocal begun
        begun += 1
        await shake(stream)

    with (
        trio.fail_after(LIMIT_SECONDS),
        patch.object(front, "HANDSHAKE_PATIENCE", 60.0),
        patch.object(TLSStream, "do_handshake", counted),
    ):
        async with open_front(tls=tls_contexts()[0]) as server:
            clients = [await server.connect() for _ in range(200)]
            await becomes(lambda: begun >= front.HANDSHAKES_AT_ONCE)
            await trio.testing.wait_all_tasks_blocked()
            assert begun <= front.HANDSHAKES_AT_ONCE + 2 * ACCEPTED_AT_ONCE
            for stream in clients:  # each that gives up makes room
                await stream.aclose()
            await becomes(lambda: begun == len(clients))


async def test_stalled_tls_handshakes_do_not_keep_others_out() -> None:
    tls, client = tls_contexts()
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=answering(b"rest"), tls=tls, head_seconds=60) as server:
            stalled = [await server.connect() for _ in range(300)]
            async with trio.SSLStream(await server.connect(), client, server_hostname="127.0.0.1") as stream:
                await stream.send_all(GET)
                assert await read_all(stream) == b"rest /  127.0.0.1"
            for one in stalled:
                await one.aclose()


async def test_an_exception_ends_its_own_connection_only() -> None:
    async def fails(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        raise ZeroDivisionError

    with trio.fail_after(LIMIT_SECONDS), structlog.testing.capture_logs() as logged:
        async with open_front(rest=fails, live=upgraded(b"live")) as front:
            assert await front.ask(GET) == b""
            assert (await front.ask(upgrade())).startswith(b"live")
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["connection failed"]


async def test_small_answers_leave_at_once() -> None:
    async def option(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        await stream.send_all(b"%d" % stream.socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY))

    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=option) as front:
            assert await front.ask(GET) == b"1"


async def test_without_descriptors_it_waits_warns_once_a_second_and_goes_on() -> None:
    go_on = trio.Event()

    async def greet(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        await stream.send_all(b"hello")
        await go_on.wait()
        await stream.send_all(b" and more")

    times: list[float] = []

    def warnings() -> list[float]:
        count = sum(line["event"] == "cannot accept connections" for line in logged)
        times.extend([trio.current_time()] * (count - len(times)))
        return times

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with trio.fail_after(LIMIT_SECONDS), structlog.testing.capture_logs() as logged:
        async with open_front(rest=greet) as front, await front.connect() as early:
            await early.send_all(GET)
            assert await early.receive_some() == b"hello"
            late = [trio.socket.socket() for _ in range(3)]
            free = os.dup(0)
            os.close(free)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
                for socket in late:
                    await socket.connect(("127.0.0.1", front.port))
                await becomes(lambda: len(warnings()) == 2)
                go_on.set()
                assert await read_all(early) == b" and more"
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for socket in late:
                async with trio.SocketStream(socket) as stream:
                    await stream.send_all(GET)
                    assert await read_all(stream) == b"hello and more"
    assert times[1] - times[0] >= WARNING_SECONDS / 2  # seen some time after it was logged


async def test_a_stop_closes_the_listener_first_and_waits_for_requests_in_flight() -> None:
    finish = trio.Event()
    entered = trio.Event()

    async def slow(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        entered.set()
        await finish.wait()
        await stream.send_all(b"served")

    async def refused(front: Front) -> bool:
        try:
            await (await front.connect()).aclose()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            return False  # it was waiting to be accepted when the listening socket was closed
        return False

    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_front(rest=slow) as front,
            await front.connect() as silent,
            await front.connect() as inside,
        ):
            await inside.send_all(GET)
            await entered.wait()
            front.stop.set()
            assert await silent.receive_some() == b""
            assert await refused(front)
            assert not front.ended.is_set()
            finish.set()
            assert await read_all(inside) == b"served"
            await front.ended.wait()


async def test_cancelling_cuts_requests_in_flight() -> None:
    entered = trio.Event()

    async def stuck(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
        entered.set()
        await trio.sleep_forever()

    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=stuck) as front:
            inside = await front.connect()
            await inside.send_all(GET)
            await entered.wait()
        assert await read_all(inside) == b""
        await inside.aclose()


async def test_port_0_binds_a_free_port_and_a_taken_one_is_a_clear_error() -> None:
    (listener,) = await open_listeners(Listen("127.0.0.1", 0))
    port = listener.socket.getsockname()[1]
    assert port > 0
    with pytest.raises(ListenError, match=rf"127.0.0.1:{port}: Address already in use"):
        await open_listeners(Listen("127.0.0.1", port))
    await listener.aclose()
    (again,) = await open_listeners(Listen("127.0.0.1", port))
    await again.aclose()


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")  # noqa: PTH110
async def test_an_ipv6_address_is_listened_on_and_the_unspecified_one_takes_ipv4_too() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        for host, dial in (("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1")):
            (listener,) = await open_listeners(Listen(host, 0))
            stream = await trio.open_tcp_stream(dial, listener.socket.getsockname()[1])
            socket, address = await listener.socket.accept()
            assert Address.of(address).host == dial
            socket.close()
            await stream.aclose()
            await listener.aclose()


async def test_several_addresses_are_listened_on_and_a_failure_leaves_none_open(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with trio.fail_after(LIMIT_SECONDS):
        listeners = await open_listeners(Listen("127.0.0.1", 0), Listen(path=path), Listen("127.0.0.1", 0))
        names = [listener.socket.getsockname() for listener in listeners]
        assert names[1] == path
        taken = Listen("127.0.0.1", names[0][1])
        with pytest.raises(ListenError, match="Address already in use"):
            await open_listeners(Listen(path=str(tmp_path / "other")), taken)
        for listener in listeners:
            await listener.aclose()
        with pytest.raises(ConnectionRefusedError):
            await trio.open_unix_socket(str(tmp_path / "other"))


async def test_a_unix_socket_is_for_its_owner_and_group_and_replaces_a_stale_one(tmp_path: Path) -> None:
    place = Listen(path=str(tmp_path / "sock"))
    with trio.fail_after(LIMIT_SECONDS):
        for _ in range(2):  # the second time the file of the first is there
            (listener,) = await open_listeners(place)
            assert stat.S_IMODE((tmp_path / "sock").stat().st_mode) == 0o660
            with pytest.raises(ListenError, match=r"unix:.*: Address already in use"):
                await open_listeners(place)
            await listener.aclose()
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ListenError, match="Address already in use"):
            await open_listeners(Listen(path=str(tmp_path / "file")))
        assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("inherited", [False, True])
async def test_requests_and_upgrades_come_by_a_unix_socket_also_in_plain_beside_tls(
    tmp_path: Path, inherited: bool
) -> None:
    place = Listen(path=str(tmp_path / "sock"))
    with trio.fail_after(LIMIT_SECONDS), stdlib.socket(stdlib.AF_UNIX) as theirs:
        if inherited:
            theirs.bind(place.path)
            theirs.listen()
        listen = Listen(fd=os.dup(theirs.fileno())) if inherited else place
        tls, rest, live = tls_contexts()[0], answering(b"rest"), upgraded(b"live")
        async with open_front(rest=rest, live=live, tls=tls, listen=listen):
            for request, answer in ((GET, b"rest /  unix"), (upgrade(), b"live %b   unix" % KEY)):
                async with await trio.open_unix_socket(place.path) as stream:
                    await stream.send_all(request)
                    assert await read_all(stream) == answer


async def test_a_port_is_shared_only_where_both_say_so() -> None:
    (first,) = await open_listeners(Listen("127.0.0.1", 0), reuse_port=True)
    place = Listen("127.0.0.1", first.socket.getsockname()[1])
    with pytest.raises(ListenError):
        await open_listeners(place)
    (second,) = await open_listeners(place, reuse_port=True)
    await first.aclose()
    await second.aclose()


async def report(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> None:
    host = head.header(b"host") or b""
    await stream.send_all(b" ".join((str(peer).encode(), head.scheme.encode(), host, head.target)))


async def report_upgrade(upgrade: Upgrade, trailing: bytes, stream: ClientStream, peer: Address) -> None:
    await stream.send_all(f"{peer} {upgrade.host} {upgrade.query}".encode())


FORWARDED = (
    b"X-Forwarded-For: 203.0.113.9, 192.0.2.1",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: ops.example",
)


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [
        (["127.0.0.0/8"], b"192.0.2.1 https ops.example /"),
        (["127.0.0.1", "192.0.2.1/32"], b"203.0.113.9 https ops.example /"),
        (["10.0.0.0/8", "unix"], b" http a /"),
        ([], b" http a /"),
    ],
)
async def test_a_trusted_proxy_and_no_other_peer_says_who_the_client_is(
    proxies: list[str], seen: bytes
) -> None:
    request = GET[:-2] + b"\r\n".join((*FORWARDED, b"", b""))
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=report, live=report_upgrade, proxies=proxies) as server:
            assert (await server.ask(request)).endswith(seen)
            answer = await server.ask(upgrade(b"/ws/cluster?q", *FORWARDED))
    believed = not seen.startswith(b" ")
    assert answer.endswith(b" ops.example q" if believed else b" a q")
    assert answer.startswith(seen.split(b" ")[0] if believed else b"127.0.0.1:")


async def test_a_proxy_on_a_unix_socket_can_be_trusted(tmp_path: Path) -> None:
    place = Listen(path=str(tmp_path / "sock"))
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_front(rest=report, proxies=["unix"], listen=place),
            await trio.open_unix_socket(place.path) as stream,
        ):
            await stream.send_all(GET[:-2] + b"Forwarded: for=192.0.2.1;proto=https\r\n\r\n")
            assert await read_all(stream) == b"192.0.2.1 https a /"


async def test_what_a_trusted_proxy_says_in_malformed_words_is_400() -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(proxies=["127.0.0.1"]) as server:
            answer = await server.ask(GET[:-2] + b"X-Forwarded-For: evil\r\n\r\n")
    assert status_and_error(answer) == (400, "Malformed address of a proxy")


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        (b"/helios/", b"/"),
        (b"/helios/api?a=/helios/b", b"/api?a=/helios/b"),
        (b"/api", b"/api"),
        (b"/heliosd", b"/heliosd"),
        (b"/helios/helios/", b"/helios/"),
    ],
)
async def test_below_the_base_path_targets_are_served_without_it(target: bytes, seen: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=report, live=report_upgrade, base_path="/helios") as server:
            assert (await server.ask(GET.replace(b"/ ", target + b" ", 1))).endswith(b" " + seen)
            for path in (b"/helios/ws/cluster?q", b"/ws/cluster?q"):
                assert (await server.ask(upgrade(path))).endswith(b" a q")


@pytest.mark.parametrize("target", [b"/helios", b"/helios?a"])
async def test_the_base_path_itself_leads_to_the_page(target: bytes) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(base_path="/helios") as server:
            answer = await server.ask(GET.replace(b"/ ", target + b" ", 1))
    assert answer.startswith(b"HTTP/1.1 308 ")
    assert b"\r\nLocation: /helios/\r\n" in answer


def test_an_address_is_written_as_one_dials_it() -> None:
    assert str(Address.of("")) == "unix"
    assert str(Address.of(("::1", 80, 0, 0))) == "[::1]:80"
    assert str(Address.of(("::ffff:192.0.2.1", 80, 0, 0))) == "192.0.2.1:80"
    assert str(Address.of(("::ffff:0:1:2", 80, 0, 0))) == "[::ffff:0:1:2]:80"
    assert str(Address.of(("192.0.2.1", 80))) == "192.0.2.1:80"


async def test_an_inherited_socket_is_served() -> None:
    with stdlib.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        (listener,) = await open_listeners(Listen(fd=os.dup(theirs.fileno())))
        stream = await trio.open_tcp_stream(*theirs.getsockname())
        accepted = await listener.accept()
        for each in (stream, accepted, listener):
            await each.aclose()


async def test_an_inherited_descriptor_that_is_no_listening_tcp_socket_is_a_clear_error() -> None:
    with (
        stdlib.socket() as idle,
        stdlib.socket(type=stdlib.SOCK_DGRAM) as datagram,
        stdlib.socket(stdlib.AF_UNIX) as local,  # does not listen
        open(os.devnull) as no_socket,  # noqa: PTH123
    ):
        for descriptor in (idle, datagram, local, no_socket):
            fd = descriptor.fileno()
            with pytest.raises(ListenError, match=f"fd:{fd}: "):
                await open_listeners(Listen(fd=fd))
            os.fstat(fd)  # still open: it was not ours
    with pytest.raises(ListenError, match="no socket was passed"):
        await open_listeners(Listen(fd=12345))


async def test_a_request_that_comes_again_is_served_again_and_a_broken_one_behind_it_is_refused() -> None:
    served: list[bytes] = []

    async def rest(head: RequestHead, trailing: bytes, stream: ClientStream, peer: Address) -> bytes:
        served.append(head.target + b"" if head.keep_alive else b"last")
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        return trailing

    head = b"HEAD /again HTTP/1.1\r\nHost: a\r\n\r\n"
    with trio.fail_after(LIMIT_SECONDS):
        async with open_front(rest=rest) as front:
            answer = await front.ask(head * 3 + GET + head + b"GET / HTTP/1.1\n\n")
    assert served == [b"/again"] * 3 + [b"/", b"/again"]
    # The refusal has its body, although the request before it asked for none.
    assert status_and_error(answer[answer.index(b"HTTP/1.1 400") :])[0] == 400
