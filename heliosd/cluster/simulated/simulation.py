"""Faults by request: they are changed by the backend's task, between two steps of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from heliosd.errors import Invalid
from heliosd.protocol.views.simulation import FaultChange, SimulationReport
from heliosd.raft.simulation.observations import Forgotten, Observation

from .faults import FaultInjector


@dataclass(slots=True, eq=False)
class _ChangeRequest:
    change: FaultChange
    refused: Invalid | None = None
    done: trio.Event = field(default_factory=trio.Event)


class FaultControl:
    """Implements `backend.Simulation`. `wake` wakes the backend's task."""

    def __init__(self, faults: FaultInjector, wake: Callable[[], None]) -> None:
        self._faults = faults
        self._wake = wake
        self._waiting: list[_ChangeRequest] = []

    def report(self) -> SimulationReport:
        return self._faults.report()

    async def change(self, change: FaultChange) -> SimulationReport:
        request = _ChangeRequest(change)
        self._waiting.append(request)
        self._wake()
        try:
            await request.done.wait()
        finally:
            if request in self._waiting:
                self._waiting.remove(request)
        if request.refused is not None:
            raise request.refused
        return self._faults.report()

    def apply_waiting(self) -> None:
        """Make the changes that were asked for. While no batch is in flight."""
        while self._waiting and not self._faults.must_wait(self._waiting[0].change):
            request = self._waiting.pop(0)
            try:
                self._faults.change(request.change)
            except Invalid as refused:
                request.refused = refused
            request.done.set()

    def observe(self, observation: Observation) -> None:
        if isinstance(observation, Forgotten):
            self._faults.forget(observation.member)
