"""heliosd beside the members of a real etcd, as its users run it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from daemon_process import Daemon, logging_process, write_config
from etcd_cluster import EtcdCluster

SECRET = "0123456789abcdef" * 4
"""The key that all nodes sign with."""

CLUSTER = """
[cluster]
backend = "etcd"
[cluster.etcd]
endpoints = [{endpoints}]
{etcd}
"""


def etcd_config(
    folder: Path,
    node: str,
    cluster: EtcdCluster,
    *,
    endpoints: Sequence[str] = (),
    etcd: str = "",
    listen: str = "127.0.0.1:0",
    websocket: str = "",
) -> Path:
    """A configuration in `folder`, which is made. `etcd` is more of its section."""
    folder.mkdir(exist_ok=True)
    secret = folder.parent / "jwt_secret"
    if not secret.exists():
        secret.touch(0o600)
        secret.write_text(SECRET)
    urls = endpoints or [member.client_url for member in cluster.members]
    return write_config(
        folder,
        node=node,
        listen=listen,
        websocket=websocket,
        cluster=CLUSTER.format(endpoints=", ".join(f'"{url}"' for url in urls), etcd=etcd),
        auth=f'jwt_secret_file = "{secret}"',
    )


def starting(folder: Path, config: Path) -> AbstractContextManager[Daemon]:
    """A process that has been started and need not listen yet."""
    state = folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "heliosd", "serve", "--config", str(config)]
    return logging_process(command, config, {"STATE_DIRECTORY": str(state)})


@contextmanager
def beside(
    folder: Path, cluster: EtcdCluster, names: Sequence[str] = ("etcd-1", "etcd-2", "etcd-3"), etcd: str = ""
) -> Iterator[list[Daemon]]:
    """A heliosd for each of these ids, ready; each knows all members of etcd, its own first."""
    urls = [member.client_url for member in cluster.members]
    with ExitStack() as stack:
        daemons = []
        for place, name in enumerate(names):
            near_first = urls[place:] + urls[:place]
            config = etcd_config(folder / name, name, cluster, endpoints=near_first, etcd=etcd)
            daemons.append(stack.enter_context(starting(folder / name, config)))
        for daemon in daemons:
            daemon.wait_listening()
            daemon.wait_ready()
        yield daemons
