"""The REST app over the simulated cluster, or over a cluster of one: real trackers and metrics, and writes that
end as a test decides."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import trio
from msgspec.structs import replace
from quart import Quart, Response
from quart.routing import QuartRule
from trio.testing import wait_all_tasks_blocked

from heliosd.alerts.counters import AlertCounters
from heliosd.auth.access import Access
from heliosd.auth.identity import Identity
from heliosd.auth.revoked_tokens import RevokedTokens
from heliosd.auth.signing_keys import KeyRing, SigningKey
from heliosd.auth.tickets import Tickets
from heliosd.clock import Instant
from heliosd.cluster.backend import Backend, Committed, Peer
from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.metric_commands import MetricCommand, check_command
from heliosd.cluster.permits import (
    EndPermit,
    GrantPermit,
    Permit,
    PermitCommand,
    PermitState,
    RenewPermit,
    held,
)
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.cluster.subscribers import ItemQueue, Subscribers
from heliosd.cluster.uptime import UptimeTracker
from heliosd.config.model import DEFAULT_ROLES, AuthConfig, Config, Settings, UserConfig
from heliosd.errors import Conflict, NotFound
from heliosd.hub.client_view import ClientView, StreamKind
from heliosd.hub.counters import HubCounters
from heliosd.protocol.events import Event, Stamped
from heliosd.protocol.history import Cursor, Excerpt, History
from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.server_messages import of_event
from heliosd.protocol.subscription import Subscription
from heliosd.protocol.views.snapshots import SnapshotRecord
from heliosd.protocol.views.status import ClusterStatus, Indices, LeaderView, NodeView, PeerState, PeerView
from heliosd.store.changes import Change, Saved
from heliosd.web.authentication import Authenticator
from heliosd.web.jwks import ExternalIssuer
from heliosd.web.rest.app import create_app
from heliosd.web.rest.pipeline import Pipeline
from heliosd.web.rest.services import Services
from heliosd.web.stream.connection_log import ConnectionLog

from .passwords import cheap_hash
from .simulated_harness import ready, running

PASSWORD = "correct horse battery staple"
PASSWORD_HASH = cheap_hash(PASSWORD)
ROLES = {
    **DEFAULT_ROLES,
    "watcher": frozenset({"cluster:watch"}),
    "writer": frozenset({"cluster:write"}),
    "operator": frozenset({"cluster:admin"}),
    "nobody": frozenset[str](),
}
START = 1_800_000_000.0


class RuleOfTests(QuartRule):
    """Werkzeug compiles two functions for each path, which make its URL, and heliosd has no use for them: 17 of the
    20 ms that an app costs. They depend on the path alone, so that all apps of a process can share them."""

    made: ClassVar[dict[tuple[str, bool], Any]] = {}

    def _compile_builder(self, append_unknown: bool = True) -> Any:
        key = (self.rule, append_unknown)
        if key not in self.made:
            self.made[key] = super()._compile_builder(append_unknown)
        return self.made[key]


Quart.url_rule_class = RuleOfTests


def now() -> Instant:
    return Instant(START + trio.current_time(), trio.current_time())


class LoneBackend:
    """A cluster of this node and of peers that are only names. Every write raises `trouble`, if set; while `stuck`,
    writes never return."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.stuck = False
        self.reason: str | None = None
        self.index = 0
        self.shared_revocations: dict[str, float] = {}
        self.peers: dict[str, Peer] = {}
        self.permit_state = PermitState()
        self.metrics = MetricSet()
        self.latency = LatencyTracker()
        self.uptime = UptimeTracker("node-1", Saved())
        self.uptime.start("Leader", now())
        self.snapshots = SnapshotTracker("node-1", Saved(), interval=300.0, threshold=10_000)
        for serial in (2, 3):
            self._join(Peer(f"node-{serial}", f"127.0.0.1:{6999 + serial}"))
            self.latency.succeeded(f"node-{serial}", "append_entries", 0.002, now())
            self.latency.matrix.add("node-1", f"node-{serial}", 0.002, now())

    def status(self) -> ClusterStatus:
        return ClusterStatus(
            node=NodeView("node-1", "Leader", 5),
            leader=LeaderView("node-1", "127.0.0.1:7000", is_leader=True),
            indices=Indices(self.index, 5, self.index, self.index),
            peers=tuple(
                PeerView(
                    id=peer.id,
                    address=peer.address,
                    match_index=self.index,
                    next_index=self.index + 1,
                    latency=self.latency.peer_latency(peer.id, now()),
                    state="Follower",
                    voter=True,
                )
                for peer in self.peers.values()
            ),
            peer_states=tuple(PeerState(peer.id, peer.address, "Follower") for peer in self.peers.values()),
            cluster_health=self.latency.cluster_health(now()),
            observed_by="node-1",
            observed_at=now().wall,
            stale=False,
        )

    complete: bool = True
    simulation = None

    def warnings(self) -> list[str]:
        return []

    @property
    def permits(self) -> LonePermits:
        return LonePermits(self)

    def not_ready(self) -> str | None:
        return self.reason

    async def propose(self, command: MetricCommand, key: WriteKey | None = None) -> Committed:
        await self.commit()
        check_command(command)
        self.metrics.apply(command)
        return Committed(self.index, 5)

    async def add_peer(self, peer: Peer, *, again: bool = False) -> Peer:
        await self.commit()
        if again and self.peers.get(peer.id) == peer:
            return peer
        if peer.id == "node-1" or peer.id in self.peers:
            raise Conflict(f"Peer already exists: {peer.id}", field="id")
        self._join(peer)
        return peer

    async def remove_peer(self, peer_id: str) -> Peer:
        await self.commit()
        if peer_id == "node-1":
            raise Conflict("This node cannot remove itself", field="id")
        if peer_id not in self.peers:
            raise NotFound("Unknown peer", field="id")
        self.latency.remove_peer(peer_id)
        return self.peers.pop(peer_id)

    async def transfer_leadership(self, target: str | None) -> str:
        await self.commit()
        if target is not None and target not in self.peers:
            raise NotFound("Unknown peer", field="target")
        return target or next(iter(self.peers))

    async def take_snapshot(self) -> SnapshotRecord:
        await self.commit()
        if self.snapshots.latest is None or self.snapshots.latest.index < self.index:
            self.snapshots.created(
                index=self.index,
                term=5,
                size=100,
                duration=0.001,
                entries_compacted=1,
                leader_id="node-1",
                peer_count=len(self.peers),
                previous_index=0,
                now=now(),
            )
        assert self.snapshots.latest is not None
        return self.snapshots.latest

    async def reset_uptime(self) -> None:
        await self.commit()
        self.uptime.reset(now())

    async def reset_snapshots(self) -> None:
        await self.commit()
        self.snapshots.reset()

    async def share_revocation(self, jti: str, expires_at: float) -> None:
        self.shared_revocations[jti] = expires_at
        await trio.lowlevel.checkpoint()

    def events(self) -> AbstractAsyncContextManager[ItemQueue]:
        return Subscribers(1).listener()

    def _join(self, peer: Peer) -> None:
        self.peers[peer.id] = peer
        self.latency.add_peer(peer.id, peer.address, now())

    async def commit(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.stuck:
            await trio.sleep_forever()
        if self.trouble is not None:
            raise self.trouble
        self.index += 1


class LonePermits:
    """Every member is alive."""

    def __init__(self, backend: LoneBackend) -> None:
        self._backend = backend

    async def current(self) -> Permit | None:
        return self._backend.permit_state.current(now().wall)

    async def grant(self, member: str, user: str, seconds: float) -> Permit:
        at = now().wall
        permit = Permit(id="p1", member=member, user=user, granted_at=at, expires_at=at + seconds)
        await self._write(GrantPermit(permit, self._backend.permit_state.grants, at))
        return permit

    async def renew(self, permit_id: str, seconds: float) -> Permit:
        at = now().wall
        await self._write(RenewPermit(permit_id, at + seconds, at))
        return held(self._backend.permit_state.current(at), permit_id)

    async def end(self, permit_id: str) -> Permit:
        found = held(self._backend.permit_state.current(now().wall), permit_id)
        await self._write(EndPermit(permit_id, now().wall))
        return found

    async def _write(self, command: PermitCommand) -> None:
        await self._backend.commit()
        self._backend.permit_state = self._backend.permit_state.after(command)


@dataclass
class FakeRoster:
    counters: HubCounters = field(default_factory=HubCounters)
    clients: dict[str, ClientView] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)

    def connect(self, client_id: str) -> None:
        self.clients[client_id] = ClientView(
            id=client_id,
            user="admin",
            address="127.0.0.1:50000",
            since="2027-01-15T08:00:00.000000Z",
            transport="websocket",
            queue=0,
            sent=3,
            dropped=0,
        )

    async def views(self) -> list[ClientView]:
        return list(self.clients.values())

    def count(self, transport: StreamKind | None = None) -> int:
        return sum(transport in {None, client.transport} for client in self.clients.values())

    def ids(self, stream_kind: StreamKind, at_most: int) -> list[str]:
        return [client.id for client in self.clients.values() if client.transport == stream_kind][:at_most]

    async def queue_depth(self) -> int:
        return 0

    def disconnect(self, client_id: str) -> bool:
        return self.clients.pop(client_id, None) is not None

    def token_revoked(self, jti: str) -> None:
        self.revoked.append(jti)


