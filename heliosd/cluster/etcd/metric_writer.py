"""Writing the custom metrics: commands that wait together go into one transaction, and are answered one by one.

A command is carried out once or not at all, or its outcome is reported as unknown: a write that was sent and not
answered is not repeated.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice

import trio

from heliosd.cluster.backend import Committed
from heliosd.cluster.etcd.client.errors import EtcdError, EtcdLeaseGone, EtcdOutcomeUnknown, EtcdRefused
from heliosd.cluster.etcd.client.responses import TxnResult
from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.metric_commands import MetricCommand
from heliosd.errors import HeliosError, NoLeader, OutcomeUnknown, RequestRefused

from .context import EtcdContext
from .metric_transactions import MetricTransaction, Outrun, SeenMetrics, Settled, compose, settle
from .watcher import Watcher

GROUP = 50
"""Commands in one transaction, at most."""
LEADER_PATIENCE = 1.2
"""Seconds that a command waits for a leader before it is sent."""
PATIENCE = 4.5
"""Seconds after which a command is answered in any case."""
LOOK_SECONDS = 0.05
SEEN_SECONDS = 0.3
"""So long a refusal waits until what it rests on is applied here."""


@dataclass(slots=True, eq=False)
class _PendingWrite:
    command: MetricCommand
    key: WriteKey | None
    deadline: float
    """If it has not been sent by then, it is refused."""
    outcome: Committed | HeliosError | None = None
    sent: bool = False
    done: trio.Event = field(default_factory=trio.Event)

    def answer(self, outcome: Committed | HeliosError) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self.done.set()


class MetricWriter:
    """`propose` may be called by any task; `run` sends the commands."""

    def __init__(self, context: EtcdContext, watcher: Watcher) -> None:
        self._etcd = context
        self._watcher = watcher
        self._queue: deque[_PendingWrite] = deque()
        self._filled = trio.Event()
        self._seen: SeenMetrics | None = None
        self._reading = 0
        """The reading of the mirror (`Mirror.readings`) that `_seen` goes on from."""

    async def propose(self, command: MetricCommand, key: WriteKey | None = None) -> Committed:
        """Returns once it is committed and applied here. Raises as `Backend.propose` does."""
        request = _PendingWrite(command, key, trio.current_time() + LEADER_PATIENCE)
        self._queue.append(request)
        self._filled.set()
        with trio.move_on_after(PATIENCE):
            await request.done.wait()
        if request.outcome is None:
            request.outcome = OutcomeUnknown() if request.sent else NoLeader()
        if isinstance(request.outcome, HeliosError):
            raise request.outcome
        return request.outcome

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._filled.wait()
                self._drop_answered()
                if not self._queue:
                    self._filled = trio.Event()
                elif self._ready():
                    await self._write(nursery)
                else:
                    await trio.sleep(LOOK_SECONDS)

    def _ready(self) -> bool:
        """Whether a command may be sent. If not, those that have waited too long are refused."""
        mirror = self._etcd.mirror
        # A transaction may have shown that the log is gone before the watch does.
        begun = not mirror.needs_birth and self._best_guess().head.head is not None
        ready = bool(mirror.cluster_id and self._etcd.view.leader and begun)
        if not ready:
            for request in self._queue:
                if trio.current_time() >= request.deadline:
                    request.answer(NoLeader())
        return ready

    def _drop_answered(self) -> None:
        while self._queue and self._queue[0].outcome is not None:
            self._queue.popleft()

    def _waiting(self) -> list[_PendingWrite]:
        return [request for request in islice(self._queue, GROUP) if request.outcome is None]

    async def _write(self, nursery: trio.Nursery) -> None:
        waiting = self._waiting()
        try:
            lease = await self._etcd.lease.current()
            # A new one takes its time. Meanwhile the log may have gone, and commands may have been answered.
            waiting = self._waiting()
            if not waiting or not self._ready():
                return
            batch = compose(
                self._etcd.layout,
                [request.command for request in waiting],
                self._best_guess(),
                keys=[request.key for request in waiting],
                lease=lease,
                now_wall=self._etcd.now().wall,
                max_events=self._etcd.max_events,
            )
            taken = waiting[: len(batch.answers)]
            for request in taken:
                request.sent = True
            result = await self._etcd.client.txn(batch.compares, batch.then, batch.otherwise)
        except EtcdLeaseGone:
            self._etcd.lease.gone()
            for request in waiting:
                request.sent = False
            await trio.sleep(LOOK_SECONDS)
        except EtcdOutcomeUnknown as error:
            self._seen = None
            self._fail(waiting, OutcomeUnknown(), error)
        except EtcdRefused as error:
            self._fail(waiting, NoLeader(f"etcd refuses: {error.reason}"), error)
        except EtcdError as error:
            self._fail(waiting, NoLeader(), error)
        else:
            self._etcd.faults.clear("writing metrics")
            self._settle(taken, batch, result, nursery)
            if result.header.revision < batch.seen.revision:
                # The cluster was set back, and what was read here is not in it. The watch reads all anew soon.
                await trio.sleep(LOOK_SECONDS)

    def _best_guess(self) -> SeenMetrics:
        """The metrics as the last transaction left them, unless the watch has brought newer ones, or all was read
        anew: after a restore from a backup, what the transaction left is gone."""
        mirror = self._etcd.mirror
        outdated = self._reading != mirror.readings
        if self._seen is None or outdated or self._seen.revision < mirror.revision:
            self._seen, self._reading = mirror.seen_metrics(), mirror.readings
        return self._seen

    def _fail(self, requests: list[_PendingWrite], outcome: RequestRefused, error: EtcdError) -> None:
        self._etcd.faults.add("writing metrics", error)
        for request in requests:
            if request.sent or not isinstance(outcome, OutcomeUnknown):
                request.answer(outcome)

    def _settle(
        self,
        requests: list[_PendingWrite],
        batch: MetricTransaction,
        result: TxnResult,
        nursery: trio.Nursery,
    ) -> None:
        settled = settle(self._etcd.layout, batch, result)
        self._seen = settled.seen
        match settled:
            case Outrun():
                for request in requests:
                    request.sent = False
            case Settled(revision=revision):
                for request in requests:
                    self._queue.remove(request)
                place = Committed(revision, result.header.raft_term)
                answers = [answer if answer is not None else place for answer in batch.answers]
                nursery.start_soon(self._answer, requests, answers, batch, revision)

    async def _answer(
        self,
        requests: list[_PendingWrite],
        answers: list[Committed | RequestRefused],
        batch: MetricTransaction,
        revision: int,
    ) -> None:
        """Answer once it is applied here, so that a read that follows shows it. If that takes too long, the outcome
        of a change is unknown to the caller."""
        if batch.then:
            with trio.move_on_after(PATIENCE):
                await self._watcher.reach(revision)
        else:
            # Nothing was changed: all was answered from what was seen, by this node or in etcd. That may be of a
            # revision at which only keys of other programs changed, which the watch does not show.
            with trio.move_on_after(SEEN_SECONDS):
                await self._watcher.reach(batch.seen.revision)
        if not batch.then or self._etcd.mirror.revision >= revision:
            for request, answer in zip(requests, answers, strict=True):
                request.answer(answer)
