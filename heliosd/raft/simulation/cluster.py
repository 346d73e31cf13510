"""N Raft members on a simulated network, as discrete events: an hour of their life takes a moment, and the same
seed repeats it exactly.

One turn of the driver: `run_until(tick)`, then `take_writes()`; what that returns is written to the real disk, and
`written` (or `refused`) tells how that went. In between no member knows its writes durable, so nothing that would
promise them leaves it. `take_happenings()` says what has come of it all.

One member is the `root`: it is never removed, its view decides who is still wanted, and its calls are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from random import Random

from heliosd.raft.messages import Envelope, Message, Probe, ProbeAnswer, Snapshot
from heliosd.raft.state import NEVER, NOTHING, RaftChange, Ready
from heliosd.raft.storage import MemberForgotten, MemberState

from .disk import Disk
from .member import SimulatedMember, SimulationOptions, StateMachine, restored, started
from .network import SimulatedNetwork
from .observations import (
    Answered,
    Crashed,
    EntryApplied,
    Forgotten,
    Installed,
    Observation,
    Restarted,
    SoftStateChanged,
    Unwritten,
)
from .proposals import Declined, ForwardedProposal, Proposal, ProposalReply, ProposalResult, perform
from .rpc_timing import RpcTimer
from .write_batch import Pending, WriteBatch, gather

Content = Message | Probe | ProbeAnswer | ForwardedProposal | ProposalReply


class SimulatedCluster:
    """The world of the simulated members. All methods are synchronous; none touches anything outside."""

    def __init__(
        self,
        *,
        root: str,
        states: Mapping[str, MemberState],
        options: SimulationOptions,
        rng: Random,
        machine: Callable[[], StateMachine],
        now: int = 0,
    ) -> None:
        self.root = root
        self.now = now
        self.options = options
        self.members: dict[str, SimulatedMember] = {}
        """By id, crashed ones too. To be read only."""
        self.events = 0
        """Messages delivered and timers fired so far."""
        self.net: SimulatedNetwork[Content] = SimulatedNetwork(
            options.conditions,
            Random(rng.getrandbits(64)),  # noqa: S311
        )
        self._rng = rng
        self._machine = machine
        self._calls = RpcTimer(options.call_timeout)
        self._incarnations = 0
        self._pending: list[Pending] = []
        self._in_flight = False
        self._sent_before = 0
        self._observations: list[Observation] = []
        self._snapshots_due: dict[str, None] = {}
        for member, state in states.items():
            self.members[member] = self._start(member, Disk(state))
        self._review_members()

    # Time

    def next_due(self) -> int:
        """The tick of the next event; `NEVER` if all members are down and nothing is under way."""
        due = min((member.due for member in self.members.values() if member.alive), default=NEVER)
        arrival = self.net.next_due()
        return due if arrival is None else min(due, arrival)

    def run_until(self, tick: int) -> None:
        """Let happen all that is due by `tick`, each at its own time."""
        while (due := self.next_due()) <= tick:
            self.now = max(self.now, due)
            self.events += 1
            arrival = self.net.next_due()
            if arrival is not None and arrival <= due:
                self._deliver()
            else:
                self._fire_timers()
        self.now = max(self.now, tick)
        self._observations += self._calls.expired(self.now)

    def take_observations(self) -> list[Observation]:
        """What has happened since the last time."""
        observations, self._observations = self._observations, []
        return observations

    def _deliver(self) -> None:
        packet = self.net.pop()
        if packet is None:
            return
        _, _, sender, recipient, content = packet
        member = self.members.get(recipient)
        if member is None or not member.alive:
            return
        if recipient == self.root and (trip := self._calls.received(self.now, sender, content)):
            self._observations.append(trip)
        match content:
            case Probe(sent=sent):
                self.net.send(self.now, recipient, sender, ProbeAnswer(sent))
            case ProbeAnswer():
                pass
            case ForwardedProposal():
                self._answer(member, sender, content)
            case ProposalReply(serial=serial, result=result):
                self._observations.append(Answered(recipient, serial, result))
            case message:
                self._handle(member, member.raft.step(self.now, Envelope(sender, recipient, message)), sender)

    def _fire_timers(self) -> None:
        for member in list(self.members.values()):
            if not member.alive or member.due > self.now:
                continue
            if member.probe_due <= self.now:
                self._probe(member)
            deadline = member.raft.deadline
            if deadline is not None and deadline <= self.now:
                self._handle(member, member.raft.tick(self.now))
            member.reckon_due()

    def _probe(self, member: SimulatedMember) -> None:
        """Measure the way to each other member. On the same beat a snapshot may fall due by time."""
        member.probe_due = self.now + self.options.probe_interval
        for other in member.raft.log.membership:
            if other != member.raft.id:
                self._send(member.raft.id, other, Probe(self.now))
        if member.snapshot_due <= self.now and member.raft.commit > member.raft.log.snapshot.index:
            self._snapshots_due[member.raft.id] = None

    def _send(self, sender: str, recipient: str, content: Content) -> None:
        if sender == self.root:
            self._calls.sent(recipient, content)
        self.net.send(self.now, sender, recipient, content)

    # What a member's step asks for

    def _handle(self, member: SimulatedMember, output: Ready, sender: str = "") -> None:
        if output is not NOTHING:
            name = member.raft.id
            if output.changed is not None:
                if output.changed.role != "Leader" or output.changed.term != member.soft_state.term:
                    member.replies.clear()
                self._observations.append(SoftStateChanged(name, member.soft_state, output.changed))
                member.soft_state = output.changed
            if output.write is not None:
                self._pending.append((name, member.incarnation, output.write))
            if output.installed is not None:
                member.machine.restore(output.installed.data)
                member.snapshot_due = self.now + self.options.snapshot_interval
                self._observations.append(Installed(name, sender, output.installed))
            for entry in output.committed:
                result = member.machine.apply(entry.data) if entry.kind == "command" else None
                self._observations.append(EntryApplied(name, entry, result))
            if output.committed:
                raft = member.raft
                if raft.commit - raft.log.snapshot.index >= self.options.snapshot_threshold:
                    self._snapshots_due[name] = None
            for envelope in output.sends:
                self._send(name, envelope.recipient, envelope.message)
            if member.raft.log.membership is not member.membership or any(
                entry.kind == "membership" for entry in output.committed
            ):
                self._review_members()
        member.reckon_due()

    # The disk

    def take_writes(self) -> WriteBatch | None:
        """What the members want written; None if nothing. One batch at a time is under way."""
        if self._in_flight:
            raise RuntimeError("the last batch is neither written nor refused")
        if not self._pending:
            self._sent_before = self.net.sent
            return None
        self._in_flight = True
        batch = gather(self._pending)
        self._pending.clear()
        return batch

    def written(self, batch: WriteBatch) -> None:
        """The batch is on disk: what waited for it leaves, now."""
        self._in_flight = False
        self._sent_before = self.net.sent
        for change in batch.changes:
            if isinstance(change, RaftChange) and (member := self.members.get(change.member)) is not None:
                member.disk.write(change)
        for name, incarnation, number in batch.marks:
            member = self.members.get(name)
            if member is not None and member.alive and member.incarnation == incarnation:
                self._handle(member, member.raft.persisted(self.now, number))

    def refused(self, batch: WriteBatch) -> None:
        """The batch is not on disk: the members that wanted it begin anew from what is, as after a crash.

        Whatever they sent since the last batch is taken back, so nothing of it ever was. Trusting memory over a
        disk that has failed is how databases lose data.
        """
        self._in_flight = False
        back = self.net.take_back({name for name, _, _ in batch.marks}, self._sent_before)
        self._sent_before = self.net.sent
        self._pending += [change for change in batch.changes if isinstance(change, MemberForgotten)]
        for name, incarnation, _ in batch.marks:
            member = self.members.get(name)
            if member is not None and member.alive and member.incarnation == incarnation:
                self.crash(name)
                self._revive(name, keep_machine=True)
                self._observations.append(Unwritten(name, member.soft_state, member.disk.last_index))
        for packet in back:
            if isinstance(packet.content, ProposalReply):
                refusal = ProposalReply(packet.content.serial, Declined("storage"))
                self.net.send(self.now, packet.sender, packet.recipient, refusal)

    # Snapshots

    def take_snapshots_due(self) -> list[str]:
        """The members that should be snapshotted now."""
        due = [name for name in self._snapshots_due if self.members[name].alive]
        self._snapshots_due.clear()
        return due

    def snapshot(self, name: str) -> Snapshot | None:
        """Snapshot a member and compact its log; None if nothing was applied since the last one."""
        member = self.members[name]
        member.snapshot_due = self.now + self.options.snapshot_interval
        if not member.alive or member.raft.commit == member.raft.log.snapshot.index:
            return None
        snapshot, output = member.raft.compact(self.now, member.machine.encode())
        self._handle(member, output)
        return snapshot

    # Requests

    def ask(self, name: str, serial: int, proposal: Proposal) -> ProposalResult | ForwardedProposal:
        """Ask the leader that member `name` knows: its verdict if it is that member, else the `Ask` now under way.

        An answer to that comes as `Answered`, unless it is lost.
        """
        member = self.members[name]
        leader = member.raft.leader
        if not member.alive or not leader:
            return Declined("not_leader")
        if leader == name:
            result, output = perform(member.raft, self.now, proposal)
            self._handle(member, output)
            return result
        ask = ForwardedProposal(serial, member.raft.term, proposal)
        self.net.send(self.now, name, leader, ask)
        return ask

    def ask_again(self, name: str, leader: str, ask: ForwardedProposal) -> None:
        """Send a request once more to the same leader."""
        self.net.send(self.now, name, leader, ask)

    def _answer(self, member: SimulatedMember, sender: str, ask: ForwardedProposal) -> None:
        result, output = member.answer(self.now, sender, ask)
        self.net.send(
            self.now, member.raft.id, sender, ProposalReply(ask.serial, result)
        )  # before its entries
        self._handle(member, output)

    # Faults

    def crash(self, name: str) -> None:
        """Stop a member where it stands; what it had not written is lost. It keeps being shown as it was."""
        member = self.members[name]
        if member.alive:
            member.alive = False
            self._pending = [
                write for write in self._pending if isinstance(write, MemberForgotten) or write[0] != name
            ]
            self._snapshots_due.pop(name, None)
            if name == self.root:
                self._calls.forget()
            self._observations.append(Crashed(name))

    def restart(self, name: str) -> None:
        """Start a crashed member from its disk. Not while a batch is under way that may hold writes of it."""
        if self._in_flight:
            raise RuntimeError("whether this member's last writes reach its disk is not known yet")
        if not self.members[name].alive:
            self._revive(name, keep_machine=False)

    def partition(self, groups: Iterable[Collection[str]]) -> None:
        """See `SimNet.partition`."""
        self.net.partition(groups)

    # Members

    def _revive(self, name: str, *, keep_machine: bool) -> None:
        """Start anew from the disk; with the state machine as it stands if what it holds is on disk too."""
        old = self.members[name]
        applied = old.raft.commit
        keep = keep_machine and old.disk.holds(applied, old.raft.log.term(applied))
        member = self._start(name, old.disk, old.machine if keep else None, applied if keep else 0)
        self.members[name] = member
        self._observations.append(Restarted(name, member.raft.commit))
        self._review_members()

    def _start(
        self, name: str, disk: Disk, machine: StateMachine | None = None, applied: int = 0
    ) -> SimulatedMember:
        self._incarnations += 1
        rng = Random(self._rng.getrandbits(64))  # noqa: S311
        return started(
            name,
            disk,
            options=self.options,
            rng=rng,
            now=self.now,
            incarnation=self._incarnations,
            machine=restored(disk, self._machine()) if machine is None else machine,
            applied=applied,
        )

    def _review_members(self) -> None:
        """Start who is named in a log and not there; stop and wipe who is there and wanted by nobody.

        Wanted is whom the root names, in the membership in force or in the one it has applied, and whom those
        name in turn. What a removed member thinks of itself does not count: it is never told of its removal.
        """
        wanted: dict[str, None] = {}
        to_ask = [self.root]
        while to_ask:
            name = to_ask.pop()
            wanted[name] = None
            if name not in self.members:
                self.members[name] = self._start(name, Disk(MemberState()))
            member = self.members[name]
            log = member.raft.log
            member.membership = log.membership
            to_ask += [
                other
                for other in (*log.membership, *log.membership_at(member.raft.commit))
                if other not in wanted and other not in to_ask
            ]
        for name in [name for name in self.members if name not in wanted]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self.members.pop(name).alive = False
        self.net.forget(name)
        self._calls.forget(name)
        self._snapshots_due.pop(name, None)
        self._pending = [
            write for write in self._pending if isinstance(write, MemberForgotten) or write[0] != name
        ]
        self._pending.append(MemberForgotten(name))
        self._observations.append(Forgotten(name))
