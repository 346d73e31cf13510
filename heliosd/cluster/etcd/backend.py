"""A real etcd cluster as a backend.

The decisions are pure and in other modules: `view.py` evaluates what the members answer, `mirror.py` holds the
keys under the prefix, `event_log.py` and `pending_events.py` say what is appended to the cluster's log. This module
starts the tasks:

poller         every member's status, the list of members           -> view
watcher        one reading and one watch of the whole prefix         -> mirror -> the hub
log_writer     what the view shows and the log does not have yet     -> the log
metric_writer  commands for custom metrics                           -> transactions
presence       this node's lease; as observer, promotes learners
revocations    revoked tokens                                        -> keys under the prefix
backup         a member's whole database                             -> a file in the data directory
write_probe    whether etcd would accept a write
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import trio

from heliosd.clock import Instant
from heliosd.cluster.backend import Committed, Peer
from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.etcd.client.client import EtcdClient
from heliosd.cluster.etcd.client.endpoints import normal
from heliosd.cluster.etcd.client.identity import ClusterIdentity
from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.metric_commands import MetricCommand, check_command
from heliosd.cluster.snapshots import SnapshotOutcome, SnapshotTracker
from heliosd.cluster.subscribers import ItemQueue, Subscribers
from heliosd.cluster.uptime import UptimeTracker
from heliosd.config.model import EtcdConfig, HistoryConfig
from heliosd.protocol.events import LogReset, MetricValuesChanged, SnapshotTaken, StatusChanged
from heliosd.protocol.views.snapshots import SnapshotRecord
from heliosd.protocol.views.status import ClusterStatus, ObserverView
from heliosd.store.changes import LoggedEvent, Save, Saved

from .admin import MemberAdmin
from .backup import RETAINED, Backup
from .context import EtcdContext
from .election import LeaderElected
from .faults import OPTIONAL, Concern, Faults
from .keys import KeyLayout
from .local_records import LocalRecords, known_before
from .log_ahead import LogAhead
from .log_lease import LogLease
from .log_writer import LogWriter
from .member_metrics import Measured, RoundTrips
from .metric_writer import MetricWriter
from .mirror import Mirror
from .pause_clock import PauseClock
from .permits import EtcdPermits
from .poller import Poller
from .presence import Presence
from .revocations import Revocations
from .status import build_status, why_not_ready
from .updates import MirrorUpdate as Heard
from .view import ClusterView
from .view_changes import OtherCluster, OwnStateChanged, ViewChange
from .watcher import Watcher
from .write_probe import WriteProbe

log = logging.getLogger(__name__)

SET_BACK_SECONDS = 2.0
"""If all members show a revision below the one applied here for so long, the cluster was restored from a backup."""


class EtcdBackend:
    """A cluster of etcd as this node shows and reports it; implements `backend.Backend`.

    `run` does the work. Reading methods may be called once `run` has started, also before etcd has answered.
    `revoked` is called with each token (`jti`, expiry in Unix seconds) that any daemon of the cluster has revoked.
    """

    simulation = None

    def __init__(
        self,
        *,
        node_id: str,
        config: EtcdConfig,
        history: HistoryConfig,
        directory: Path,
        saved: Saved,
        save: Save,
        revoked: Callable[[str, float], None],
        now: Callable[[], Instant],
        buffer: int,
    ) -> None:
        self.latency = LatencyTracker()
        self.uptime = UptimeTracker(node_id, saved)
        self.snapshots = SnapshotTracker(node_id, saved, interval=0.0, threshold=0, retained=RETAINED)
        self._revoked = revoked
        self._namesakes: tuple[str, ...] = ()
        self._readings = 0
        self._remembered = ""
        """The cluster whose id is on disk, or soon will be."""
        self._set_back_since: float | None = None
        self._round_trips = RoundTrips()
        self._log_ahead = LogAhead()
        self.faults = Faults()
        self._denials = self.faults.denials()
        layout, view = KeyLayout(config.prefix), ClusterView(node_id, self.latency)
        before = known_before(saved)
        identity = ClusterIdentity("" if before is None else before.cluster_id)
        client = EtcdClient(config, identity=identity)
        self._etcd = context = EtcdContext(
            node_id=node_id,
            max_events=history.max_events,
            now=PauseClock(now, view.skip),
            client=client,
            identity=identity,
            layout=layout,
            lease=LogLease(client, history.max_age, now),
            mirror=Mirror(layout, history.max_events, before),
            view=view,
            faults=self.faults,
            subscribers=Subscribers(buffer),
        )
        self._records = LocalRecords(save, self.uptime, context.mirror, now)
        self._watcher = watcher = Watcher(context, self._heard)
        self._poller = poller = Poller(
            context,
            poll_interval=config.poll_interval,
            view_changed=self._view_changed,
            looked=self._check_watch,
            read=self._measured,
        )
        self._log_writer = LogWriter(context, watcher, list_now=poller.list_now)
        self._metric_writer = MetricWriter(context, watcher)
        self._presence = Presence(context, poller.url_of, config.dashboard_url)
        self._revocations = Revocations(context, watcher, saved.revoked)
        self._write_probe = WriteProbe(context)
        self._admin = MemberAdmin(context, watcher, poller)
        self.permits = EtcdPermits(context, self._admin, poller)
        self._backup = Backup(context, poller, self.snapshots, directory, self._emit_snapshot)

    # Reading

    @property
    def metrics(self) -> MetricSet:
        return self._etcd.mirror.metrics

    def status(self) -> ClusterStatus:
        observers = tuple(
            ObserverView(each.id, each.version, each.since, each.url or msgspec.UNSET)
            for _, each in sorted(self._etcd.mirror.observers.items())
        )
        mirror, view, now = self._etcd.mirror, self._etcd.view, self._etcd.now()
        head = None if mirror.needs_birth else mirror.head.head
        logged = self._log_ahead.shown(head, view.term, view.leader, now.mono)
        status = build_status(view, observers, now, logged)
        lacking = (_lacking(*each) for each in self.faults.denials().items() if each[0] not in OPTIONAL)
        return msgspec.structs.replace(
            status,
            stale=status.stale or self._unread() is not None,
            warnings=(*lacking, *self.warnings()) or msgspec.UNSET,
        )

    @property
    def complete(self) -> bool:
        return bool(self._etcd.mirror.cluster_id)

    def not_ready(self) -> str | None:
        if self._unread() is None and self._etcd.view.leader:
            denied = (why for concern, why in self.faults.denials().items() if concern not in OPTIONAL)
            unborn = "the cluster's event log has not begun" if self._etcd.mirror.needs_birth else None
            reasons = (*denied, unborn or why_not_ready(self._etcd.view), self._records.unsaved)
        else:
            reasons = (*self.faults.refusals().values(), why_not_ready(self._etcd.view), self._unread())
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or None

    def warnings(self) -> list[str]:
        """What an operator should know though reads and writes are well: for `/readyz`."""
        foreign = sorted(self._etcd.identity.foreign().items())
        denied = self.faults.denials().items()
        return [
            *(f"{url} belongs to another cluster ({cluster}) and is left out" for url, cluster in foreign),
            *(_lacking(concern, why) for concern, why in denied if concern in OPTIONAL),
        ]

    def _unread(self) -> str | None:
        """Why the mirror may be outdated; None: it is not."""
        reason = self.faults.reason("reading")
        if reason is not None:
            return reason
        return None if self._etcd.mirror.cluster_id else "etcd has not been read yet"

    def events(self) -> AbstractAsyncContextManager[ItemQueue]:
        return self._etcd.subscribers.listener()

    # Writing

    async def propose(self, command: MetricCommand, key: WriteKey | None = None) -> Committed:
        check_command(command)
        return await self._metric_writer.propose(command, key)

    async def add_peer(self, peer: Peer, *, again: bool = False) -> Peer:
        return await self._admin.add_peer(peer, again=again)

    async def remove_peer(self, peer_id: str) -> Peer:
        return await self._admin.remove_peer(peer_id)

    async def transfer_leadership(self, target: str | None) -> str:
        return await self._admin.transfer_leadership(target)

    async def take_snapshot(self) -> SnapshotRecord:
        return await self._backup.take()

    def _emit_snapshot(self, outcome: SnapshotOutcome) -> None:
        self._records.note(outcome.changes)
        event = outcome.event
        key = f"snapshot:{self._etcd.node_id}:{event.type}:{event.snapshot_id}:{event.timestamp}"
        self._log_writer.happened(key, SnapshotTaken(snapshot=event))

    async def reset_uptime(self) -> None:
        changes = self.uptime.reset_changes(self._etcd.now())
        await self._records.reset(changes, lambda: self.uptime.reset(self._etcd.now()))

    async def reset_snapshots(self) -> None:
        await self._records.reset(self.snapshots.reset_changes(), self.snapshots.reset)

    async def share_revocation(self, jti: str, expires_at: float) -> None:
        await self._revocations.share(jti, expires_at)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started at once, whether etcd can be reached or not."""
        self._records.note(self.uptime.start(self._etcd.view.own_role(self._etcd.now()), self._etcd.now()))
        async with self._etcd.client, trio.open_nursery() as nursery:
            for task in (
                self._poller.run,
                self._watcher.run,
                self._log_writer.run,
                self._metric_writer.run,
                self._presence.run,
                self._revocations.run,
                self._backup.run,
                self._write_probe.run,
                self._records.run,
            ):
                nursery.start_soon(task)
            task_status.started()

    async def close(self) -> None:
        """Store the end of the session; call it before `run` is cancelled."""
        await self._records.close()

    def _heard(self, heard: Heard) -> None:
        """Handle what the mirror has applied. Synchronous: no task may read a state that is not published yet."""
        if self._etcd.mirror.readings != self._readings:
            self._readings = self._etcd.mirror.readings
            if self._etcd.mirror.revision < self._etcd.view.members_as_of:
                # Everything was read anew after the cluster was set back: so was the list of members.
                self._etcd.view.members_as_of = 0
        if self._etcd.mirror.cluster_id != self._remembered:
            self._remembered = self._etcd.mirror.cluster_id
            self._records.remember()
        for item in heard.emitted:
            if isinstance(item, LoggedEvent | LogReset):
                self._log_writer.on_logged(item)
            self._etcd.subscribers.emit(item)
        head, view = self._etcd.mirror.head.head, self._etcd.view
        if "head" in heard.changed and head is not None and head.knows_more(view.term, view.leader):
            self._log_ahead.heard(head, self._etcd.now().mono)
            self._poller.poll_all_now()
        for jti, expires_at in heard.revoked.items():
            self._revoked(jti, expires_at)
        for key in heard.unreadable:
            log.warning("etcd: the value of %s is not in heliosd's format", key.decode(errors="replace"))
        if heard.changed & {"observer", "observers"}:
            self._presence.act_now()
        if "leaving" in heard.changed:
            urls = self._poller.leave(self._etcd.mirror.leaving)
            if self._watcher.endpoint in map(normal, urls):
                self._watcher.leave("its member is about to be removed")
        if "members" in heard.changed:
            self._poller.list_now()
        if any(not isinstance(item, MetricValuesChanged) for item in heard.emitted) or heard.changed - {
            "metrics"
        }:
            self._log_writer.look()

    def _view_changed(self, changes: Sequence[ViewChange]) -> None:
        for change in changes:
            match change:
                case OwnStateChanged(old=old, new=new, term=term, leader=leader):
                    if not self._records.closed:
                        self._records.note(
                            self.uptime.state_changed(old, new, term, leader, self._etcd.now())
                        )
                case OtherCluster(cluster_id):
                    log.warning("etcd: another cluster answers now: %s", cluster_id)
                    self._watcher.reload()
                case LeaderElected(term=term, restored=True):
                    # Revisions may have caught up since, so they need not show it.
                    log.warning("etcd: the terms began again with %s: the cluster was restored", term)
                    self._watcher.reload()
                case LeaderElected():
                    self._watcher.leave_if(self._poller.unfit)  # the leader before delivers nothing new
                    self._watcher.retry_now()
                case _:
                    pass
            self._log_writer.view_changed(change)
        if changes:
            self._etcd.subscribers.emit(StatusChanged())
            self._poller.list_now()
        self._warn_of_namesakes()
        self._log_writer.look()

    def _warn_of_namesakes(self) -> None:
        namesakes = self._etcd.view.namesakes
        if namesakes and namesakes != self._namesakes:
            log.warning(
                "etcd: %s members are called %s, as this node: %s; it is shown as an observer",
                *(len(namesakes), self._etcd.node_id, ", ".join(namesakes)),
            )
        self._namesakes = namesakes

    def _measured(self, member: str, measured: Measured) -> None:
        now = self._etcd.now()
        for peer, mean in self._round_trips.since_last(member, measured).items():
            self.latency.round_trip(member, peer, mean, now)

    def _check_watch(self) -> None:
        """Leave a member that is silent or behind; show which rights are missing; read everything again after the
        cluster was set back."""
        self._watcher.leave_if(self._poller.unfit)
        if self.faults.denials() != self._denials and self._etcd.subscribers.have_room:
            self._denials = self.faults.denials()
            self._etcd.subscribers.emit(StatusChanged())
        now = trio.current_time()
        if not self._poller.is_set_back():
            self._set_back_since = None
        elif self._set_back_since is None:
            self._set_back_since = now
        elif now - self._set_back_since >= SET_BACK_SECONDS:
            self._set_back_since = None
            self._watcher.reload()


def _lacking(concern: Concern, why: str) -> str:
    return f"{concern} does not work: {why}"
