"""Polls of the members' statuses; `list_polls.py` asks for the list of members, `metrics_reader.py` for `/metrics`.

Each member is polled by a task of its own, so that a silent one delays no other. `view.py` evaluates the answers.
`view_changed` gets the changes, and an empty sequence after a list of members that the log may not have yet.
`looked` is called after them, and every 250 ms at least; while nothing is under way and the leader lists the same
members, every 690 ms at least.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdForeign
from heliosd.cluster.etcd.client.responses import EtcdMember
from heliosd.cluster.latency import HealthChanged

from .context import EtcdContext
from .election import LeaderElected, LeaderLost
from .foreign_endpoints import ForeignEndpoints
from .list_polls import LIST_SECONDS, ListPolls
from .member_lag import MemberLag
from .member_metrics import Measured
from .member_urls import MemberUrls
from .metrics_reader import read_metrics
from .pace import pause
from .reachability import Reachability
from .removed_members import RemovedMembers
from .view_changes import OwnStateChanged, ViewChange

SILENT_SECONDS = 0.9
"""A member is silent when it has not answered for so long after its first failed poll."""
UNFIT_SECONDS = 0.4
"""A watch leaves a member that has not answered for so long: before the others can have elected another leader."""
QUIET_LOOK_SECONDS = 0.45
"""A look that goes along with a list is left out for so long after another one."""
FIND_SECONDS = 1.0
BUSY_SECONDS = 0.03


class Poller:
    """Keeps the view up to date."""

    def __init__(
        self,
        context: EtcdContext,
        *,
        poll_interval: float,
        view_changed: Callable[[Sequence[ViewChange]], None],
        looked: Callable[[], None],
        read: Callable[[str, Measured], None],
    ) -> None:
        self._etcd = context
        self._poll_interval = poll_interval
        self._view_changed = view_changed
        self._looked = looked
        self._read = read
        self._urls = MemberUrls(context)
        self._foreign = ForeignEndpoints(context)
        self._due: dict[str, float] = {}
        self._asking: set[str] = set()
        self._lag = MemberLag()
        self._has_applied: set[str] = set()
        """Members whose last status shows all that was applied here when they were asked."""
        self._removed = RemovedMembers(context.client.close)
        self._last_leader = ""
        """The one before the present one."""
        self._fast = False
        self._sooner = trio.Event()
        self._looked_at = 0.0
        self._wakes_at = 0.0
        """When the members are looked at next, if nothing happens sooner."""
        self._waiting = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._reachability = Reachability(context, self._poll_now, self.url_of)
        self._lists = ListPolls(context, self, self._reachability, self._removed, view_changed)

    def poll_all_now(self) -> None:
        """Something has happened: poll all members at once."""
        self._due.clear()
        self._sooner.set()
        self.list_now()

    def list_now(self) -> None:
        """Ask for a newer list of the members."""
        self._lists.ask_now()

    def look_now(self) -> None:
        """The members are others than before."""
        self._sooner.set()

    def is_asking(self, member: str) -> bool:
        """A poll of this member's status is under way."""
        return member in self._asking

    def _poll_now(self, member: str) -> None:
        """Something has happened to this member."""
        self._due.pop(member, None)
        self._sooner.set()
        if member == self._etcd.view.leader:
            self._look_for_leader()

    def _check_silence(self, nursery: trio.Nursery) -> None:
        view = self._etcd.view
        if not self._reachability.is_overdue(view.leader):
            return
        leader = next((each for each in view.to_poll() if each.id == view.leader), None)
        if leader is not None and self._reachability.examine(leader.id, self.url_of(leader), nursery):
            self._etcd.client.avoid(self.url_of(leader), "it is late")
            self._look_for_leader()

    def _look_for_leader(self) -> None:
        """The leader is silent: ask all the others now, and not it for a list."""
        self._due.clear()
        self._lists.give_up()
        self.list_now()

    def url_of(self, member: EtcdMember) -> str:
        """Where this member is polled; "" if nowhere."""
        return self._urls.of(member)

    def urls_of(self, members: Collection[str]) -> list[str]:
        """Every URL at which one of these members answers, listed or not."""
        return self._urls.all_of(members)

    def leave(self, leaving: Collection[str]) -> list[str]:
        """Let nothing talk to these members, which are about to be removed. Returns their URLs."""
        urls = self._urls.all_of(leaving)
        self._removed.leaving(urls)
        self._reachability.leave(set(leaving))
        return urls

    async def silence(self, member_id: str) -> None:
        """Return once no poll of this member is under way."""
        while member_id in self._asking:  # noqa: ASYNC110 (a poll ends within a second)
            await trio.sleep(BUSY_SECONDS)

    def unfit(self, url: str) -> str:
        """Why a watch at this endpoint may miss changes; "" if it may stay there."""
        now = self._etcd.now().mono
        if self._urls.failing_for(url, now) >= SILENT_SECONDS:
            return "it does not answer"
        for member in self._etcd.view.members:
            if url not in self._urls.all_of((member.id,)):
                continue
            if self._reachability.is_overdue(member.id, UNFIT_SECONDS) and self._others_answer(member):
                return "it does not answer"
            if self._lag.is_behind(member.id, now):
                return "it is behind the others"
        return ""

    def _others_answer(self, member: EtcdMember) -> bool:
        """Where none does, this node itself may be slow, and another watch would not help."""
        others = (each.id for each in self._etcd.view.members if each.id != member.id)
        return any(map(self._reachability.answers, others))

    def is_set_back(self) -> bool:
        """A quorum answers, and no member has a revision that was applied here before the member was asked."""
        return self._etcd.view.quorum_answers(self._etcd.now()) and not any(
            each.id in self._has_applied for each in self._etcd.view.members
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._lists.run)
            self._nursery.start_soon(read_metrics, self._etcd, self.url_of, self._read)
            while True:
                self._sooner = trio.Event()
                self._step(self._nursery)
                with trio.move_on_at(self._wakes_at) as self._waiting:
                    await self._sooner.wait()

    def look_along(self) -> None:
        """The leader has listed the same members: look at them in this turn, in place of a waking for that. Soon
        after another look, with nothing due, there is nothing to see yet."""
        if self._nursery is None or self._sooner.is_set():
            return
        now = self._etcd.now().mono
        due_in = self._due_in(now)
        if min(due_in, default=LIST_SECONDS) > LIST_SECONDS / 2:
            if self._asking and now - self._looked_at < LIST_SECONDS / 2:
                return
            if not self._asking and now - self._looked_at < QUIET_LOOK_SECONDS:
                self._waiting.deadline = self._wakes_at = now + pause(due_in)
                return
        self._step(self._nursery)
        self._waiting.deadline = self._wakes_at

    def _step(self, nursery: trio.Nursery) -> None:
        """Ask the members that are due, and look at what has changed."""
        now, members = self._etcd.now(), self._etcd.view.to_poll()
        # While all is settled, the polls go along with the lists.
        soon = now.mono + (LIST_SECONDS / 2 if self._etcd.view.settled(now) else 0.0)
        self._check_silence(nursery)
        for member in members:
            if member.id in self._etcd.mirror.leaving:
                continue
            if not self._reachability.follows(member.id) and self.url_of(member):
                self._reachability.follow(member.id, nursery)
            if member.id not in self._asking and soon >= self._due.get(member.id, 0.0):
                self._asking.add(member.id)
                nursery.start_soon(self._ask, member)
        for url in self._urls.nameless():
            if url not in self._asking and now.mono >= self._due.get(url, 0.0):
                self._asking.add(url)
                nursery.start_soon(self._find, url)
        self._look()
        self._looked()
        self._looked_at = now.mono
        self._wakes_at = now.mono + pause(self._due_in(now.mono))

    def _due_in(self, now: float) -> list[float]:
        """Seconds until each member is due that is to be polled and is not being asked."""
        busy = self._asking | self._etcd.mirror.leaving
        return [
            self._due.get(each.id, now) - now for each in self._etcd.view.to_poll() if each.id not in busy
        ]

    async def _ask(self, member: EtcdMember) -> None:
        began, before = self._etcd.now(), self._etcd.view.last_answer(member.id)
        url = self.url_of(member)
        self._reachability.asked(member.id, began.mono)
        try:
            if url:
                await self.ask_at(url, member.id if self._urls.is_listed(url) else "")
            else:
                self._has_applied.discard(member.id)
                self._etcd.view.failed(member.id, "none of its URLs can be used from here", began)
        except EtcdError as error:
            self._has_applied.discard(member.id)
            self._etcd.view.failed(member.id, error.reason, self._etcd.now())
        else:
            self._reachability.answered(member.id)
        finally:
            self._asking.discard(member.id)
        self._note_refusals()
        now = self._etcd.now()
        self._lag.measure(self._etcd.view, now.mono)
        fast, self._fast = self._fast, self._etcd.view.pace.is_fast(now.mono)
        after = self._etcd.view.last_answer(member.id)
        another = before is not None and after is not None and before.leader != after.leader
        self._look()
        unconfirmed = another and after is not None and after.leader != self._etcd.view.leader
        if unconfirmed or (self._fast and not fast):
            self._due.clear()  # the others may know more
            self._sooner.set()
        due = began.mono + self._etcd.view.poll_after(self._poll_interval, now, member.id)
        self._due[member.id] = due
        if due < self._wakes_at:
            self._sooner.set()

    async def _find(self, url: str) -> None:
        """Find out which member answers at a configured endpoint."""
        began = self._etcd.now()
        try:
            await self.ask_at(url, "")
        except EtcdError:
            pass  # tried again; other checks report it if no endpoint answers
        finally:
            self._asking.discard(url)
        self._due[url] = began.mono + FIND_SECONDS
        self._sooner.set()

    async def ask_at(self, url: str, member_id: str) -> None:
        """Poll the status at this URL. `member_id`: the member expected there; "": any."""
        await self._etcd.client.identify()
        began, applied = self._etcd.now().mono, self._etcd.mirror.revision
        try:
            status = await self._etcd.client.status(url)
        except EtcdError:
            self._urls.failed(url, self._etcd.now().mono)
            self._has_applied.discard(member_id)
            raise
        now = self._etcd.now()
        self._urls.answered(url)
        if status.header.cluster_id != self._etcd.identity.own:
            raise EtcdForeign(url, f"belongs to another cluster ({status.header.cluster_id})")
        if not member_id:
            self._urls.answered(url, status.header.member_id)
        if status.header.revision >= applied:
            self._has_applied.add(status.header.member_id)
        elif not status.held_up:  # else its revision is an old one
            self._has_applied.discard(status.header.member_id)
        self._etcd.view.answered(member_id, status, now.mono - began, now)

    def _note_refusals(self) -> None:
        refusals = self._etcd.client.status_refusals()
        if refusals:
            self._etcd.faults.add("asking for statuses", refusals[0])
        else:
            self._etcd.faults.clear("asking for statuses")

    def _look(self) -> None:
        if not self._etcd.subscribers.have_room:
            return  # the members are asked all the same, and what has changed is seen at a later look
        self._foreign.look()
        changes = self._etcd.view.look(self._etcd.now())
        if changes:
            for change in changes:
                self._ask_about(change)
            self._view_changed(changes)

    def _ask_about(self, change: ViewChange) -> None:
        """Poll at once the members that can say more. On a busy machine each poll delays what is being sent."""
        match change:
            case OwnStateChanged() | HealthChanged():
                return
            case LeaderElected(before=before):
                self._last_leader = before or self._last_leader
                if self._etcd.view.traces.of(self._last_leader).ended is None:
                    self._due.pop(self._last_leader, None)  # it says why it leads no longer
            case LeaderLost(leader=leader):
                self._last_leader = leader
                self._due.clear()
            case _:
                self._due.clear()
        self._sooner.set()
