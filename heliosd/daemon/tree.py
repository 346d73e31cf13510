"""The daemon's nursery tree: the order in which its tasks start, and the order in which they stop.

background                       cancelled last: its tasks outlive the server
├─ signals        SIGTERM, SIGINT: stop; a second one: at once. SIGHUP: reload
├─ store          the one writer
├─ revocations    stores those that the disk has not taken yet
├─ numbering      backend events, numbered and on disk -> the hub's inbox
├─ backend        the simulated cluster, or the observer of a real etcd
├─ hub            encodes, fans out; its write pumps for clients that are behind are children of background
├─ pings          pings every client; ends those from which nothing comes
├─ log sums       logs how many repeated lines were left out
├─ loop lag       measures how late tasks run
├─ garbage        looks for cycles of objects, a little at a time
├─ certificate    reads it anew when its files change
├─ readiness      waits for what clients send, one epoll for all their sockets
├─ token expiry   warns before a token ends, and closes after it
├─ issuer         fetches the outside issuer's keys
├─ ticker         status, latency and uptime at their intervals
├─ watchdog       only if systemd asked for it, and only while the hub's loop turns
├─ metric expiry  deletes custom metrics whose ttl has passed
├─ alerts         reads the event log, sends the alerts of the configuration
├─ connection log counts joins and refusals for the log
└─ server         drains first: one task a connection
"""

from __future__ import annotations

import random
import signal
import socket as stdlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import structlog
import trio
from msgspec import Struct, field

from heliosd.alerts.delivery import AlertSender
from heliosd.alerts.watcher import AlertWatcher
from heliosd.auth.access import Access
from heliosd.auth.revoked_tokens import RevokedTokens
from heliosd.auth.tickets import Tickets
from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.cluster.metric_expiry import expire_metrics
from heliosd.config.model import Settings
from heliosd.hub.cluster_numbering import ClusterNumbering
from heliosd.hub.connections import Connections
from heliosd.hub.hub import Hub
from heliosd.hub.inbox import HubItem, Tick, until
from heliosd.hub.local_numbering import LocalNumbering
from heliosd.hub.silence import SilenceWatch
from heliosd.hub.status_messages import StatusMessages
from heliosd.protocol.close_codes import GOING_AWAY
from heliosd.store.changes import Saved
from heliosd.store.epoch_file import EpochFile
from heliosd.store.store import Store
from heliosd.web.authentication import Authenticator
from heliosd.web.forwarded import TrustedProxies
from heliosd.web.http import front
from heliosd.web.http.asgi import Deadlines, serve_request
from heliosd.web.http.listeners import open_listeners
from heliosd.web.jwks import ExternalIssuer
from heliosd.web.rest.late_app import late_app
from heliosd.web.rest.pipeline import Pipeline
from heliosd.web.rest.quick_reads import QuickReads
from heliosd.web.rest.services import Services
from heliosd.web.stream.admission import Admission
from heliosd.web.stream.sse import EventStreams
from heliosd.web.stream.websocket import WebSocketEndpoint
from heliosd.websocket.readiness import Readiness

from . import garbage, logs, loop_lag
from .backends import backend_of, numbering_of
from .certificate import ServerCertificate
from .fanout_engine import fanout_engine
from .ready_line import log_ready
from .reload import reload
from .signals import received_signals
from .systemd import Notifier, watchdog_interval
from .ticker import tick_all

LOG_SECONDS = 5.0
"""How long a start waits for the cluster's event log and state, without which a client would miss something."""

LAST_EVENTS_SECONDS = 1.0
"""How long a stop waits for events that are being stored to be sent, or half of its grace if that is less."""

SESSION_END_SECONDS = 5.0
"""How long a stop waits for the end of the session to be stored, whatever its grace: clients have no part in it."""

log = structlog.get_logger("heliosd")


def _now() -> Instant:
    return Instant(time.time(), trio.current_time())


