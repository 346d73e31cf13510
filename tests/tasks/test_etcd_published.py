"""What of a lost leader is published before the log has it."""

from __future__ import annotations

import msgspec
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.cluster.etcd.leader_history import LeaderHistory
from heliosd.cluster.etcd.published import ELECTION_SECONDS, Published
from heliosd.store.changes import LoggedEvent
from tests.rules.test_etcd_view import A, B, C, Seen, led_by_b

from .test_etcd_polls import context_of


def logged(leader: str, term: int) -> LoggedEvent:
    data = {"leader": leader, "term": term}
    return LoggedEvent(term, 0.0, "state_change", msgspec.json.encode({"data": data}))


async def test_each_of_two_losses_in_a_row_has_its_own_time_until_it_is_published(
    autojump_clock: MockClock,
) -> None:
    seen = led_by_b()
    context = replace(context_of(None), view=seen.view, now=lambda: seen.now)
    published = Published(context, LeaderHistory(seen.view, lambda: seen.now))
    published.on_logged(logged(B, 5))
    async with context.subscribers.listener() as heard, trio.open_nursery() as nursery:
        nursery.start_soon(published.run)
        await lost_for(0.05, published, seen, B, 5, A)
        await trio.sleep(ELECTION_SECONDS - 0.07)
        await lost_for(0.05, published, seen, A, 6, C)
        await trio.sleep(2 * ELECTION_SECONDS)
        heard_of = heard.waiting
        await lost_for(ELECTION_SECONDS + 0.05, published, seen, C, 7, B)
        assert (heard_of, heard.waiting) == (0, 1)
        nursery.cancel_scope.cancel()


async def lost_for(
    seconds: float, published: Published, seen: Seen, leader: str, term: int, elected: str
) -> None:
    """The leader of this term is lost, and so long later another one is elected."""
    seen.poll("", term)
    published.leader_lost(leader, term)
    await trio.sleep(seconds)
    seen.poll(elected, term + 1)
    published.on_logged(logged(elected, term + 1))
