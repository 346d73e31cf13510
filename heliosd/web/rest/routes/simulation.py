"""The faults of a simulated cluster: show and change."""

from __future__ import annotations

from heliosd.cluster.backend import Simulation
from heliosd.errors import NotFound
from heliosd.protocol.views.simulation import FaultChange
from heliosd.web.rest.route import Answer, Call, Nothing
from heliosd.web.rest.services import Services


async def show_simulation(call: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=_simulation(call.services).report())


async def change_simulation(call: Call[Nothing, FaultChange]) -> Answer:
    return Answer(body=await _simulation(call.services).change(call.body))


def _simulation(services: Services) -> Simulation:
    simulation = services.backend.simulation
    if simulation is None:
        raise NotFound("Only the simulated backend has this")
    return simulation