class Daemon(Struct, frozen=True):
    """Everything that was opened before the first task; `run` is the tree."""

    config_path: Path
    settings: Settings
    directory: Path
    store: Store
    saved: Saved
    access: Access
    epoch_file: EpochFile
    certificate: ServerCertificate | None
    sockets: tuple[stdlib.socket, ...] = ()
    """Listening sockets in place of new ones."""
    signals: list[int] = field(default_factory=list)
    """Those that come while no task receives them."""

    async def run(self) -> None:
        """Start in order, serve until a signal, stop in order. Returns after a clean stop; errors rise."""
        config = self.settings.current
        self.access.started = _now()
        notifier = Notifier()
        ready, stop = trio.Event(), trio.Event()
        with trio.CancelScope() as root_scope, fanout_engine(config.websocket) as engine:
            async with _background() as background:
                background.start_soon(self._handle_signals, ready, stop, root_scope, notifier)
                listeners = [
                    trio.SocketListener(trio.socket.from_stdlib_socket(socket)) for socket in self.sockets
                ] or await open_listeners(*config.server.listen, reuse_port=config.server.reuse_port)
                await background.start(self.store.run)
                numbering = numbering_of(config, self.saved, self.store.save, self.epoch_file, _now)
                connections = Connections(self.settings, _now, background)
                revoked_tokens = RevokedTokens(self.access, self.store.save, _now, connections.token_revoked)
                background.start_soon(revoked_tokens.run)
                backend = backend_of(
                    config, self.directory, self.saved, self.store.save, _now, revoked_tokens.hear
                )
                hub = Hub(
                    connections=connections,
                    log=numbering.log,
                    access=self.access,
                    status_messages=StatusMessages(backend, connections.count, _now),
                    engine=engine,
                )
                to_hub, inbox = trio.open_memory_channel[HubItem](config.websocket.broadcast_buffer)
                await background.start(numbering.run, backend, to_hub.clone())
                await background.start(backend.run)
                await background.start(hub.run, inbox)
                background.start_soon(connections.ping_all)
                background.start_soon(SilenceWatch(connections).run)
                background.start_soon(logs.sum_up_regularly)
                background.start_soon(loop_lag.watch, connections.counters.loop_lag)
                background.start_soon(garbage.collect_regularly, connections.count)
                if self.certificate is not None:
                    background.start_soon(self.certificate.watch)
                readiness = Readiness()
                background.start_soon(readiness.run)
                background.start_soon(hub.token_expiry.run)
                issuer = ExternalIssuer(self.access, self.settings)
                background.start_soon(issuer.run)
                background.start_soon(tick_all, self.settings, to_hub)
                background.start_soon(_watch, notifier, to_hub, hub)
                with trio.move_on_after(LOG_SECONDS):
                    await numbering.log.wait_readable()
                    await until(lambda: backend.complete or numbering.log.trouble is not None)
                background.start_soon(expire_metrics, backend, _now)
                alerts = AlertWatcher(
                    settings=self.settings,
                    event_log=numbering.log,
                    backend=backend,
                    saved=self.saved,
                    save=self.store.save,
                    deliver=AlertSender().send,
                    now=_now,
                    rng=random.Random(),  # noqa: S311 (for the waits between attempts)
                )
                background.start_soon(alerts.run)
                admission = Admission(settings=self.settings, hub=hub, now=_now)
                background.start_soon(admission.connection_log.run)
                await self._serve(
                    listeners,
                    backend,
                    revoked_tokens,
                    numbering,
                    hub,
                    alerts,
                    admission,
                    readiness,
                    issuer,
                    notifier,
                    ready,
                    stop,
                )
                with trio.move_on_after(SESSION_END_SECONDS, shield=True) as session_end:
                    await backend.close()
                if session_end.cancelled_caught:
                    log.warning(
                        "the end of this session was not stored in time; the next start may count a crash"
                    )
        if root_scope.cancelled_caught:
            log.warning("stopped at once by a second signal")

    async def _serve(
        self,
        listeners: list[trio.SocketListener],
        backend: Backend,
        revoked_tokens: RevokedTokens,
        numbering: LocalNumbering | ClusterNumbering,
        hub: Hub,
        alerts: AlertWatcher,
        admission: Admission,
        readiness: Readiness,
        issuer: ExternalIssuer,
        notifier: Notifier,
        ready: trio.Event,
        stop: trio.Event,
    ) -> None:
        """The server, from ready to drained. It returns when every connection has ended, within the grace."""
        tickets = Tickets()
        authenticator = Authenticator(self.access, tickets, issuer.fetch_key, _now)
        websocket = WebSocketEndpoint(
            settings=self.settings,
            authenticator=authenticator,
            hub=hub,
            admission=admission,
            readiness=readiness,
        )
        services = Services(
            settings=self.settings,
            backend=backend,
            access=self.access,
            revoked_tokens=revoked_tokens,
            authenticator=authenticator,
            tickets=tickets,
            roster=hub.connections,
            events=hub.log,
            alert_counters=alerts.counters,
            streams=EventStreams(hub, admission),
            save=self.store.save,
            stored=self.saved.values,
            log_refused=admission.connection_log.refused,
            now=_now,
        )
        pipeline, deadlines = Pipeline(services), Deadlines()
        app = partial(serve_request, late_app(pipeline), deadlines)
        certificate = self.certificate
        async with trio.open_nursery() as server:
            await server.start(
                partial(
                    front.serve,
                    listeners,
                    rest=QuickReads(pipeline, app, deadlines).serve,
                    live=websocket.serve,
                    stop=stop,
                    tls=(lambda: certificate.context) if certificate is not None else None,
                    proxies=TrustedProxies(self.settings.current.server.trusted_proxies),
                    base_path=self.settings.current.server.base_path,
                    count_malformed=partial(hub.connections.count_connection, "malformed"),
                )
            )
            log_ready(listeners, self.settings.current)
            notifier.status("")
            notifier.ready()
            ready.set()
            await stop.wait()
            notifier.stopping()
            log.info("stopping", clients=hub.connections.count())
            admission.stopping = True
            grace = self.settings.current.server.shutdown_grace
            cut_at = trio.current_time() + grace
            # Events of writes that were answered before the signal are sent before the close.
            with trio.move_on_after(min(LAST_EVENTS_SECONDS, grace / 2)):
                await numbering.caught_up()
                await hub.caught_up()
            hub.connections.end_all(GOING_AWAY)
            server.cancel_scope.deadline = cut_at

    async def _handle_signals(
        self, ready: trio.Event, stop: trio.Event, root_scope: trio.CancelScope, notifier: Notifier
    ) -> None:
        # One more may wait: it reads the files as they are then.
        wanted, reloads = trio.open_memory_channel[None](1)
        with received_signals(self.signals) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reload_each, reloads, ready, stop, notifier)
                async for number in signals:
                    if number == signal.SIGHUP:
                        with suppress(trio.WouldBlock):
                            wanted.send_nowait(None)
                    elif stop.is_set():
                        root_scope.cancel()
                    else:
                        stop.set()

    async def _reload_each(
        self,
        reloads: trio.MemoryReceiveChannel[None],
        ready: trio.Event,
        stop: trio.Event,
        notifier: Notifier,
    ) -> None:
        """One after another, beside the signals: a file that cannot be read to its end does not hold up a stop.

        Nothing is reloaded before the start is finished: to systemd a reload's end would be that of the start."""
        await ready.wait()
        async for _ in reloads:
            if not stop.is_set():
                notifier.reloading()
            await reload(self.config_path, self.settings, self.access)
            if self.certificate is not None:
                await self.certificate.refresh()
            if not stop.is_set():
                notifier.ready()


@asynccontextmanager
async def _background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks end when the block does."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def _watch(notifier: Notifier, inbox: trio.MemorySendChannel[HubItem], hub: Hub) -> None:
    """Notify systemd's watchdog while the hub's loop turns; when it stands still, systemd restarts the daemon."""
    interval = watchdog_interval()
    if interval is None:
        return
    while True:
        turns = hub.turns
        with suppress(trio.WouldBlock):
            inbox.send_nowait(Tick.WATCHDOG)  # so that a quiet loop turns
        await trio.sleep(interval)
        if hub.turns != turns:
            notifier.watchdog()
