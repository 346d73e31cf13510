"""Three members of etcd, each in a network namespace of its own, with one cable for clients and one for the peers.

It takes root: where there are no namespaces, the test is skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .deadlines import SECONDS
from .etcd_cluster import EtcdCluster, EtcdMember
from .private_networks import private_network

CLIENTS, PEERS = private_network(0), private_network(1)
MEMBERS = 3
CLIENT_CABLE, PEER_CABLE = "c", "p"


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True, timeout=SECONDS)


def space(place: int) -> str:
    return f"heliosd-{os.getpid()}-{place}"


def bridge(kind: str) -> str:
    return f"hd{kind}{os.getpid()}"


def cable(place: int, kind: str = CLIENT_CABLE) -> str:
    return f"hd{os.getpid()}{kind}{place}"


def disconnect(place: int, *kinds: str) -> None:
    """Cut these cables of this member: both, if none is named."""
    for kind in kinds or (CLIENT_CABLE, PEER_CABLE):
        ip("link", "set", cable(place, kind), "down")


def heal(place: int) -> None:
    for kind in (CLIENT_CABLE, PEER_CABLE):
        ip("link", "set", cable(place, kind), "up")


@contextmanager
def network() -> Iterator[None]:
    """Three namespaces on two bridges; this machine has an address on the clients' one."""
    kinds = {CLIENT_CABLE: CLIENTS, PEER_CABLE: PEERS}
    try:
        try:
            for kind in kinds:
                ip("link", "add", bridge(kind), "type", "bridge")
                ip("link", "set", bridge(kind), "up")
            ip("addr", "add", f"{CLIENTS}.254/24", "dev", bridge(CLIENT_CABLE))
            for place in range(MEMBERS):
                ip("netns", "add", space(place))
        except (OSError, subprocess.CalledProcessError) as refused:
            pytest.skip(f"no network namespaces here: {refused}")
        for place in range(MEMBERS):
            ip("-n", space(place), "link", "set", "lo", "up")
            for kind, net in kinds.items():
                near, far = cable(place, kind), f"far{kind}"
                ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", space(place))
                ip("link", "set", near, "master", bridge(kind))
                ip("link", "set", near, "up")
                ip("-n", space(place), "addr", "add", f"{net}.{place + 1}/24", "dev", far)
                ip("-n", space(place), "link", "set", far, "up")
        yield
    finally:
        for place in range(MEMBERS):
            for kind in kinds:
                ip("link", "del", cable(place, kind), check=False)
            ip("netns", "del", space(place), check=False)
        for kind in kinds:
            ip("link", "del", bridge(kind), check=False)


class SpreadCluster(EtcdCluster):
    """Each member in a namespace of its own. Open it inside `network()`."""

    def _member(self, name: str) -> EtcdMember:
        number = name.rpartition("-")[2]
        return EtcdMember(
            name,
            f"http://{CLIENTS}.{number}:2379",
            f"http://{PEERS}.{number}:2380",
            self.folder / name,
            self.folder / f"{name}.log",
        )

    def _spawn(self, member: EtcdMember) -> None:
        place = int(member.name.rpartition("-")[2]) - 1
        if member.arguments[0] != "ip":
            member.arguments = ["ip", "netns", "exec", space(place), *member.arguments]
        super()._spawn(member)
