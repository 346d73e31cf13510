"""Polls of the list of members, which also show the leader's term: etcd offers no watch of either.

While all is quiet, most of them only ask whether the answer is still the same, byte for byte: that costs a third.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import uniform
from typing import NamedTuple, Protocol

import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdUnavailable
from heliosd.cluster.etcd.client.responses import EtcdMember, MemberList

from .context import EtcdContext
from .member_lists import MemberLists
from .pace import until_turn
from .reachability import Reachability
from .removed_members import RemovedMembers
from .view_changes import ViewChange

LIST_SECONDS = 0.24
"""Between two lists. Several heliosd take turns, so that three ask every 80 ms together, and the first that sees a
change tells the others."""
LIST_DELAY_SECONDS = 0.01
"""At most so long after a change a list is asked for: several heliosd may have seen the change."""
LIST_AGAIN_SECONDS = 0.3
WHOLE_SECONDS = 0.9
"""After so long the next list is read and evaluated, also while it stays the same: once a second."""
SAME_SECONDS = 0.5
"""An answer that does not come in that time is not waited for; a list is asked for then."""


class StatusPolls(Protocol):
    """The polls of the members' statuses; `poller.Poller`."""

    def url_of(self, member: EtcdMember) -> str: ...

    def urls_of(self, members: Collection[str]) -> list[str]: ...

    def is_asking(self, member: str) -> bool: ...

    async def ask_at(self, url: str, member_id: str) -> None: ...

    def poll_all_now(self) -> None: ...

    def look_now(self) -> None: ...

    def look_along(self) -> None: ...


class _Evaluated(NamedTuple):
    """A list that has been evaluated, and left nothing to do."""

    by: str
    url: str
    answer: MemberList
    at: float


class ListPolls:
    """Keeps the list of members in the view up to date. `view_changed` gets an empty sequence after a list that the
    log may not have yet."""

    def __init__(
        self,
        context: EtcdContext,
        statuses: StatusPolls,
        reachability: Reachability,
        removed: RemovedMembers,
        view_changed: Callable[[Sequence[ViewChange]], None],
    ) -> None:
        self._etcd = context
        self._statuses = statuses
        self._reachability = reachability
        self._removed = removed
        self._view_changed = view_changed
        self._lists = MemberLists(context)
        self._learned: tuple[EtcdMember, ...] = ()
        """The list whose client URLs the client has learned."""
        self._evaluated: _Evaluated | None = None
        self._now = trio.Event()
        self._listing = trio.CancelScope()

    def ask_now(self) -> None:
        """Something has changed: ask for a newer list."""
        self._now.set()

    def give_up(self) -> None:
        """Do not wait for the answer that is under way."""
        self._listing.cancel()

    async def run(self) -> None:
        """Until cancelled."""
        wanted = True
        while True:
            if self._now.is_set():
                self._now = trio.Event()
            try:
                with trio.CancelScope() as self._listing:
                    if wanted or not await self._is_the_same():
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
            if self._evaluated is not None:
                self._statuses.look_along()
            trusted = self._etcd.view.leader and self._etcd.view.members_as_of
            pause = LIST_AGAIN_SECONDS
            if trusted:
                pause = until_turn(self._etcd.now().wall, LIST_SECONDS, *self._place())
            with trio.move_on_after(pause) as waited:
                await self._now.wait()
            wanted = not waited.cancelled_caught
            if wanted:
                await trio.sleep(uniform(0.0, LIST_DELAY_SECONDS))  # noqa: S311

    def _place(self) -> tuple[int, int]:
        """Which one of all heliosd this is, from 0, and how many they are."""
        present = sorted(self._etcd.mirror.observers.keys() | {self._etcd.node_id})
        return present.index(self._etcd.node_id), len(present)

    async def _is_the_same(self) -> bool:
        """Whether the leader answers as last time, while all is settled. Without effect if it does not."""
        last, self._evaluated = self._evaluated, None
        now = self._etcd.now()
        if (
            last is None
            or now.mono - last.at >= WHOLE_SECONDS
            or last.by != self._etcd.view.leader
            or last.by in self._etcd.mirror.leaving
            or not self._etcd.view.settled(now)
        ):
            return False
        self._reachability.asked(last.by, now.mono)
        self._listing.deadline = now.mono + SAME_SECONDS
        same = await self._etcd.client.lists_the_same(last.url, last.answer)
        self._listing.deadline = float("inf")
        if same:
            if not self._statuses.is_asking(last.by):
                self._reachability.answered(last.by)
            self._evaluated = last
        return same

    async def _list(self) -> None:
        lister = self._etcd.view.lister()
        url = self._statuses.url_of(lister) if lister is not None else ""
        if lister is not None and (
            lister.id in self._etcd.mirror.leaving or self._reachability.is_silent(lister.id)
        ):
            lister = None
        if lister is not None and url:
            # A list counts only if its member is known to have applied the list in the log.
            status = self._etcd.view.last_status(lister.id)
            if status is not None and status.header.revision < self._etcd.mirror.members.mod_revision:
                await self._statuses.ask_at(url, lister.id)
        began = self._etcd.now().mono
        by = lister.id if lister is not None and url else ""
        view, recorded = self._etcd.view, self._etcd.mirror.members.record
        if by:
            self._reachability.asked(by, began)
        answer = await self._lists.read(url if by else "")
        if not self._statuses.is_asking(by):
            self._reachability.answered(by)
        now, listed = self._etcd.now(), answer.members
        before = (view.members, view.members_as_of > 0)
        view.listed(by, listed, began, now)
        gone = {each.id for each in before[0]} - {each.id for each in view.members}
        others = self._statuses.urls_of(gone) if gone and view.members else ()
        self._removed.listed(before[0], view.members, now.mono, others)
        if view.term_seen(answer.raft_term, now):
            self._statuses.poll_all_now()
        if listed is not self._learned:
            self._learned = listed
            self._etcd.client.learn([url for member in listed for url in member.client_urls])
        if before != (view.members, view.members_as_of > 0):
            self._statuses.look_now()
        if recorded is None or recorded.members != view.known_members or view.failures():
            self._view_changed(())
        elif by and answer.answer:
            self._evaluated = _Evaluated(by, url, answer, now.mono)
