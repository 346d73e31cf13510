"""How one alert is sent: to a real server, or to a real program."""

from __future__ import annotations

import os
import select
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from heliosd.alerts import delivery
from heliosd.alerts.delivery import AlertSender, signature
from heliosd.config.addresses import split_url
from heliosd.config.alert_condition import AlertCondition
from heliosd.config.model import AlertConfig
from heliosd.errors import NotDelivered
from tests.support.alert_daemon import receiving
from tests.support.deadlines import SECONDS
from tests.support.ports import free_port

BODY = b'{"id":"a/leader_lost/e:1"}'


def to(*, url: str = "", command: tuple[str, ...] = (), secret_file: Path | None = None) -> AlertConfig:
    return AlertConfig(
        name="a", when=AlertCondition("leader_lost"), url=url, command=command, secret_file=secret_file
    )


def python(script: str, *arguments: str) -> tuple[str, ...]:
    return sys.executable, "-c", script, *arguments


async def test_the_body_is_posted_as_it_is_and_signed_with_the_secret_of_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    with receiving(b"first") as receiver:
        await AlertSender().send(to(url=receiver.url, secret_file=secret), BODY)
        assert (receiver.got, receiver.forged) == ([{"id": "a/leader_lost/e:1"}], 0)
        secret.write_text("second")
        receiver.secret = b"second"
        await AlertSender().send(to(url=receiver.url, secret_file=secret), BODY)
        assert receiver.forged == 0
        secret.write_text("\n")
        with pytest.raises(NotDelivered, match="is empty"):
            await AlertSender().send(to(url=receiver.url, secret_file=secret), BODY)
        assert len(receiver.got) == 2


def test_the_signature_is_that_of_other_programs() -> None:
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature(b"Jefe", b"what do ya want for nothing?") == f"sha256={expected}"


@pytest.mark.parametrize("manner", ["status 503", "status 404", "status 302", "hangs up"])
async def test_what_the_receiver_does_not_take_is_not_delivered(manner: str) -> None:
    with receiving(b"") as receiver:
        receiver.manner = manner
        with pytest.raises(NotDelivered):
            await AlertSender().send(to(url=receiver.url), BODY)


@pytest.mark.parametrize("host", ["hooks..example", "a" * 64 + ".example"])
async def test_a_host_that_cannot_be_a_name_is_refused_in_the_configuration_and_is_no_bug_elsewhere(
    host: str,
) -> None:
    with pytest.raises(ValueError, match="cannot be a name"):
        split_url(f"https://{host}/x")
    with pytest.raises(NotDelivered):
        await AlertSender().send(to(url=f"http://{host}/x"), BODY)


async def test_a_redirect_to_no_name_is_not_delivered() -> None:
    with receiving(b"") as receiver:
        receiver.manner = "status 302 to http://xn--/"
        with pytest.raises(NotDelivered):
            await AlertSender().send(to(url=receiver.url), BODY)


async def test_a_receiver_that_is_not_there_or_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotDelivered):
        await AlertSender().send(to(url=f"http://127.0.0.1:{free_port()}/"), BODY)
    monkeypatch.setattr(delivery, "WEBHOOK_SECONDS", 0.2)
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener[0]:
        port = listener[0].socket.getsockname()[1]
        with pytest.raises(NotDelivered, match=r"no answer in 0.2 s"):
            await AlertSender().send(to(url=f"http://127.0.0.1:{port}/"), BODY)


async def test_a_command_gets_the_body_on_standard_input_and_its_arguments_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    out = tmp_path / "out"
    script = (
        "import os, sys; open(sys.argv[1], 'w').write("
        "sys.stdin.read() + sys.argv[2] + str('NOTIFY_SOCKET' in os.environ))"
    )
    await AlertSender().send(to(command=python(script, str(out), "$HOME; exit 1")), BODY)
    assert out.read_text() == BODY.decode() + "$HOME; exit 1False"


async def test_a_command_that_fails_is_not_delivered() -> None:
    with pytest.raises(NotDelivered, match="ended with 3"):
        await AlertSender().send(to(command=python("raise SystemExit(3)")), BODY)
    with pytest.raises(NotDelivered):
        await AlertSender().send(to(command=("/nonexistent/program",)), BODY)


async def test_a_command_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "COMMAND_SECONDS", 1.0)
    pids = tmp_path / "pids"
    script = (
        "import os, signal, sys; child = os.fork(); "
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); signal.pause()"
    )
    with pytest.raises(NotDelivered, match="ran for 1 s"):
        await AlertSender().send(to(command=python(script, str(pids))), BODY)
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) == 2
    with trio.fail_after(SECONDS):
        for pid in started:
            await ended(pid)


async def test_a_command_that_cannot_be_killed_is_not_waited_for_and_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int, number: int) -> None:
        raise PermissionError  # as for a process of another user

    sender, pids, may_end = AlertSender(), tmp_path / "pids", tmp_path / "may_end"
    os.mkfifo(may_end)
    script = "import os, sys; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); open(sys.argv[2]).read()"
    stuck = to(command=python(script, str(pids), str(may_end)))
    with monkeypatch.context() as patched, trio.fail_after(SECONDS):
        patched.setattr(os, "killpg", refused)
        patched.setattr(delivery, "COMMAND_SECONDS", 1.0)
        patched.setattr(delivery, "KILL_SECONDS", 0.1)
        with pytest.raises(NotDelivered, match="ran for 1 s"):
            await sender.send(stuck, BODY)
        with pytest.raises(NotDelivered, match="cannot be killed"):
            await sender.send(stuck, BODY)
    (pid,) = map(int, pids.read_text().split())
    with trio.fail_after(SECONDS):
        await trio.to_thread.run_sync(may_end.write_text, "")
        await ended(pid)
        await sender.send(to(command=("true",)), BODY)


async def ended(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_a_command_that_ends_as_its_time_is_over_is_no_bug(tmp_path: Path) -> None:
    started, may_end = tmp_path / "started", tmp_path / "may_end"
    for pipe in (started, may_end):
        os.mkfifo(pipe)
    script = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); open(sys.argv[2]).read()"
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                AlertSender().send, to(command=python(script, str(started), str(may_end))), BODY
            )
            pid = int(await trio.to_thread.run_sync(started.read_text, abandon_on_cancel=True))
            process = os.pidfd_open(pid)
            # It ends while the loop is held up, so that this is not known yet when it is cancelled.
            may_end.write_text("")
            assert select.select([process], [], [], SECONDS)[0]
            os.close(process)
            nursery.cancel_scope.cancel()


async def test_a_command_that_reads_nothing_is_no_fault() -> None:
    await AlertSender().send(to(command=("true",)), BODY * 100_000)


async def test_a_command_does_not_hold_up_other_tasks(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with trio.open_nursery() as nursery:
        # The command ends once another task has opened the other end: it could not if the loop were blocked.
        nursery.start_soon(partial(trio.to_thread.run_sync, gate.write_bytes, b"", abandon_on_cancel=True))
        await AlertSender().send(to(command=python(f"open({str(gate)!r}).read()")), BODY)


async def test_a_secret_on_a_file_system_that_does_not_answer_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "WEBHOOK_SECONDS", 0.2)
    hanging = tmp_path / "secret"
    os.mkfifo(hanging)
    sender = AlertSender()
    with trio.fail_after(SECONDS):
        for _ in range(3):
            with pytest.raises(NotDelivered, match="no answer"):
                await sender.send(to(url="http://127.0.0.1:1/", secret_file=hanging), BODY)
    hanging.write_text("it answers again")  # and the one thread that waits for it ends
