"""Polls of the members: each one's status often; the list of members and one member's `/metrics` less often.

Each member is polled by a task of its own, so that a silent one delays no other. `view.py` evaluates the answers.
`view_changed` gets the changes, and an empty sequence after each list of members. `looked` is called after them,
and every 250 ms at least.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import uniform

import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdForeign, EtcdUnavailable
from heliosd.cluster.etcd.client.responses import EtcdMember
from heliosd.cluster.latency import HealthChanged

from .context import EtcdContext
from .election import LeaderElected, LeaderLost
from .foreign_endpoints import ForeignEndpoints
from .member_lag import MemberLag
from .member_lists import MemberLists
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
FIND_SECONDS = 1.0
LIST_SECONDS = 0.14
"""Between two lists of members, which also show the leader's term: etcd offers no watch of either. Of several
heliosd the first that sees a change tells the others."""
LIST_REFUSED_SECONDS = 0.15
"""The same where statuses are refused: each takes more requests then."""
LIST_SPREAD = 0.05
"""The share of that by which it varies, so that several heliosd do not ask at the same times for long."""
LIST_DELAY_SECONDS = 0.01
"""At most so long after a change a list is asked for: several heliosd may have seen the change."""
LIST_AGAIN_SECONDS = 0.3


class Poller:
    """Keeps the view up to date."""

    def __init__(
        self,
        context: EtcdContext,
        *,
        poll_interval: float,
        view_changed: Callable[[Sequence[ViewChange]], None],
        looked: Callable[[], None],
        read: Callable[[Measured], None],
    ) -> None:
        self._etcd = context
        self._poll_interval = poll_interval
        self._view_changed = view_changed
        self._looked = looked
        self._read = read
        self._urls = MemberUrls(context)
        self._learned: list[str] = []
        self._foreign = ForeignEndpoints(context)
        self._due: dict[str, float] = {}
        self._asking: set[str] = set()
        self._lag = MemberLag()
        self._lists = MemberLists(context)
        self._removed = RemovedMembers(context.client.close)
        self._last_leader = ""
        """The one before the present one."""
        self._fast = False
        self._sooner = trio.Event()
        self._list_now = trio.Event()
        self._listing = trio.CancelScope()
        self._reachability = Reachability(context, self._poll_now, self.url_of)

    def poll_all_now(self) -> None:
        """Something has happened: poll all members at once."""
        self._due.clear()
        self._sooner.set()
        self.list_now()

    def list_now(self) -> None:
        """Ask for a newer list of the members."""
        self._list_now.set()

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
        self._listing.cancel()
        self.list_now()

    def url_of(self, member: EtcdMember) -> str:
        """Where this member is polled; "" if nowhere."""
        return self._urls.of(member)

    def leave(self, leaving: Collection[str]) -> list[str]:
        """Let nothing talk to these members, which are about to be removed. Returns their URLs."""
        urls = self._urls.all_of(leaving)
        self._removed.leaving(urls)
        self._reachability.leave(set(leaving))
        return urls

    async def silence(self, member_id: str) -> None:
        """Return once no poll of this member is under way."""
        while member_id in self._asking:  # noqa: ASYNC110 (a poll ends within a second)
            await trio.sleep(LIST_AGAIN_SECONDS / 10)

    def unfit(self, url: str) -> str:
        """Why a watch at this endpoint may miss changes; "" if it may stay there."""
        now = self._etcd.now().mono
        if self._urls.failing_for(url, now) >= SILENT_SECONDS:
            return "it does not answer"
        for member in self._etcd.view.members:
            if self.url_of(member) != url:
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

    def newest_revision(self) -> int:
        """The highest store revision in the members' last statuses; 0 while no quorum answers."""
        if not self._etcd.view.quorum_answers(self._etcd.now()):
            return 0
        statuses = (self._etcd.view.last_status(each.id) for each in self._etcd.view.members)
        return max((status.header.revision for status in statuses if status is not None), default=0)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._list_members)
            nursery.start_soon(read_metrics, self._etcd, self.url_of, self._read)
            while True:
                self._sooner = trio.Event()
                now = self._etcd.now()
                self._check_silence(nursery)
                for member in self._etcd.view.to_poll():
                    if member.id in self._etcd.mirror.leaving:
                        continue
                    if not self._reachability.follows(member.id) and self.url_of(member):
                        self._reachability.follow(member.id, nursery)
                    if member.id not in self._asking and now.mono >= self._due.get(member.id, 0.0):
                        self._asking.add(member.id)
                        nursery.start_soon(self._ask, member)
                for url in self._urls.nameless():
                    if url not in self._asking and now.mono >= self._due.get(url, 0.0):
                        self._asking.add(url)
                        nursery.start_soon(self._find, url)
                self._look()
                self._looked()
                with trio.move_on_after(pause(trio.current_time(), self._due_in(now.mono))):
                    await self._sooner.wait()

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
                await self._ask_at(url, member.id if self._urls.is_listed(url) else "")
            else:
                self._etcd.view.failed(member.id, "none of its URLs can be used from here", began)
        except EtcdError as error:
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
        self._due[member.id] = began.mono + self._etcd.view.poll_after(self._poll_interval, now, member.id)
        self._sooner.set()

    async def _find(self, url: str) -> None:
        """Find out which member answers at a configured endpoint."""
        began = self._etcd.now()
        try:
            await self._ask_at(url, "")
        except EtcdError:
            pass  # tried again; other checks report it if no endpoint answers
        finally:
            self._asking.discard(url)
        self._due[url] = began.mono + FIND_SECONDS
        self._sooner.set()

    async def _ask_at(self, url: str, member_id: str) -> None:
        """Poll the status at this URL. `member_id`: the member expected there; "": any."""
        await self._etcd.client.identify()
        began = self._etcd.now().mono
        try:
            status = await self._etcd.client.status(url)
        except EtcdError:
            self._urls.failed(url, self._etcd.now().mono)
            raise
        now = self._etcd.now()
        self._urls.answered(url)
        if status.header.cluster_id != self._etcd.identity.own:
            raise EtcdForeign(url, f"belongs to another cluster ({status.header.cluster_id})")
        if not member_id:
            self._urls.answered(url, status.header.member_id)
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
        """Poll at once the members that can say more. Each poll delays what is being told on a busy machine."""
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

    async def _list_members(self) -> None:
        wanted = True
        while True:
            self._list_now = trio.Event()
            try:
                with trio.CancelScope() as self._listing:
                    await self._list()
            except EtcdUnavailable as error:
                # A single member that does not answer is reported by its health.
                if not self._etcd.view.leader:
                    self._etcd.faults.add("asking the members", error)
            except EtcdError as error:
                self._etcd.faults.add("asking the members", error)
            else:
                if self._lists.refused is None:
                    self._etcd.faults.clear("asking the members")
                else:
                    self._etcd.faults.add("asking the members", self._lists.refused)
            trusted = self._etcd.view.leader and self._etcd.view.members_as_of
            refusing = bool(self._etcd.client.status_refusals())
            pause = (LIST_REFUSED_SECONDS if refusing else LIST_SECONDS) if trusted else LIST_AGAIN_SECONDS
            least = 0.0 if wanted else 1.0 - LIST_SPREAD  # others may have been woken at the same time
            with trio.move_on_after(pause * uniform(least, 1.0)) as waited:  # noqa: S311
                await self._list_now.wait()
            wanted = not waited.cancelled_caught
            if wanted:
                await trio.sleep(uniform(0.0, LIST_DELAY_SECONDS))  # noqa: S311

    async def _list(self) -> None:
        lister = self._etcd.view.lister()
        url = self.url_of(lister) if lister is not None else ""
        if lister is not None and (
            lister.id in self._etcd.mirror.leaving or self._reachability.is_silent(lister.id)
        ):
            lister = None
        if lister is not None and url:
            # A list counts only if its member is known to have applied the list in the log.
            status = self._etcd.view.last_status(lister.id)
            if status is not None and status.header.revision < self._etcd.mirror.members.mod_revision:
                await self._ask_at(url, lister.id)
        began = self._etcd.now().mono
        by = lister.id if lister is not None and url else ""
        view, recorded = self._etcd.view, self._etcd.mirror.members.record
        if by:
            self._reachability.asked(by, began)
        answer = await self._lists.read(url if by else "")
        if by not in self._asking:
            self._reachability.answered(by)
        listed = answer.members
        before = (view.members, view.members_as_of > 0)
        view.listed(by, listed, began, self._etcd.now())
        self._removed.listed(before[0], view.members, self._etcd.now().mono)
        if view.term_seen(answer.raft_term, self._etcd.now()):
            self.poll_all_now()
        urls = [url for member in listed for url in member.client_urls]
        if urls != self._learned:
            self._learned = urls
            self._etcd.client.learn(urls)
        if before != (view.members, view.members_as_of > 0):
            self._sooner.set()
        if recorded is None or recorded.members != view.known_members or view.failures():
            self._view_changed(())
