"""A real etcd cluster on loopback: a test starts, stops and kills its members, and nothing is left afterwards.

    with EtcdCluster.start(3) as cluster:
        cluster.stop(0)         # SIGSTOP
        cluster.kill(1)         # SIGKILL
        cluster.restart(1)

All methods block; in an async test call the slow ones (`start`, `restart`, `leader`) by `trio.to_thread.run_sync`,
unless nothing else is to go on meanwhile. Mark the test with `@pytest.mark.needs("etcd")`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .etcd_certificates import EtcdCertificates
from .memory_folder import memory_folder
from .ports import HeldPorts

START_SECONDS = 60.0
ROOT_PASSWORD = "root-of-the-test"
FORGOTTEN = ("invalid auth token", "user name is empty")
"""A token is not known, or none was sent."""


@dataclass(frozen=True)
class EtcdAuth:
    """Turns on etcd's authentication: a root user with `ROOT_PASSWORD`, and one with the right to a prefix."""

    username: str = "heliosd"
    password: str = "pass-of-the-test"
    prefix: str = "/heliosd/"
    root: bool = False
    """The user also has the role root."""


@dataclass
class EtcdMember:
    """One etcd process, or one that is yet to be started."""

    name: str
    client_url: str
    peer_url: str
    data_dir: Path
    log_file: Path
    arguments: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


