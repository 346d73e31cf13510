"""Rights that are taken away from a running heliosd show within five seconds, and so does that they are back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from heliosd.cluster.etcd.client.errors import EtcdDenied, EtcdError, EtcdUnavailable
from heliosd.cluster.etcd.context import EtcdContext
from heliosd.cluster.etcd.faults import OPTIONAL, Faults
from heliosd.cluster.etcd.keys import KeyLayout
from heliosd.cluster.etcd.write_probe import ROLES_SECONDS, WriteProbe

REPORTED_SECONDS = 5.0
DENIED = EtcdDenied("http://etcd-1:2379", "etcdserver: permission denied", 7)


class User:
    """A user of etcd, as the probe asks about it: whether it may write, and its roles."""

    def __init__(self, *roles: str, username: str = "heliosd") -> None:
        self.username = username
        self.roles: tuple[str, ...] | EtcdError = roles
        self.writing: EtcdError | None = None
        self.asked = 0

    async def txn(self, *_: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self.writing is not None:
            raise self.writing

    async def own_roles(self) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if isinstance(self.roles, EtcdError):
            raise self.roles
        return self.roles


def probing(user: User, nursery: trio.Nursery) -> Faults:
    faults = Faults()
    parts = {"client": user, "faults": faults, "layout": KeyLayout("/heliosd/")}
    world = SimpleNamespace(
        **parts, mirror=SimpleNamespace(cluster_id="c"), view=SimpleNamespace(leader="m1")
    )
    nursery.start_soon(WriteProbe(cast("EtcdContext", world)).run)
    return faults


async def test_a_right_to_write_that_is_lost_is_a_denial_until_it_is_back(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    user = User()
    faults = probing(user, nursery)
    await trio.sleep(1.0)
    assert faults.all() == {}
    user.writing = DENIED
    await trio.sleep(REPORTED_SECONDS)
    assert faults.denials() == {"writing": str(DENIED)}
    user.writing = None
    await trio.sleep(REPORTED_SECONDS)
    assert faults.all() == {}


async def test_a_role_root_that_is_lost_is_named_until_it_is_back_and_hinders_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    user = User("of-heliosd", "root")
    faults = probing(user, nursery)
    await trio.sleep(1.0)
    assert faults.all() == {}
    user.roles = ("of-heliosd",)
    await trio.sleep(REPORTED_SECONDS)
    (concern,) = faults.denials()
    assert concern in OPTIONAL
    assert "etcdctl user grant-role heliosd root" in faults.denials()[concern]
    user.roles = EtcdUnavailable("", "no endpoint")
    await trio.sleep(REPORTED_SECONDS)
    assert concern in faults.denials(), "nothing is known anew"
    user.roles = ("root",)
    await trio.sleep(REPORTED_SECONDS)
    assert faults.all() == {}


async def test_a_user_who_never_had_the_role_root_is_asked_for_rarely_and_not_complained_of(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    user = User("of-heliosd")
    faults = probing(user, nursery)
    await trio.sleep(ROLES_SECONDS - 5.0)
    assert (user.asked, faults.all()) == (1, {})
    user.roles = ("root",)
    await trio.sleep(ROLES_SECONDS)
    user.roles = ()
    await trio.sleep(REPORTED_SECONDS)
    assert list(faults.all()) == ["changing members"]


@pytest.mark.parametrize("refused", [False, True])
async def test_where_there_is_no_user_no_roles_are_asked_for(
    autojump_clock: MockClock, nursery: trio.Nursery, refused: bool
) -> None:
    user = User(username="")
    user.writing = DENIED if refused else None
    probing(user, nursery)
    await trio.sleep(100.0)
    assert user.asked == 0
