"""The list of members, also where etcd refuses it: then of the members that the leader replicates to.

With authentication on, etcd 3.4.42, 3.5.28 and 3.6.9 give the list to the role root alone.
"""

from __future__ import annotations

import trio

from heliosd.cluster.etcd.client.errors import EtcdDenied
from heliosd.cluster.etcd.client.responses import MemberList

from .context import EtcdContext
from .members import completed

AGAIN_SECONDS = 3.0
"""A list that was refused is asked for again after so long."""
FIND_SECONDS = 1.0
"""Between two searches for a member whose URL is not known: all members are asked who they are."""


class MemberLists:
    """Reads lists; remembers whether they are refused."""

    def __init__(self, context: EtcdContext) -> None:
        self._etcd = context
        self.refused: EtcdDenied | None = None
        """How the list was refused last; None: it was not."""
        self._ask_again = self._find_again = float("-inf")
        self._urls: dict[str, str] = {}
        """Member -> where it answers, as found last."""

    async def read(self, url: str) -> MemberList:
        """The list of the member at this URL, "": of any. Raises `EtcdError`."""
        if self.refused is None or trio.current_time() >= self._ask_again:
            try:
                listed = await self._etcd.client.member_list(url)
            except EtcdDenied as denied:
                self.refused, self._ask_again = denied, trio.current_time() + AGAIN_SECONDS
            else:
                self.refused = None
                return listed
        return await self._replicated(url)

    async def _replicated(self, url: str) -> MemberList:
        term, found = 0, False
        if url:
            raft = await self._etcd.client.raft_vars(url)
            term = raft.term
            known = {each.id for each in self._etcd.view.members if each.client_urls}
            found = raft.leader == raft.member_id and known.issuperset(raft.members)
            if found or (raft.leader == raft.member_id and trio.current_time() < self._find_again):
                return self._completed({each: self._urls.get(each, "") for each in raft.members}, term)
        self._find_again = trio.current_time() + FIND_SECONDS
        self._urls = await self._etcd.client.raft_members()
        return self._completed(self._urls, term)

    def _completed(self, urls: dict[str, str], term: int) -> MemberList:
        record = self._etcd.mirror.members.record
        known = () if record is None else record.members
        return MemberList(completed(urls, self._etcd.view.members, known), term)
