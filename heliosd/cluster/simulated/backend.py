"""The simulated cluster as a backend: real Raft, driven by Trio's clock.

All decisions are synchronous and made elsewhere: `raft/simulation/cluster.py` runs the members, `requests.py`
follows the requests of this node's clients, `observer.py` makes events of what happens to the local member. The
task here feeds in time, writes to disk, and waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random

import trio

from heliosd.clock import Instant
from heliosd.cluster.backend import Committed, Peer
from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.latency import LatencyTracker
from heliosd.cluster.metric_commands import MetricCommand, check_command, encode_command
from heliosd.cluster.snapshots import SnapshotTracker
from heliosd.cluster.subscribers import ItemQueue, Subscribers
from heliosd.cluster.uptime import UptimeTracker
from heliosd.config.model import SimulatedConfig
from heliosd.errors import Conflict, StoreFull
from heliosd.protocol.events import StateComplete
from heliosd.protocol.views.snapshots import SnapshotRecord
from heliosd.protocol.views.status import ClusterStatus
from heliosd.raft.simulation.cluster import SimulatedCluster
from heliosd.raft.simulation.proposals import (
    AddMember,
    Proposal,
    RemoveMember,
    TransferLeadership,
    WriteCommands,
)
from heliosd.raft.simulation.write_batch import WriteBatch
from heliosd.store.changes import Change, Save, Saved
from heliosd.store.deferred_changes import DeferredChanges

from .bootstrap import TICKS_PER_SECOND, first_timeout, load_members, options_of
from .emitted_marker import emitted_index
from .faults import FaultInjector
from .observer import MemberObserver
from .pacing import GRID, Pacing
from .permits import SimulatedPermits
from .requests import ClientRequest, RequestDone, Requests
from .simulation import FaultControl
from .snapshotting import SnapshotRequest, Snapshotting
from .state_machine import MetricStateMachine
from .status import build_status, why_not_ready

log = logging.getLogger(__name__)

LEADER_PATIENCE = 2.0
"""Seconds that a request waits for a leader."""
PATIENCE = 4.5
"""Seconds after which a request is answered in any case."""
ALIVE_INTERVAL = 10.0
RETRY_INTERVAL = 1.0
"""Seconds between attempts to store records of uptime and snapshots while the disk refuses."""


class SimulatedBackend:
    """This node and its peers as a simulated Raft cluster; implements `backend.Backend`.

    `run` is its task. Properties and `status` may be used at once, the rest once `run` has started.
    """

    def __init__(
        self,
        *,
        node_id: str,
        config: SimulatedConfig,
        saved: Saved,
        save: Save,
        latency: LatencyTracker,
        uptime: UptimeTracker,
        snapshots: SnapshotTracker,
        now: Callable[[], Instant],
        buffer: int,
    ) -> None:
        self.latency, self.uptime, self.snapshots = latency, uptime, snapshots
        self._node = node_id
        self._address = config.address
        self._deferred = DeferredChanges(save)
        self._now = now
        self._subscribers = Subscribers(buffer)
        members = {node_id: config.address} | {peer.id: peer.address for peer in config.peers}
        states, self._first_changes = load_members(saved, node_id, members)
        heartbeat = round(config.heartbeat_interval * TICKS_PER_SECOND)
        began = now().mono
        self.cluster = SimulatedCluster(
            root=node_id,
            states=states,
            options=options_of(config),
            rng=Random(config.seed or int(now().wall * TICKS_PER_SECOND)),  # noqa: S311
            machine=MetricStateMachine,
        )
        self._restore_seconds = now().mono - began
        patience, pause = TICKS_PER_SECOND // 2, max(GRID, heartbeat // 4)
        self._requests = Requests(self.cluster, node_id, patience=patience, pause=pause)
        self._observer = MemberObserver(
            self.cluster,
            node_id,
            emitted=emitted_index(saved),
            ticks_per_second=TICKS_PER_SECOND,
            latency=latency,
            uptime=uptime,
            snapshots=snapshots,
            emit=self._subscribers.emit,
            note=self._deferred.add,
            now=now(),
        )
        if members != dict(self._observer.membership):
            log.warning(
                "the configured members are not those of the cluster, which hold: configured %s, stored %s",
                members,
                dict(self._observer.membership),
            )
        self.permits = SimulatedPermits(self.cluster, node_id, self._command, now)
        self._wake = trio.Event()
        self._pacing = Pacing(self.cluster, heartbeat)
        self.simulation = FaultControl(FaultInjector(self.cluster), self._wake_up)
        self._snapshotting = Snapshotting(self.cluster, node_id, snapshots, self._observer)
        self._tick_at = self._alive_at = self._retry_at = 0.0
        self._store_works = True
        self._closed = self._complete = False

    # Reading

    @property
    def metrics(self) -> MetricSet:
        machine = self.cluster.members[self._node].visible_machine
        assert isinstance(machine, MetricStateMachine)
        return machine.metrics

    def status(self) -> ClusterStatus:
        return build_status(self.cluster, self._node, self._observer.membership, self.latency, self._now())

    @property
    def complete(self) -> bool:
        return self._complete

    def warnings(self) -> list[str]:
        return []

    def not_ready(self) -> str | None:
        return why_not_ready(self.cluster, self._node)

    def events(self) -> AbstractAsyncContextManager[ItemQueue]:
        return self._subscribers.listener()

    # Writing

    async def propose(self, command: MetricCommand, key: WriteKey | None = None) -> Committed:
        check_command(command)
        done = await self._command(encode_command(command, key))
        return Committed(done.index, done.term)

    async def _command(self, command: bytes) -> RequestDone:
        return await self._request(WriteCommands((command,)))

    async def add_peer(self, peer: Peer, *, again: bool = False) -> Peer:
        try:
            await self._request(AddMember(peer.id, peer.address))
        except Conflict:
            if not again or self._observer.membership.get(peer.id) != peer.address:
                raise
        return peer

    async def remove_peer(self, peer_id: str) -> Peer:
        if peer_id == self._node:
            raise Conflict("This node cannot be removed from its own cluster", field="id")
        address = self._observer.membership.get(peer_id, "")
        await self._request(RemoveMember(peer_id))
        return Peer(peer_id, address)

    async def transfer_leadership(self, target: str | None) -> str:
        return (await self._request(TransferLeadership(target or ""))).leader

    async def _request(self, proposal: Proposal) -> RequestDone:
        """Propose it and wait. Raises `NoLeader`, `OutcomeUnknown`, `StoreFull`, or the refusal."""
        answered = trio.Event()
        request = ClientRequest(proposal, answered.set)
        self._requests.add(request)
        self._wake.set()
        try:
            with trio.move_on_after(LEADER_PATIENCE):
                await answered.wait()
            if request.outcome is None and self._requests.is_waiting(request):
                raise self._requests.unanswered(request)
            with trio.move_on_after(PATIENCE - LEADER_PATIENCE):
                await answered.wait()
            if request.outcome is None:
                raise self._requests.unanswered(request)
        finally:
            self._requests.withdraw(request)
        outcome, request.outcome = request.outcome, None
        if isinstance(outcome, RequestDone):
            return outcome
        assert outcome is not None
        try:
            raise outcome
        finally:
            del outcome  # its traceback refers to this call, and no cycle is to be left

    async def take_snapshot(self) -> SnapshotRecord:
        answered = trio.Event()
        request = SnapshotRequest(answered.set)
        self._snapshotting.requests.append(request)
        self._wake.set()
        await answered.wait()
        if isinstance(request.outcome, Exception):
            raise request.outcome
        assert request.outcome is not None
        return request.outcome

    async def reset_uptime(self) -> None:
        changes = self.uptime.reset_changes(self._now())
        await self._deferred.reset(changes, lambda: self.uptime.reset(self._now()))

    async def reset_snapshots(self) -> None:
        await self._deferred.reset(self.snapshots.reset_changes(), self.snapshots.reset)

    async def share_revocation(self, jti: str, expires_at: float) -> None:
        """No other daemon accepts this daemon's tokens."""
        del jti, expires_at
        await trio.lowlevel.checkpoint()

    def _wake_up(self) -> None:
        self._wake.set()

    # Running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled. Started once a first start's members are on disk, or refused and tried again."""
        now = self._now()
        self._observer.begin(now)
        restored = self.cluster.members[self._node].raft.log.snapshot
        if restored.data:
            self._observer.snapshot_restored(restored, seconds=self._restore_seconds, now=now)
        stored = await self._store_deferred(self._first_changes)
        task_status.started()
        while self._first_changes and not stored:
            await trio.sleep(RETRY_INTERVAL)
            stored = await self._store_deferred(self._first_changes)
        self.cluster.run_until(first_timeout(self.cluster))
        self._pacing.begin(trio.current_time())
        self._alive_at = self._now().mono + ALIVE_INTERVAL
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.permits.run)
            while True:
                await self._step()

    async def close(self) -> None:
        """End the session; call it before `run` is cancelled."""
        self._closed = True
        try:
            await self._deferred.store(self._observer.end(self._now()))
        except StoreFull as full:
            log.warning(
                "the end of this session could not be stored, the next start counts a crash: %s", full
            )

    async def _step(self) -> None:
        """Process what is due, write what the members want written, or wait."""
        began = self._now().mono
        self._wake = trio.Event()
        self._pacing.run(trio.current_time())
        self.simulation.apply_waiting()
        self._requests.submit()
        self._snapshotting.take_due(self._now)
        await self._observe(began)
        batch = self.cluster.take_writes()
        if batch is not None:
            await self._write(batch)
            await trio.lowlevel.checkpoint()
        elif self._deferred and trio.current_time() >= self._retry_at:
            await self._store_deferred()
            await trio.lowlevel.checkpoint()
        else:
            due = self._pacing.next_turn(
                trio.current_time(), self._requests.next_due(), busy=self._requests.busy
            )
            with trio.move_on_at(due):
                await self._wake.wait()

    async def _observe(self, began: float) -> None:
        """Hand on what has happened since the last time. While a reader's queue is full this waits, and the
        cluster's time stops."""
        now = self._now()
        for observation in self.cluster.take_observations():
            if not self._subscribers.have_room:
                await self._subscribers.room()
                now = self._now()
            self._requests.observe(observation)
            self._observer.observe(observation, now)
            self._snapshotting.observe(observation, began)
            self.simulation.observe(observation)
        if not self._complete and self.not_ready() is None:
            self._complete = True
            self._subscribers.emit(StateComplete())
        if self._closed:
            return
        if now.mono >= self._tick_at:
            self._tick_at = now.mono + 1.0
            self._observer.tick(now)
        if now.mono >= self._alive_at:
            self._alive_at = now.mono + ALIVE_INTERVAL
            self._deferred.add(self.uptime.alive(now))

    # The disk

    async def _write(self, batch: WriteBatch) -> None:
        """Make a batch durable. Before that, nothing of it is visible."""
        began = self._now().mono
        try:
            await self._deferred.store(first=self._observer.with_markers(batch.changes))
        except StoreFull as full:
            self._disk_answered(full)
            self.cluster.refused(batch)
            self._snapshotting.refused(full, self._now())
        else:
            self._disk_answered(None)
            self.cluster.written(batch)
            self._snapshotting.written(self._now())
        await self._observe(began)

    async def _store_deferred(self, first: Sequence[Change] = ()) -> bool:
        """Store `first` and the records of uptime and snapshots, if the disk takes them; these are tried again."""
        try:
            await self._deferred.store(first=first)
        except StoreFull as full:
            self._disk_answered(full)
            self._retry_at = trio.current_time() + RETRY_INTERVAL
            return False
        self._disk_answered(None)
        return True

    def _disk_answered(self, failure: StoreFull | None) -> None:
        self._snapshotting.disk_answered(failure)
        if failure is None and not self._store_works:
            log.warning("the store takes writes again")
        elif failure is not None and self._store_works:
            log.error("the store refuses writes, so the cluster does too: %s", failure)
        self._store_works = failure is None
