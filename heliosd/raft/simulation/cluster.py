"""N Raft members on a simulated network, as discrete events. The same seed gives the same run.

The driver repeats: `run_until(tick)`, then `take_writes()`. It writes that batch to the real disk and calls
`written` or `refused`. Before `written`, no member takes its writes for durable, so nothing leaves it that depends
on them. One member is the `root`, the member of the daemon itself: it is never removed, and its calls are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from heliosd.raft.messages import Envelope, Message, Probe, ProbeAnswer, Snapshot, TimeoutNow
from heliosd.raft.state import NOTHING, Ready
from heliosd.raft.storage import MemberState

from . import observations
from .faults import MemberFaults
from .member import Inspect, SimulatedMember, SimulationOptions, StateMachine
from .member_set import MemberSet
from .network import SimulatedNetwork
from .proposals import Declined, ForwardedProposal, Proposal, ProposalReply, ProposalResult, perform
from .rpc_timing import RpcTimer
from .write_batch import PendingWrites, WriteBatch

Content = Message | Probe | ProbeAnswer | ForwardedProposal | ProposalReply


class SimulatedCluster:
    """All methods are synchronous and do no IO."""

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
        self.events = 0
        """Messages delivered and timers fired so far."""
        self.inspect: Inspect | None = None
        """Called after every step of a member, before anything else happens."""
        net_rng = Random(rng.getrandbits(64))  # noqa: S311
        self.net: SimulatedNetwork[Content] = SimulatedNetwork(options.conditions, net_rng)
        self._calls = RpcTimer(options.call_timeout)
        self.writes = PendingWrites()
        self._sent_before = 0
        self._observations: list[observations.Observation] = []
        self._snapshots_due: dict[str, None] = {}
        self._member_set = MemberSet(root, options, rng, machine)
        self.faults = MemberFaults(
            self._member_set, self.net, self._calls, now=lambda: self.now, resumed=self._resumed
        )
        self._member_set.load(states, now)
        self._forget_unneeded()

    @property
    def members(self) -> Mapping[str, SimulatedMember]:
        """By id, crashed ones too."""
        return self._member_set.members

    # Time

    def next_due(self) -> int:
        """The tick of the next event, or at which a slow disk takes a write; `NEVER` if there is none."""
        return min(self._member_set.next_timer()[0], self.net.next_due(), self.writes.next_ready())

    def run_until(self, tick: int) -> None:
        """Process all events that are due by `tick`, each at its own time."""
        while self.run_event(tick):
            ...
        self.wait_until(tick)

    def wait_until(self, tick: int) -> None:
        """Let time pass; no event is due by `tick`."""
        self.now = max(self.now, tick)
        self._observations += self._calls.expired(self.members[self.root].time(self.now))

    def run_event(self, latest: int) -> bool:
        """Process the next event, if one is due by `latest`. In one tick timers come first."""
        due, first = self._member_set.next_timer()
        arrival = self.net.next_due()
        if arrival < due:
            due, first = arrival, None
        if due > latest:
            return False
        self.now = max(self.now, due)
        self.events += 1
        if first is None:
            self._deliver()
        else:
            self._fire_timers(first)
        return True

    def take_observations(self) -> list[observations.Observation]:
        """What has happened since the last call."""
        taken, self._observations = self._observations, []
        return taken

    def _deliver(self) -> None:
        if (packet := self.net.pop()) is None:
            return
        _, _, sender, recipient, content = packet
        member = self.members.get(recipient)
        if member is None or not member.alive:
            return
        now = member.time(self.now)
        if recipient == self.root:
            self._observations += self._calls.arrived(now, sender, content)
        match content:
            case Probe(sent=sent):
                self.net.send(self.now, recipient, sender, ProbeAnswer(sent))
            case ProbeAnswer(sent=sent):
                self._observations.append(observations.ProbeAnswered(recipient, sender, now - sent))
            case ForwardedProposal():
                self._answer(member, sender, content)
            case ProposalReply(serial=serial, result=result):
                self._observations.append(observations.Answered(recipient, serial, result))
            case message:
                envelope = Envelope(sender, recipient, message)
                self._handle(member, member.raft.step(now, envelope), envelope)

    def _fire_timers(self, member: SimulatedMember) -> None:
        if member.probe_due <= self.now:
            self._probe(member)
        deadline, now = member.raft.deadline, member.time(self.now)
        if deadline is not None and deadline <= now:
            self._handle(member, member.raft.tick(now))
        member.update_due()

    def _probe(self, member: SimulatedMember) -> None:
        """Measure the latency to each other member, and check whether a snapshot is due by time."""
        member.probe_due = self.now + self.options.probe_interval
        for other in member.raft.log.members.all:
            if other != member.raft.id:
                self._send(member.raft.id, other, Probe(member.time(self.now)))
        if member.snapshot_due <= self.now and member.raft.commit > member.raft.log.snapshot.index:
            self._snapshots_due[member.raft.id] = None

    def _send(self, sender: str, recipient: str, content: Content) -> None:
        if sender == self.root:
            self._calls.sent(recipient, content)
        self.net.send(self.now, sender, recipient, content)

    # The output of a member's step

    def _handle(self, member: SimulatedMember, ready: Ready, envelope: Envelope | None = None) -> None:
        """`envelope`: the message that was handled, if it was one."""
        if self.inspect is not None:
            self.inspect(member, ready, envelope)
        if ready is not NOTHING:
            name, raft = member.raft.id, member.raft
            if ready.changed is not None:
                # A leader that stays one changes nothing of its soft state.
                member.replies.clear()
                self._observations.append(observations.SoftStateChanged(name, ready.changed))
            if ready.write is not None:
                latency = self.faults.disk_latency.get(name, 0)
                self.writes.add(name, member.incarnation, ready.write, now=self.now, latency=latency)
            if ready.installed is not None:
                member.machine.restore(ready.installed.data)
                member.snapshot_due = self.now + self.options.snapshot_interval
                sender = "" if envelope is None else envelope.sender
                self._observations.append(observations.Installed(name, sender, ready.installed))
            for entry in ready.committed:
                result = member.machine.apply(entry.data) if entry.kind == "command" else None
                self._observations.append(observations.EntryApplied(name, entry, result))
            if ready.committed and raft.commit - raft.log.snapshot.index >= self.options.snapshot_threshold:
                self._snapshots_due[name] = None
            self._observations += [observations.ReadConfirmed(name, read) for read in ready.reads]
            for sent in ready.sends:
                if isinstance(sent.message, TimeoutNow):
                    self._observations.append(observations.HandedOver(name, raft.term))
                self._send(name, sent.recipient, sent.message)
            if raft.log.members is not member.membership:
                self._membership_changed(member)
            elif ready.committed and len(self.members) > len(raft.log.members.all):
                self._forget_unneeded()
        member.update_due()

    # The disk

    def unwritten(self, name: str) -> bool:
        """Whether this member has writes that its slow disk has not taken yet."""
        return self.writes.waits(name)

    def take_writes(self) -> WriteBatch | None:
        """What the members want written; None if nothing now. One batch at a time is in flight."""
        if (batch := self.writes.take(self.now)) is None:
            self._sent_before = self.net.sent
        return batch

    def written(self, batch: WriteBatch) -> None:
        """The batch is on disk: messages that waited for it are sent now."""
        self.writes.landed()
        self._sent_before = self.net.sent
        self._member_set.store(batch)
        for write in batch.members:
            member = self._member_set.writer(write)
            if member is not None:
                self._persisted(member, write.number)

    def _persisted(self, member: SimulatedMember, number: int) -> None:
        if member.paused:
            member.persisted = number
        else:
            self._handle(member, member.raft.persisted(member.time(self.now), number))

    def _resumed(self, member: SimulatedMember) -> None:
        """After a pause the timers come first, so that a leader without a majority does nothing more as one."""
        if member.due <= self.now:
            self._fire_timers(member)
        number, member.persisted = member.persisted, 0
        if number:
            self._persisted(member, number)

    def refused(self, batch: WriteBatch) -> None:
        """The batch is not on disk: its members restart from what is, as after a crash.

        Messages that they sent since the last batch are taken back, as if never sent; a paused member or one with a
        slow disk may have some. To go on with memory that the disk has refused is how databases lose data.
        """
        self.writes.refused(batch, self.now + self.options.timing.election)
        elsewhere = self.net.holds or self.writes.any_slow
        back = self.net.take_back({write.member for write in batch.members}, self._sent_before)
        self._sent_before = self.net.sent
        for write in batch.members:
            member = self._member_set.writer(write)
            if member is not None:
                was, paused = member.raft.soft_state, member.paused
                self._stop(member)
                self._revive(write.member, keep_machine=True)
                if paused and write.member in self.members:  # its addition may be what was refused
                    self.faults.pause(write.member)
                sent, last = elsewhere or write.member in self.writes.delayed, member.disk.last_index
                self._observations.append(observations.Unwritten(write.member, was, last, sent=sent))
        for packet in back:
            unknown = elsewhere or packet.sender in self.writes.delayed
            if isinstance(packet.content, ProposalReply) and packet.sender in self.members and not unknown:
                reply = self.members[packet.sender].after_refusal(packet.content)
                self.net.send(self.now, packet.sender, packet.recipient, reply)

    # Snapshots

    def take_snapshots_due(self) -> list[str]:
        """The members that should be snapshotted now."""
        due = [name for name in self._snapshots_due if self.members[name].running]
        self._snapshots_due.clear()
        return due

    def snapshot(self, name: str) -> Snapshot | None:
        """Snapshot a member and compact its log; None if nothing was applied since the last one."""
        member = self.members[name]
        member.snapshot_due = self.now + self.options.snapshot_interval
        if not member.running or member.raft.commit == member.raft.log.snapshot.index:
            return None
        snapshot, ready = member.raft.compact(member.time(self.now), member.machine.encode())
        self._handle(member, ready)
        return snapshot

    # Proposals

    def propose(self, name: str, serial: int, proposal: Proposal) -> ProposalResult | ForwardedProposal:
        """Propose on behalf of member `name`: the result if it leads, else the message now on its way to the leader
        that it knows. The reply comes as `Answered`, unless it is lost."""
        member = self.members[name]
        leader = member.raft.leader
        if not member.running or not leader:
            return Declined("not_leader")
        if leader == name:
            result, ready = perform(member.raft, member.time(self.now), proposal)
            self._handle(member, ready)
            return result
        forwarded = ForwardedProposal(serial, member.raft.term, proposal)
        self.forward(name, leader, forwarded)
        return forwarded

    def read(self, name: str, serial: int) -> None:
        """Request a read at a leader (see `RaftNode.read`). Raises `ChangeRefused`. It is reported as
        `ReadConfirmed`, unless the leader steps down or crashes."""
        member = self.members[name]
        self._handle(member, member.raft.read(member.time(self.now), serial))

    def forward(self, name: str, leader: str, proposal: ForwardedProposal) -> None:
        """Send a proposal to the leader, for the first time or again."""
        self.net.send(self.now, name, leader, proposal)

    def _answer(self, member: SimulatedMember, sender: str, proposal: ForwardedProposal) -> None:
        result, ready = member.answer(self.now, sender, proposal)
        reply = ProposalReply(proposal.serial, result)
        self.net.send(self.now, member.raft.id, sender, reply)  # before its entries
        self._handle(member, ready)

    # Faults

    def crash(self, name: str, *, keep_terms: bool = False) -> None:
        """Stop a member. What it had not written is lost; with `keep_terms` only what follows its last term."""
        member = self.members[name]
        if member.alive:
            kept = self.writes.up_to_term(name) if keep_terms else ()
            self._stop(member)
            self.writes.put_back(kept)
            self._observations.append(observations.Crashed(name))

    def restart(self, name: str) -> None:
        """Start a crashed member from its disk. Not while a batch is in flight that may hold its writes."""
        if self.writes.in_flight:
            raise RuntimeError("whether this member's last writes reach its disk is not known yet")
        if not self.members[name].alive:
            self._revive(name, keep_machine=False)

    def _stop(self, member: SimulatedMember) -> None:
        member.alive = member.paused = False
        self.net.discard_held(member.raft.id)
        self.writes.drop(member.raft.id)
        self._snapshots_due.pop(member.raft.id, None)
        if member.raft.id == self.root:
            self._calls.forget()

    def _revive(self, name: str, *, keep_machine: bool) -> None:
        member = self._member_set.revive(name, self.now, keep_machine=keep_machine)
        self._observations.append(observations.MemberStarted(name, member.raft.commit))
        self._forget_unneeded()

    # Members

    def _membership_changed(self, member: SimulatedMember) -> None:
        """A membership was appended, truncated or installed. A member starts to exist when its leader adds it."""
        log = member.raft.log
        member.membership = log.members
        if member.raft.role == "Leader":
            for name in log.members.all.keys() - log.previous_members.all.keys() - self.members.keys():
                self.writes.create(self._member_set.create(name, member.raft, self.now))
                self._observations.append(observations.MemberStarted(name, self.members[name].raft.commit))
        self._forget_unneeded()

    def _forget_unneeded(self) -> None:
        for name in self._member_set.unneeded():
            self._member_set.remove(name)
            self.net.forget(name)
            self._calls.forget(name)
            self._snapshots_due.pop(name, None)
            self.writes.forget(name)
            self._observations.append(observations.Forgotten(name))
