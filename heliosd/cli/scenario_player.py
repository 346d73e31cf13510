"""Plays a scenario on a running daemon by its REST API, and reads what its clients must have been sent."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import trio

from heliosd.client.rest_client import RestClient
from heliosd.errors import ErrorAnswer, HeliosError

from .exits import CommandFailed, Usage
from .scenario import (
    HEALED,
    BadScenario,
    Planned,
    Scenario,
    ScriptedFaults,
    Step,
    Storm,
    faults_now,
    planned,
    resolve,
)

SIMULATION = "/api/cluster/simulation"
METRICS = "/api/cluster/custom-metrics"
PAGE = 1000
CALM_SECONDS = 120.0
"""How long a healed cluster may take until all its members agree."""
ASK_AGAIN_SECONDS = 0.05
HEAL_SECONDS = 5.0
"""How long the command goes on trying to heal a cluster when the script ends early."""
HEAL_AGAIN_SECONDS = 0.5
MAY_FAIL = {404, 409, 503, 504, 507}
"""Statuses that a write may be answered with while faults are in force."""


class ScenarioPlayer:
    """`say` is called with each thing that is done."""

    def __init__(
        self, rest: RestClient, scenario: Scenario, speed: float, say: Callable[[str], None]
    ) -> None:
        self._rest = rest
        self._scenario = scenario
        self._speed = speed
        self._say = say
        self._rng = Random(scenario.seed)  # noqa: S311
        self._leader = self._this = ""
        self._ports: set[int] = set()
        """Of the members that were added in this play."""
        self._latency_ms = 0.0

    async def play(self) -> dict[str, Any]:
        """From a cluster without faults to one without faults: what happened in between, and what holds then. The
        cluster is also healed, if it answers, when this ends by an error, by Ctrl-C or by a cancellation."""
        try:
            report = await self._rest.get(SIMULATION)
        except ErrorAnswer as error:
            if error.status == 404:
                raise CommandFailed("this daemon's cluster is a real one: nothing can be simulated") from None
            raise
        needed = self._scenario.members
        if len(report["nodes"]) < needed:
            raise Usage(f"the scenario needs {needed} members, and the cluster has {len(report['nodes'])}")
        self._latency_ms = report["latency_ms"]
        await self._heal()
        await self._calm()
        self._this = (await self._rest.get("/api/cluster/status"))["node"]["id"]
        head = await self._rest.get("/api/cluster/history", limit=1)
        try:
            await self._steps()
            self._say("heal")
            await self._heal()
        except BaseException:  # Ctrl-C among them
            await self._heal_early()
            raise
        await self._calm()
        return await self._heard(head["epoch"], head["seq"])

    async def _steps(self) -> None:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for each in planned(self._scenario, self._rng, self._speed):
                await trio.sleep_until(began + each.at)
                await self._step(each, nursery)
        await trio.sleep(self._scenario.settle / self._speed)

    async def _heal_early(self) -> None:
        """Heal a cluster that is left in the middle of the script, and say whether that succeeded. Raises nothing,
        since the caller has an error of its own to report."""
        self._say("ended early: heal")
        why = "no answer"
        with trio.move_on_after(HEAL_SECONDS, shield=True):
            while True:
                try:
                    await self._heal()
                except HeliosError as error:
                    why = str(error)
                else:
                    return
                # What ended the script may be a daemon that is away for a moment.
                await trio.sleep(HEAL_AGAIN_SECONDS)
        self._say(f"not healed, faults may still be in force ({why})")

    async def _heal(self) -> None:
        await self._rest.put(SIMULATION, {**HEALED, "latency_ms": self._latency_ms})

    async def _calm(self) -> None:
        """Wait until all members agree on a leader and a log, and this node finds every peer healthy."""
        with trio.move_on_after(CALM_SECONDS):
            while not await self._agreed():  # noqa: ASYNC110 (the daemon has no call that waits for it)
                await trio.sleep(ASK_AGAIN_SECONDS)  # each look is two requests
            return
        raise CommandFailed(f"the cluster did not come to rest within {CALM_SECONDS:g} s")

    async def _agreed(self) -> bool:
        nodes = (await self._rest.get(SIMULATION))["nodes"]
        status = await self._rest.get("/api/cluster/status")
        leader = status["leader"]["id"]
        ends = {(node["leader"], node["term"], node["commit_index"], node["last_index"]) for node in nodes}
        if len(ends) != 1 or not leader or status["cluster_health"]["unhealthy_peers"]:
            return False
        self._leader = leader
        return {node["id"] for node in nodes if node["state"] == "Leader"} == {leader}

    async def _step(self, planned_step: Planned, nursery: trio.Nursery) -> None:
        step = planned_step.step
        ids = await self._look()
        if step.say:
            self._say(step.say)
        if step.heal:
            self._say("heal")
            await self._heal()
        try:
            if step.faults is not None:
                ids = await self._put_faults(step.faults, ids)
            target = step.transfer
            if target not in {"", "any"}:
                meant = resolve([target], ids, self._leader, self._this, self._rng)
                if not meant:
                    raise BadScenario(f"{target!r} means no member, so it cannot lead")
                target = meant[0]
            gone = resolve([step.remove], ids, self._leader, self._this, self._rng) if step.remove else []
        except BadScenario as wrong:
            raise Usage(str(wrong)) from None
        # They may take seconds while there is no leader, and the next fault must not wait for them.
        nursery.start_soon(self._writes, step, target, gone, len(ids))

    async def _put_faults(self, faults: ScriptedFaults, ids: list[str]) -> list[str]:
        """Returns the ids that the names in it were taken to mean."""
        while True:
            body = faults_now(faults, ids, self._leader, self._this, self._rng)
            self._say(f"faults: {', '.join(f'{name} {value}' for name, value in body.items())}")
            try:
                await self._rest.put(SIMULATION, body)
            except ErrorAnswer as error:
                last, ids = ids, await self._look()
                # Else a member was removed since it was looked at: the faults are chosen among those that are left.
                if error.status != 400 or ids == last:
                    raise
            else:
                return ids

    async def _look(self) -> list[str]:
        nodes = (await self._rest.get(SIMULATION))["nodes"]
        leading = [node for node in nodes if node["state"] == "Leader" and node["alive"]]
        if leading:
            self._leader = max(leading, key=lambda node: int(node["term"]))["id"]
        ids = [node["id"] for node in nodes]
        if self._leader not in ids:
            self._leader = ""
        return ids

    async def _writes(self, step: Step, target: str, gone: list[str], size: int) -> None:
        if target:
            await self._try(
                f"transfer to {target}",
                "POST",
                "/api/cluster/leadership/transfer",
                {} if target == "any" else {"target": target},
            )
        if step.add:
            address = f"127.0.0.1:{await self._free_port(7000 + size + 20)}"
            await self._try(
                f"add {step.add}", "POST", "/api/cluster/peers", {"id": step.add, "address": address}
            )
        for member in gone:
            await self._try(f"remove {member}", "DELETE", "/api/cluster/peers", {"id": member})
        if step.snapshot:
            await self._try("snapshot", "POST", "/api/cluster/snapshot", {})
        if step.storm is not None:
            await self._storm(step.storm)

    async def _free_port(self, port: int) -> int:
        """This one, or the next that no member has or was given."""
        peers = (await self._rest.get("/api/cluster/status"))["peers"]
        ports = (peer["address"].rpartition(":")[2] for peer in peers)
        taken = self._ports | {int(each) for each in ports if each.isdecimal()}
        while port in taken:
            port += 1
        self._ports.add(port)
        return port

    async def _storm(self, storm: Storm) -> None:
        names = [f"storm_{serial}" for serial in range(1, storm.count + 1)]
        for name in names:
            await self._try("", "POST", METRICS, {"name": name, "type": "gauge"})
        changes = int(storm.rate * storm.seconds)
        self._say(f"storm: {changes} changes of {storm.count} metrics in {storm.seconds / self._speed:g} s")
        began = trio.current_time()
        at_once = trio.CapacityLimiter(20)

        async def change(serial: int) -> None:
            async with at_once:
                body = {"name": names[serial % len(names)], "value": serial}
                await self._try("", "PUT", METRICS, body)

        async with trio.open_nursery() as nursery:
            for serial in range(changes):
                nursery.start_soon(change, serial)
                await trio.sleep_until(began + (serial + 1) / storm.rate / self._speed)

    async def _try(self, what: str, method: str, path: str, body: dict[str, Any]) -> None:
        try:
            await self._rest.request(method, path, body=body)
        except ErrorAnswer as error:
            if error.status not in MAY_FAIL:
                raise
            if what:
                self._say(f"{what}: {error.status}, {error.message}")
        else:
            if what:
                self._say(what)

    async def _heard(self, epoch: str, after: int) -> dict[str, Any]:
        events: list[dict[str, Any]] = []
        while True:
            at = after + len(events)
            page = await self._rest.get("/api/cluster/history", epoch=epoch, after=at, limit=PAGE)
            events += page["events"]
            if not page["more"]:
                break
        status = await self._rest.get("/api/cluster/status")
        metrics = await self._rest.get(METRICS)
        return {
            "about": self._scenario.about,
            "seed": self._scenario.seed,
            "speed": self._speed,
            "epoch": epoch,
            "first_seq": after + 1,
            "last_seq": after + len(events),
            "events": events,
            "final": {
                "leader": status["leader"]["id"],
                "term": status["node"]["term"],
                "state": status["node"]["state"],
                "peers": sorted(peer["id"] for peer in status["peers"]),
                "custom_metrics": {
                    name: metric["value"] for name, metric in sorted(metrics["metrics"].items())
                },
            },
        }