@dataclass
class FakeEvents:
    """A history that the test fills, and the reason why events cannot be stored."""

    history: History = field(default_factory=lambda: History("e1", max_events=1000, max_age=3600.0))
    trouble: str | None = None
    readable: bool = True

    def behind(self, cursor: Cursor | None) -> bool:
        del cursor
        return False

    async def read(self, excerpt: Excerpt, epoch: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.history.reason_to_refuse(epoch, excerpt.looked_at) is None:
            excerpt.read(self.history)

    async def reach(self, cursor: Cursor) -> None:
        del cursor
        await trio.lowlevel.checkpoint()

    def happen(self, event: Event) -> OutgoingMessage:
        """Store `event`; returns what a WebSocket would have got."""
        message = of_event(Stamped(self.history.seq + 1, now().wall, event))
        self.history.keep(message, now().wall)
        return message


class FakeStreams:
    """Event streams of one comment each; it records which user asked for which."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Cursor | None, Subscription, str]] = []
        self.full: Exception | None = None

    def open(
        self, identity: Identity, cursor: Cursor | None, subscription: Subscription, address: str
    ) -> AsyncGenerator[bytes, None]:
        if self.full is not None:
            raise self.full
        self.asked.append((identity.user_id, cursor, subscription, address))
        return self._body()

    async def _body(self) -> AsyncGenerator[bytes, None]:
        yield b":\n\n"


class Rest:
    """The app and its services. Each user has one role and its name."""

    def __init__(self, backend: Backend | None = None, stored: Mapping[str, bytes] | None = None) -> None:
        users = tuple(UserConfig(name=role, password_hash=PASSWORD_HASH, roles=(role,)) for role in ROLES)
        self.settings = Settings(Config(auth=AuthConfig(roles=ROLES, users=users)))
        self.access = Access(self.settings, KeyRing(SigningKey(bytes(range(32)))), {})
        self.issuer = ExternalIssuer(self.access, self.settings)
        """A test that configures one starts its `run`."""
        self.lone = LoneBackend()
        """The backend, unless another one was given."""
        self.backend: Backend = backend or self.lone
        self.tickets = Tickets()
        self.connection_log = ConnectionLog()
        self.authenticator = Authenticator(self.access, self.tickets, self.issuer.fetch_key, now)
        self.roster = FakeRoster()
        self.events = FakeEvents()
        self.streams = FakeStreams()
        self.saved: list[Change] = []
        self.disk_trouble: Exception | None = None
        self.revoked_tokens = RevokedTokens(self.access, self._save, now, self.roster.token_revoked)
        self.pipeline = Pipeline(
            Services(
                settings=self.settings,
                backend=self.backend,
                alert_counters=AlertCounters(),
                access=self.access,
                revoked_tokens=self.revoked_tokens,
                authenticator=self.authenticator,
                tickets=self.tickets,
                roster=self.roster,
                events=self.events,
                streams=self.streams,
                save=self._save,
                stored=stored or {},
                log_refused=self.connection_log.refused,
                now=now,
            )
        )
        self.app = create_app(self.pipeline)

    async def _save(self, changes: Sequence[Change]) -> None:
        await trio.sleep(
            0.01
        )  # as a disk: an answer that does not wait for it comes too early, and is seen to
        if self.disk_trouble is not None:
            raise self.disk_trouble
        self.saved.extend(changes)

    def configure(self, **sections: Any) -> None:
        """Replace fields of sections: `configure(metrics={"public": True})`."""
        config = self.settings.current
        changed = {name: replace(getattr(config, name), **fields) for name, fields in sections.items()}
        self.settings.current = replace(config, **changed)

    def token(self, user: str = "admin", ttl: float | None = None) -> str:
        return self.access.issue(user, now().wall, ttl).token

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        user: str | None = "admin",
        token: str | None = None,
        headers: dict[str, str] | None = None,
        address: str = "127.0.0.1",
        scheme: str = "http",
    ) -> Response:
        """`body` is sent as it is if it is bytes, else as JSON. `user` None: without a token."""
        if token is None and user is not None:
            token = self.token(user)
        sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.app.test_client(use_cookies=False).open(  # type: ignore[call-arg]
            path,
            method=method,
            headers={**sent, **(headers or {})},
            data=data,
            scheme=scheme,
            scope_base={"client": (address, 50_000)},
        )

    async def ask_json(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, Any]:
        """Status and decoded JSON."""
        response = await self.ask(method, path, body, **options)
        return response.status_code, json.loads(await response.get_data())

    async def ask_and_leave(self, method: str, path: str, token: str) -> None:
        """Send a whole request, and hang up while it is being served. Returns once the app is done with it."""
        received: Iterator[dict[str, Any]] = iter(
            [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
        )

        async def receive() -> dict[str, Any]:
            message = next(received)
            if message["type"] == "http.disconnect":
                await wait_all_tasks_blocked()
            return message

        async def send(message: dict[str, object]) -> None:
            await trio.lowlevel.checkpoint()

        await self.app(_scope(method, path, token), receive, send)  # type: ignore[arg-type]

    async def send_slowly(self, method: str, path: str, token: str, start: bytes, ends: trio.Event) -> int:
        """The status for a request whose body begins with `start` and ends when `ends` is set."""
        status = 0
        parts = iter([(start, True), (b"", False)])

        async def receive() -> dict[str, Any]:
            body, more = next(parts, (None, False))
            if body is None:
                await trio.sleep_forever()
            if not more:
                await ends.wait()
            return {"type": "http.request", "body": body, "more_body": more}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await trio.lowlevel.checkpoint()

        await self.app(_scope(method, path, token), receive, send)  # type: ignore[arg-type]
        return status


def _scope(method: str, path: str, token: str) -> dict[str, Any]:
    """An ASGI scope with a bearer token."""
    return {
        "type": "http",
        "asgi": {"spec_version": "2.1"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 50_000),
        "extensions": {},
    }


@asynccontextmanager
async def simulated_rest() -> AsyncIterator[Rest]:
    """REST over three simulated members that have a leader."""
    async with running() as backend:
        await ready(backend)
        yield Rest(backend)
