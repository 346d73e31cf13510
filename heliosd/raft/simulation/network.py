"""A simulated network: it delays, loses, repeats, reorders and partitions, in ticks, from one `Random`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set
from functools import partial
from heapq import heapify, heappop, heappush
from math import log
from random import Random
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from heliosd.raft.state import NEVER

Content = TypeVar("Content")
MAX_HELD = 10_000
"""Messages that wait for one member that takes none, as in the buffers of its sockets."""


class NetworkConditions(Struct, frozen=True, kw_only=True):
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
        self._random = rng.random
        self._heap: list[Packet[Content]] = []
        self._last_due: dict[tuple[str, str], int] = {}
        self._group: dict[str, int] = {}
        self._held: dict[str, list[Packet[Content]]] = {}
        self.blocked: frozenset[tuple[str, str]] = frozenset()
        """Links (sender, recipient) that deliver nothing, beside partitions: for faults in one direction."""
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
        due = now + round(self.conditions.latency * (0.5 - log(1.0 - self._random()) / 2.0))
        if self.conditions.ordered:
            due = max(due, self._last_due.get((sender, recipient), 0))
            self._last_due[sender, recipient] = due
        heappush(self._heap, Packet(due, self.sent, sender, recipient, content))
        self.sent += 1

    def next_due(self) -> int:
        """The tick at which the next message arrives; `NEVER` without one."""
        return self._heap[0].due if self._heap else NEVER

    def pop(self) -> Packet[Content] | None:
        """Take the next message; None if a partition or a blocked link dropped it, or if its recipient is held."""
        packet = heappop(self._heap)
        if self._group and not self.connected(packet.sender, packet.recipient):
            return None
        if self.blocked and (packet.sender, packet.recipient) in self.blocked:
            return None
        if packet.recipient in self._held:
            held = self._held[packet.recipient]
            if len(held) < MAX_HELD:
                held.append(packet)
            return None
        return packet

    def change(self, conditions: NetworkConditions, now: int) -> None:
        """From `now` on these conditions hold. With less latency than before, what is in flight arrives sooner, in
        the same order."""
        share = conditions.latency / self.conditions.latency if self.conditions.latency else 1.0
        self.conditions = conditions
        if share < 1:
            sooner = partial(_sooner, now=now, share=share)
            self._keep([packet._replace(due=sooner(packet.due)) for packet in self._heap])
            self._last_due = {link: sooner(due) for link, due in self._last_due.items()}

    def hold(self, member: str) -> None:
        """From now on messages to this member wait, at most `MAX_HELD`; later ones are lost."""
        self._held.setdefault(member, [])

    def release(self, member: str, now: int) -> None:
        """Deliver what has waited, at `now` and in its order."""
        for packet in self._held.pop(member, ()):
            heappush(self._heap, packet._replace(due=now))

    def partition(self, groups: Iterable[Collection[str]]) -> None:
        """From now on only members of the same group reach each other; those in no group form one more.

        Messages in flight between groups are lost, unless the partition heals before they arrive. No groups:
        healed.
        """
        self._group = {member: number for number, group in enumerate(groups, 1) for member in group}

    def connected(self, one: str, other: str) -> bool:
        return self._group.get(one, 0) == self._group.get(other, 0)

    @property
    def holds(self) -> bool:
        """Whether any message waits for a held member."""
        return any(self._held.values())

    def discard_held(self, member: str) -> None:
        """What has waited for this member is lost, and nothing waits any more."""
        self._held.pop(member, None)

    @property
    def disturbed(self) -> bool:
        """Whether any message may be lost, repeated or held."""
        return bool(self._group or self._held or self.conditions.loss or self.conditions.repeats)

    def forget(self, member: str) -> None:
        """A member is removed: drop all messages to it and from it."""
        self._keep([packet for packet in self._heap if member not in {packet.sender, packet.recipient}])
        self.discard_held(member)
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


def _sooner(due: int, *, now: int, share: float) -> int:
    return due if due <= now else now + int((due - now) * share)
