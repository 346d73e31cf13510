"""The ports of the test clusters."""

from __future__ import annotations

import socket

import pytest

from tests.support.ports import HeldPorts


def test_many_clusters_at_once_get_no_port_twice() -> None:
    holders = [HeldPorts() for _ in range(20)]
    try:
        ports = [holder.take() for holder in holders for _ in range(10)]
        assert len(set(ports)) == len(ports)
    finally:
        for holder in holders:
            holder.close()


def test_a_server_listens_on_a_held_port_again_and_again_and_others_cannot_bind_it() -> None:
    held = HeldPorts()
    port = held.take()
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="in use"), socket.socket() as other:
                other.bind(("127.0.0.1", port))
            with socket.socket() as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(("127.0.0.1", port))
                server.listen()
                with socket.create_connection(("127.0.0.1", port)):
                    pass
    finally:
        held.close()
