"""A simulated network: it delays, loses, repeats, reorders and partitions, in ticks, from one `Random`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from random import Random
from typing import Generic, NamedTuple, TypeVar

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConditions:
    """How the network treats messages that are sent from now on."""

    latency: float
    """Mean one-way delay in ticks: half of it constant, half exponentially distributed."""
    loss: float = 0.0
    """Share of messages lost."""
    repeats: float = 0.0
    """Share of messages delivered twice."""
    ordered: bool = True
    """Between two members, messages keep their order, as on a TCP connection."""


class Packet(NamedTuple, Generic[Content]):
    """One message in flight."""

    due: int
    number: int
    """Counts packets: of equal dues, the one sent first is delivered first."""
    sender: str
    recipient: str
    content: Content


class SimulatedNetwork(Generic[Content]):
    """Messages in flight between members, by the tick at which they arrive."""

    def __init__(self, conditions: NetworkConditions, rng: Random) -> None:
        self.conditions = conditions
        self._rng = rng
        self._heap: list[Packet[Content]] = []
        self._last_due: dict[tuple[str, str], int] = {}
        self._group: dict[str, int] = {}
        self.sent = 0
        """Packets sent so far."""

    def send(self, now: int, sender: str, recipient: str, content: Content) -> None:
        conditions, rng = self.conditions, self._rng
        if conditions.loss and rng.random() < conditions.loss:
            return
        self._put(now, sender, recipient, content)
        if conditions.repeats and rng.random() < conditions.repeats:
            self._put(now, sender, recipient, content)

    def _put(self, now: int, sender: str, recipient: str, content: Content) -> None:
        due = now + round(self.conditions.latency * (0.5 + self._rng.expovariate(2.0)))
        if self.conditions.ordered:
            due = max(due, self._last_due.get((sender, recipient), 0))
            self._last_due[sender, recipient] = due
        heappush(self._heap, Packet(due, self.sent, sender, recipient, content))
        self.sent += 1

    def next_due(self) -> int | None:
        """The tick at which the next message arrives; None without one."""
        return self._heap[0].due if self._heap else None

    def pop(self) -> Packet[Content] | None:
        """Take the next message; None if a partition dropped it."""
        packet = heappop(self._heap)
        return packet if self.connected(packet.sender, packet.recipient) else None

    def partition(self, groups: Iterable[Collection[str]]) -> None:
        """From now on only members of the same group reach each other; those in no group form one more.

        Messages in flight between groups are lost, unless the partition heals before they arrive. No groups:
        healed.
        """
        self._group = {member: number for number, group in enumerate(groups, 1) for member in group}

    def connected(self, one: str, other: str) -> bool:
        return self._group.get(one, 0) == self._group.get(other, 0)

    def forget(self, member: str) -> None:
        """A member is removed: drop all messages to it and from it."""
        self._keep([packet for packet in self._heap if member not in {packet.sender, packet.recipient}])
        for link in [link for link in self._last_due if member in link]:
            del self._last_due[link]

    def take_back(self, senders: Set[str], since: int) -> list[Packet[Content]]:
        """Remove and return what these members sent from packet number `since` on, as if it had not been sent."""
        back = [packet for packet in self._heap if packet.number >= since and packet.sender in senders]
        if back:
            gone = {packet.number for packet in back}
            self._keep([packet for packet in self._heap if packet.number not in gone])
        return back

    def _keep(self, packets: list[Packet[Content]]) -> None:
        self._heap = packets
        heapify(self._heap)