class EtcdCluster:
    """The members are `members`; methods that take a number take its place in that list."""

    def __init__(self, folder: Path, tls: EtcdCertificates | None, options: Sequence[str]) -> None:
        self.folder = folder
        self.tls = tls
        self.members: list[EtcdMember] = []
        self.has_users = False
        self.token = ""
        """Of the root user, where authentication is on."""
        self.token_of_cluster = "etcd-cluster"
        """`--initial-cluster-token`: with another one, the same members get other ids."""
        self._options = options
        self._ports = HeldPorts()
        self._scheme = "https" if tls else "http"
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if tls:
            context = ssl.create_default_context(cafile=str(tls.ca_cert))
            context.load_cert_chain(tls.client_cert, tls.client_key)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    @classmethod
    def start(
        cls,
        n: int = 3,
        *,
        tls: EtcdCertificates | None = None,
        auth: EtcdAuth | None = None,
        names: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> EtcdCluster:
        """A cluster that has a leader. `options` are more arguments for each etcd. Fails with etcd's log."""
        if auth is not None:
            options = [*options, "--bcrypt-cost", "4"]  # a login takes 60 ms of CPU time otherwise
        cluster = cls(Path(tempfile.mkdtemp(prefix="heliosd-etcd-", dir=memory_folder())), tls, options)
        try:
            cluster._start(names or [f"etcd-{number}" for number in range(1, n + 1)])
            if auth is not None:
                cluster.enable_auth(auth)
        except BaseException as error:
            logs = "\n".join(f"--- {member.name}\n{member.log[-4000:]}" for member in cluster.members)
            cluster.close()
            error.add_note(logs)
            raise
        return cluster

    def _start(self, names: Sequence[str]) -> None:
        self.members = [self._member(name) for name in names]
        together = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            self._launch(member, together, "new")
        self.leader()

    def _member(self, name: str) -> EtcdMember:
        client, peer = self._ports.take(), self._ports.take()
        return EtcdMember(
            name,
            f"{self._scheme}://127.0.0.1:{client}",
            f"http://127.0.0.1:{peer}",
            self.folder / name,
            self.folder / f"{name}.log",
        )

    def _launch(self, member: EtcdMember, together: str, state: str) -> None:
        member.arguments = [
            *("etcd", "--name", member.name, "--data-dir", str(member.data_dir)),
            *("--listen-client-urls", member.client_url, "--advertise-client-urls", member.client_url),
            *("--listen-peer-urls", member.peer_url, "--initial-advertise-peer-urls", member.peer_url),
            *("--initial-cluster", together, "--initial-cluster-state", state),
            *("--initial-cluster-token", self.token_of_cluster),
            *("--heartbeat-interval", "100", "--election-timeout", "1000", "--logger", "zap"),
        ]
        if self.tls:
            member.arguments += ["--cert-file", str(self.tls.server_cert)]
            member.arguments += ["--key-file", str(self.tls.server_key)]
            member.arguments += ["--client-cert-auth", "--trusted-ca-file", str(self.tls.ca_cert)]
        member.arguments += self._options
        self._spawn(member)

    def _spawn(self, member: EtcdMember) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        with member.log_file.open("ab") as log:
            member.process = subprocess.Popen(
                member.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,
            )

    # What can be done to a member.

    def kill(self, which: int) -> None:
        """SIGKILL; returns when the process is gone."""
        self._end(self.members[which])

    def stop(self, which: int) -> None:
        """SIGSTOP: its sockets stay open and nothing answers."""
        pid = self.members[which].pid
        os.kill(pid, signal.SIGSTOP)
        # The signal is posted; on a busy machine its threads go on until the kernel comes to each.
        for _ in range(1000):
            tasks = Path(f"/proc/{pid}/task").glob("*/stat")
            if all(task.read_text().rpartition(")")[2].split()[0] in "Tt" for task in tasks):
                return
            time.sleep(0.001)

    def cont(self, which: int) -> None:
        """SIGCONT."""
        os.kill(self.members[which].pid, signal.SIGCONT)

    def restart(self, which: int, *, wait: bool = True) -> None:
        """Kill it if it runs, and start it with the same data; `wait` until it answers."""
        self.kill(which)
        self._spawn(self.members[which])
        if wait:
            self.wait_for(lambda: self.status(which) is not None, f"{self.members[which].name} answers")

    def make_anew(self) -> None:
        """Another cluster at the same addresses, with nothing in it; its id may be the same."""
        for member in self.members:
            self._end(member)
            shutil.rmtree(member.data_dir)
        together = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            self._launch(member, together, "new")
        self.leader()

    def found_alone(self, which: int) -> None:
        """Let a member that was removed come up as an empty cluster of its own at the same addresses."""
        member = self.members[which]
        self._end(member)
        shutil.rmtree(member.data_dir)
        self._launch(member, f"{member.name}={member.peer_url}", "new")
        self.wait_for(
            lambda: (self.status(which) or {}).get("leader", "0") != "0", f"{member.name} leads itself"
        )

    def count(self, prefix: str, which: int) -> int:
        """How many keys one member has under a prefix."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        body = {"key": _base64(prefix), "range_end": _base64(end), "count_only": True, "serializable": True}
        return int(self.ask(which, "/v3/kv/range", body).get("count", 0))

    def copy_data(self) -> Path:
        """What all members have on their disks now, for `set_back`. They are killed and started again for it."""
        place = Path(tempfile.mkdtemp(prefix="copy-", dir=self.folder))
        for member in self.members:
            self._end(member)
        for member in self.members:
            shutil.copytree(member.data_dir, place / member.name)
            self._spawn(member)
        self.leader()
        return place

    def set_back(self, place: Path) -> None:
        """All members go on from such a copy: the same cluster, with what has happened since undone."""
        for member in self.members:
            self._end(member)
        for member in self.members:
            shutil.rmtree(member.data_dir)
            shutil.copytree(place / member.name, member.data_dir)
            self._spawn(member)
        self.leader()

    def close(self) -> None:
        """All members are killed, and their data is gone."""
        for member in self.members:
            self._end(member)
        self._ports.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, member: EtcdMember) -> None:
        if member.process is not None:
            member.process.kill()
            member.process.wait()

    # More members.

    def spare(self, name: str) -> EtcdMember:
        """One more member, not started and not known to the cluster: its `peer_url` can be given to it."""
        spare = self._member(name)
        place = f"{name}-{spare.peer_url.rpartition(':')[2]}"  # its name may be another member's
        return replace(spare, data_dir=self.folder / place, log_file=self.folder / f"{place}.log")

    def join(self, spare: EtcdMember) -> None:
        """Start a spare whose `peer_url` has been added to the cluster."""
        known = self.ask(0, "/v3/cluster/member/list", {})["members"]
        # etcd compares the URLs only; two members of one name would be one member with two URLs here.
        urls = [url for member in known for url in member["peerURLs"]]
        names = [spare.name if url == spare.peer_url else f"other-{place}" for place, url in enumerate(urls)]
        self.members.append(spare)
        together = ",".join(f"{name}={url}" for name, url in zip(names, urls, strict=True))
        self._launch(spare, together, "existing")

    def rejoin(self, which: int) -> None:
        """Start a member without data whose peer URL has been added to the cluster again."""
        together = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        self._launch(self.members[which], together, "existing")

    # Asking etcd itself, apart from the code under test.

    def ask(self, which: int, path: str, body: Mapping[str, Any], *, seconds: float = 5.0) -> Any:
        """One call of the JSON gateway, as root where authentication is on. Raises OSError, also for refusals."""
        try:
            return self._ask(which, path, body, seconds)
        except OSError as error:
            # A restarted member has forgotten its tokens.
            if not self.has_users or not any(each in str(error) for each in FORGOTTEN):
                raise
        root = {"name": "root", "password": ROOT_PASSWORD}
        self.token = ""  # etcd refuses a login that shows a forgotten one
        with unless_off():
            self.token = self._ask(which, "/v3/auth/authenticate", root, seconds)["token"]
        return self._ask(which, path, body, seconds)

    def _ask(self, which: int, path: str, body: Mapping[str, Any], seconds: float) -> Any:
        headers = {"Authorization": self.token} if self.token else {}
        url = self.members[which].client_url + path
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(error.read().decode()) from None

    def put(self, key: str, value: str, *, which: int = 0) -> int:
        """Returns the revision."""
        body = {"key": _base64(key), "value": _base64(value)}
        return int(self.ask(which, "/v3/kv/put", body)["header"]["revision"])

    def status(self, which: int) -> dict[str, Any] | None:
        """/v3/maintenance/status of one member; None if it does not answer within half a second."""
        try:
            return dict(self.ask(which, "/v3/maintenance/status", {}, seconds=0.5))
        except OSError:
            return None

    def member_id(self, which: int) -> str:
        """The id of a member that runs, as etcd's own commands show it."""
        status = self.status(which)
        assert status is not None
        return f"{int(status['header']['member_id']):x}"

    def term(self) -> int:
        """Of Raft, as the leader shows it."""
        status = self.status(self.leader())
        assert status is not None
        return int(status["raftTerm"])

    def leader(self) -> int:
        """Wait until all members that answer name one leader that is among them; returns its place."""
        found = -1

        def agreed() -> bool:
            nonlocal found
            seen = [(place, self.status(place)) for place in range(len(self.members))]
            heard = [(place, status) for place, status in seen if status is not None]
            leaders = {status.get("leader", "0") for _, status in heard}
            terms = {status["raftTerm"] for _, status in heard}
            at = [place for place, status in heard if {status["header"]["member_id"]} == leaders]
            if len(heard) <= len(self.members) // 2 or len(terms) != 1 or not at:
                return False
            found = at[0]
            return True

        self.wait_for(agreed, "the members agree on a leader")
        return found

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        """Ask until it holds, often at first; a TimeoutError or ChildProcessError names what did not come."""
        until, pause = time.monotonic() + START_SECONDS, 0.01
        while not holds():
            for member in self.members:
                code = member.process.poll() if member.process else None
                if code is not None and code >= 0:
                    raise ChildProcessError(f"{member.name} ended with {code}")
            if time.monotonic() > until:
                raise TimeoutError(f"not within {START_SECONDS:g} s: {what}")
            time.sleep(pause)
            pause = min(0.05, 1.3 * pause)

    def enable_auth(self, auth: EtcdAuth) -> None:
        """From now on etcd answers only to those who log in; `ask` does so as root."""
        root = {"name": "root", "password": ROOT_PASSWORD}
        role = f"of-{auth.username}"
        steps: list[tuple[str, Mapping[str, Any]]] = [
            ("user/add", root),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("user/add", {"name": auth.username, "password": auth.password}),
            ("role/add", {"name": role}),
            ("role/grant", {"name": role, "perm": _right("READWRITE", auth.prefix)}),
            ("user/grant", {"user": auth.username, "role": role}),
            *([("user/grant", {"user": auth.username, "role": "root"})] if auth.root else []),
            ("enable", {}),
        ]
        for path, body in steps:
            self.ask(0, f"/v3/auth/{path}", body)
        self.has_users = True
        self.token = self.ask(0, "/v3/auth/authenticate", root)["token"]

    def grant(self, auth: EtcdAuth, kind: str = "READWRITE") -> None:
        """The user may do this (READ, WRITE, READWRITE) with its prefix, instead of what it might before."""
        perm = {"name": f"of-{auth.username}", "perm": _right(kind, auth.prefix)}
        self.ask(0, "/v3/auth/role/grant", perm)

    def take_away(self, auth: EtcdAuth) -> None:
        """The user has no right any more; it may still log in."""
        right = _right("", auth.prefix)
        key = {"role": f"of-{auth.username}", "key": right["key"], "range_end": right["range_end"]}
        self.ask(0, "/v3/auth/role/revoke", key)


@contextmanager
def unless_off() -> Iterator[None]:
    """Authentication may have been turned off meanwhile."""
    try:
        yield
    except OSError as error:
        if "authentication is not enabled" not in str(error):
            raise


def _right(kind: str, prefix: str) -> dict[str, str]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return {"permType": kind, "key": _base64(prefix), "range_end": _base64(end)}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
