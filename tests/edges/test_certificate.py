"""The certificate of the ports, replaced while it is in use."""

from __future__ import annotations

import errno
import os
import ssl
import threading
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from cryptography import x509

from heliosd.config.model import Config, ServerConfig
from heliosd.daemon.certificate import ServerCertificate
from heliosd.daemon.referenced_files import problems_with_files
from tests.support.certificates import self_signed
from tests.support.deadlines import SECONDS
from tests.support.front_server import open_front

LIMIT_SECONDS = 2 * SECONDS


def serial(cert: Path) -> int:
    return x509.load_pem_x509_certificate(cert.read_bytes()).serial_number


async def served(port: int) -> int:
    """The serial number of the certificate that a new connection gets."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default one reads all authorities of the machine
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port), trusting, https_compatible=True
    ) as stream:
        await stream.do_handshake()
        found = stream.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found).serial_number


async def test_fifty_new_certificates_are_served_and_no_handshake_is_refused(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    certificate = ServerCertificate(cert, key)
    with trio.fail_after(LIMIT_SECONDS), structlog.testing.capture_logs() as logged:
        async with open_front(tls_source=lambda: certificate.context) as server:
            before = await served(server.port)
            for _ in range(50):
                self_signed(tmp_path)
                assert await served(server.port) == before
                await certificate.refresh()
                before = serial(cert)
                assert await served(server.port) == before
    assert [line["event"] for line in logged] == ["certificate renewed"] * 50


async def test_fifty_broken_pairs_leave_the_old_one_in_use_with_one_line_each(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    good = serial(cert), cert.read_bytes(), key.read_bytes()
    certificate = ServerCertificate(cert, key)
    with trio.fail_after(LIMIT_SECONDS), structlog.testing.capture_logs() as logged:
        async with open_front(tls_source=lambda: certificate.context) as server:
            for number in range(50):
                match number % 5:
                    case 0:
                        cert.write_text(f"not a certificate {number}")
                    case 1:
                        key.write_text(f"not a key {number}")
                    case 2:
                        key.unlink()
                    case 3:
                        cert.write_bytes(good[1][:-number])
                    case _:
                        self_signed(tmp_path)
                        cert.write_bytes(good[1])
                for _ in range(4):
                    await certificate.refresh()
                assert await served(server.port) == good[0]
            assert [line["log_level"] for line in logged] == ["error"] * 50
            cert.write_bytes(good[1])
            key.write_bytes(good[2])
            await certificate.refresh()
            assert await served(server.port) == good[0]
    assert logged[-1]["event"] == "certificate renewed"


async def test_files_that_change_one_after_the_other_are_no_error(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    certificate = ServerCertificate(cert, key)
    (tmp_path / "next").mkdir()
    next_cert, next_key = self_signed(tmp_path / "next")
    with structlog.testing.capture_logs() as logged:
        next_cert.replace(cert)
        await certificate.refresh()
        next_key.replace(key)
        await certificate.refresh()
    assert [line["event"] for line in logged] == ["certificate renewed"]


async def test_a_certificate_that_is_gone_for_the_second_time_is_logged_again(tmp_path: Path) -> None:
    certificate = ServerCertificate(*self_signed(tmp_path))
    with structlog.testing.capture_logs() as logged:
        for _ in range(2):
            for name in ("cert", "key"):
                (tmp_path / f"{name}.pem").unlink()
            for _ in range(3):
                await certificate.refresh()
            self_signed(tmp_path)
            await certificate.refresh()
    assert [line["log_level"] for line in logged] == ["error", "info"] * 2


async def test_a_key_that_becomes_readable_later_is_taken_with_one_line_for_the_time_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = ServerCertificate(*self_signed(tmp_path))
    old = certificate.context

    def unreadable(*_: Path) -> ssl.SSLContext:
        raise PermissionError(errno.EACCES, "Permission denied")

    self_signed(tmp_path)
    with structlog.testing.capture_logs() as logged:
        with monkeypatch.context() as before_the_change_of_mode:  # root reads a file of any mode
            before_the_change_of_mode.setattr("heliosd.daemon.certificate.server_context", unreadable)
            for _ in range(4):
                await certificate.refresh()
        assert certificate.context is old
        await certificate.refresh()
    assert certificate.context is not old
    assert [line["log_level"] for line in logged] == ["error", "info"]


async def test_a_change_is_found_by_looking_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = ServerCertificate(*self_signed(tmp_path))
    old, renewed = certificate.context, trio.Event()

    class Log:
        """To log is the last that the thread does."""

        def info(self, event: str, **_: object) -> None:
            assert event == "certificate renewed"
            trio.from_thread.run_sync(renewed.set)

        def error(self, *_: object, **__: object) -> None:
            """The two files are replaced one after the other."""

    monkeypatch.setattr("heliosd.daemon.certificate.CHECK_SECONDS", 0.001)
    monkeypatch.setattr("heliosd.daemon.certificate.log", Log())
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(certificate.watch)
            await trio.testing.wait_all_tasks_blocked()
            self_signed(tmp_path)
            await renewed.wait()
            nursery.cancel_scope.cancel()
    assert certificate.context is not old


async def test_files_that_hang_hold_up_nobody_and_no_second_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = ServerCertificate(*self_signed(tmp_path))
    old = certificate.context
    reading, over = trio.Event(), threading.Event()

    def hanging(*_: Path) -> ssl.SSLContext:
        trio.from_thread.run_sync(reading.set)
        over.wait(LIMIT_SECONDS)
        raise OSError("late")  # of a first failure nothing is logged, which could be in another test by then

    monkeypatch.setattr("heliosd.daemon.certificate.server_context", hanging)
    self_signed(tmp_path)
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(certificate.refresh)
            await reading.wait()
            await certificate.refresh()
            nursery.cancel_scope.cancel()
    assert certificate.context is old
    over.set()


async def test_a_pipe_in_place_of_a_key_is_not_read(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    certificate = ServerCertificate(cert, key)
    old = certificate.context
    key.unlink()
    os.mkfifo(key)
    with trio.fail_after(LIMIT_SECONDS), structlog.testing.capture_logs() as logged:
        await certificate.refresh()
        await certificate.refresh()
    assert certificate.context is old
    assert [line["reason"] for line in logged] == [f"[Errno 22] not a regular file: '{key}'"]
    with pytest.raises(OSError, match="not a regular file"):
        ServerCertificate(cert, key)


def test_a_pair_that_cannot_be_used_at_the_start_is_an_error(tmp_path: Path) -> None:
    cert, _ = self_signed(tmp_path)
    with pytest.raises(OSError, match=r"\S"):
        ServerCertificate(cert, cert)


def test_a_key_that_goes_while_a_configuration_is_checked_is_a_mistake_in_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = self_signed(tmp_path)

    class Replaced(ssl.SSLContext):
        def load_cert_chain(self, *_: object, **__: object) -> None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(ssl, "SSLContext", Replaced)
    (problem,) = problems_with_files(Config(server=ServerConfig(tls_cert=cert, tls_key=key)))
    assert problem.key == "server.tls_cert"
    assert problem.message.endswith("are no pair of PEM files: No such file or directory")
