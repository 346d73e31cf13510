"""The custom metrics as the emitted events have shown them.

A member that crashed starts from its own snapshot, which is older than what was emitted. So what a leader's
snapshot changes for those who follow the events is found from what was emitted, and not from what the member held.
"""

from __future__ import annotations

from collections.abc import Mapping

from heliosd.cluster.custom_metrics import MetricsApplied
from heliosd.protocol.views.custom_metrics import MetricView
from heliosd.raft.log import RaftLog
from heliosd.raft.messages import Entry, Snapshot

from .state_machine import MetricStateMachine


class EmittedMetrics:
    """As of the last entry that was emitted; after a start, as far as the log has it."""

    def __init__(self, log: RaftLog, emitted: int) -> None:
        machine = MetricStateMachine()
        machine.restore(log.snapshot.data)
        self._index = max(log.snapshot.index, min(emitted, log.last_index))
        for entry in log.slice(log.first_index, self._index):
            if entry.kind == "command":
                machine.apply(entry.data)
        self._views = machine.metrics.views()

    def entry_applied(self, entry: Entry, result: object) -> None:
        """An entry was applied, with this result. One that was emitted before, applied again, changes nothing."""
        if entry.index <= self._index:
            return
        self._index = entry.index
        if isinstance(result, MetricsApplied):
            for name, view in (result.defined | result.moved).items():
                if view is None:
                    self._views.pop(name, None)
                else:
                    self._views[name] = view

    def installed(self, snapshot: Snapshot) -> tuple[MetricsApplied, ...]:
        """A snapshot took the place of the log up to it: what it changes, in terms of commands. That is nothing if
        it holds no more than was emitted."""
        if snapshot.index <= self._index:
            return ()
        before, self._views = self._views, _views_of(snapshot)
        self._index = snapshot.index
        return difference(before, self._views)


def _views_of(snapshot: Snapshot) -> dict[str, MetricView]:
    machine = MetricStateMachine()
    machine.restore(snapshot.data)
    return machine.metrics.views()


def difference(
    before: Mapping[str, MetricView], after: Mapping[str, MetricView]
) -> tuple[MetricsApplied, MetricsApplied]:
    """The changes from one state to another, deletions first: a metric that was deleted and registered anew is
    deleted and defined, so that no value of the old one is taken for one of the new."""
    kept = {name for name, view in after.items() if name in before and _same(before[name], view)}
    deleted: dict[str, MetricView | None] = {name: None for name in before if name not in kept}
    defined: dict[str, MetricView | None] = {name: view for name, view in after.items() if name not in kept}
    moved = {name: view for name, view in after.items() if name in kept and before[name] != view}
    return MetricsApplied(defined=deleted), MetricsApplied(defined=defined, moved=moved)


def _same(before: MetricView, after: MetricView) -> bool:
    """Whether it is one metric: one that was deleted and registered anew has another time."""
    return (before.created_at, before.type) == (after.created_at, after.type)
