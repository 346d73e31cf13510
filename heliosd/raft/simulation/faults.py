"""Faults of single members of a simulated cluster: pause, a wrong clock, a slow disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .member import SimulatedMember
from .member_set import MemberSet
from .network import SimulatedNetwork
from .rpc_timing import RpcTimer


class MemberFaults:
    """`now` is the present tick; `resumed` continues a member after a pause."""

    def __init__(
        self,
        member_set: MemberSet,
        net: SimulatedNetwork[Any],
        calls: RpcTimer,
        *,
        now: Callable[[], int],
        resumed: Callable[[SimulatedMember], None],
    ) -> None:
        self._member_set = member_set
        self._net = net
        self._calls = calls
        self._now = now
        self._resumed = resumed
        self.disk_latency: Mapping[str, int] = {}
        """Ticks that the disks of these members take for a write, of those that they make from now on; the others
        take none."""

    def pause(self, name: str) -> None:
        """Stop a member as SIGSTOP does: it keeps what it knows, and what is sent to it waits."""
        member = self._member_set.members[name]
        if member.running:
            member.paused = True
            self._net.hold(name)
            if name == self._member_set.root:
                self._calls.forget()

    def resume(self, name: str) -> None:
        """Let a paused member go on: what waited for it is delivered, and its timers that are due fire."""
        member = self._member_set.members[name]
        if not member.paused:
            return
        member.paused = False
        self._net.release(name, self._now())
        self._resumed(member)

    def set_clock(self, name: str, *, rate: float, offset: int) -> None:
        """See `MemberClock.set`."""
        if self._member_set.members[name].clock is None and rate == 1.0 and offset == 0:
            return  # it was never wrong
        self._member_set.clock(name).set(self._now(), rate=rate, offset=offset)
        self._member_set.members[name].update_due()
