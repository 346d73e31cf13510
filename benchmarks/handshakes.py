"""What a TLS handshake costs the server: in full, with a session ticket that is made in it, and resumed with one.

    python -m benchmarks.handshakes

Both sides are in this process, between memory buffers; only the server's calls are timed. TLS 1.3, with a P-256
certificate.
"""

from __future__ import annotations

import ssl
import tempfile
import time
from pathlib import Path
from statistics import median

from heliosd.websocket.tls import server_context

from .certificate import write_certificate

HANDSHAKES, ROUNDS = 200, 7
REQUEST = b"GET /ws/cluster HTTP/1.1\r\n\r\n"


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[float, ssl.SSLSession | None, bool]:
    """Seconds of the server until it has read a request; the session that the client has then; whether resumed."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    spent = 0.0
    begun = time.perf_counter()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    spent += time.perf_counter() - begun
    done = [False, False]
    while not all(done):
        for number, side in enumerate((theirs, ours)):
            begun = time.perf_counter()
            try:
                side.do_handshake()
                done[number] = True
            except ssl.SSLWantReadError:
                pass
            if side is ours:
                spent += time.perf_counter() - begun
    theirs.write(REQUEST)
    begun = time.perf_counter()
    assert ours.read(4096) == REQUEST
    ours.write(b"HTTP/1.1 101\r\n\r\n")
    spent += time.perf_counter() - begun
    theirs.read(4096)
    return spent, theirs.session, bool(ours.session_reused)


def main() -> None:
    """Print the three, in turns, as medians."""
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder, "pem")
        write_certificate(pem)
        without, with_tickets, client = server_context(pem, pem), server_context(pem, pem), client_context()
        without.num_tickets, with_tickets.num_tickets = 0, 1
        found: dict[str, list[float]] = {
            "in full": [],
            "in full, and a ticket": [],
            "resumed, and a new ticket": [],
        }
        for _ in range(ROUNDS):
            _, session, _ = handshake(with_tickets, client, None)
            for name, server, resumes in (
                ("in full", without, False),
                ("in full, and a ticket", with_tickets, False),
                ("resumed, and a new ticket", with_tickets, True),
            ):
                took = []
                for _ in range(HANDSHAKES):
                    seconds, newest, resumed = handshake(server, client, session if resumes else None)
                    assert resumed == resumes
                    session = newest if resumes else session
                    took.append(seconds)
                found[name].append(median(took))
    for name, times in found.items():
        print(f"{name}: {median(times) * 1e6:.0f} µs")


if __name__ == "__main__":
    main()
