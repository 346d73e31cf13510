"""The members where etcd refuses their list: as the leader replicates to them, at one request a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import trio
from trio.testing import MockClock

from heliosd.cluster.etcd.client.errors import EtcdDenied
from heliosd.cluster.etcd.client.responses import EtcdMember, MemberList, RaftVars
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.member_lists import AGAIN_SECONDS, FIND_SECONDS, MemberLists

A, B = "http://etcd-1:2379", "http://etcd-2:2379"
LISTED = tuple(EtcdMember(each, f"etcd-{each}", (), (url,), False) for each, url in (("a", A), ("b", B)))
DENIED = EtcdDenied(A, "etcdserver: permission denied", 7)


class Etcd:
    """Refuses its list, or not; `a` leads and replicates to `ids`."""

    def __init__(self) -> None:
        self.refuses = True
        self.ids: tuple[str, ...] = ("a", "b")
        self.asked: list[str] = []
        view = SimpleNamespace(members=LISTED)
        mirror = SimpleNamespace(members=SimpleNamespace(record=None))
        self.lists = MemberLists(cast("EtcdContext", SimpleNamespace(client=self, view=view, mirror=mirror)))

    async def member_list(self, _url: str) -> MemberList:
        await self._ask("list")
        if self.refuses:
            raise DENIED
        return MemberList(LISTED, 5)

    async def raft_vars(self, _url: str) -> RaftVars:
        await self._ask("leader")
        return RaftVars("a", 4, "a", 9, 9, self.ids)

    async def raft_members(self) -> dict[str, str]:
        await self._ask("all")
        return dict.fromkeys(self.ids, "")

    async def _ask(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append(what)


async def test_known_members_cost_one_request_and_the_list_is_asked_for_again_after_a_while(
    autojump_clock: MockClock,
) -> None:
    etcd = Etcd()
    for _ in range(3):
        assert await etcd.lists.read(A) == MemberList(LISTED, 4)
    assert etcd.lists.refused is DENIED
    assert etcd.asked == ["list", "leader", "leader", "leader"]
    etcd.refuses = False
    await trio.sleep(AGAIN_SECONDS)
    assert await etcd.lists.read(A) == MemberList(LISTED, 5)
    assert etcd.lists.refused is None


async def test_who_an_unknown_member_is_is_asked_of_all_and_not_each_time(autojump_clock: MockClock) -> None:
    etcd = Etcd()
    etcd.ids = ("a", "b", "c")
    for _ in range(3):
        found = await etcd.lists.read(A)
        assert [each.id for each in found.members] == ["a", "b", "c"]
    assert etcd.asked == ["list", "leader", "all", "leader", "leader"]
    await trio.sleep(FIND_SECONDS)
    await etcd.lists.read(A)
    assert etcd.asked[-2:] == ["leader", "all"]
