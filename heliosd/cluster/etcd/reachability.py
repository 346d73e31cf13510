"""One idle connection to each member's client port: it ends when the member's process does, long before a poll
shows that. And what a new connection meets, for a leader that is silent.

Its only request is for `/metrics`: the start time there of the next connection shows whether the process is another
one.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import trio

from heliosd.cluster.etcd.client.errors import EtcdError
from heliosd.cluster.etcd.client.responses import EtcdMember

from .context import EtcdContext
from .member_metrics import measured
from .member_traces import Reach
from .process_seen import ProcessSeen

OVERDUE_SECONDS = 0.25
"""A leader that has not answered for so much longer than the last time may be gone."""
MOST_USUAL_SECONDS = 0.6
"""More than this is no member's usual time: a poll fails after a second."""
CONNECT_SECONDS = 0.4
AGAIN_SECONDS = 0.1
"""Between two attempts to connect to a member that has just ended; ten times that later on."""
AGAIN_LASTS_SECONDS = 10.0
SHORT_SECONDS = 5.0
"""A connection that ends sooner is closed by something between here and the member: it is tried again slowly."""


class Reachability:
    """`poll_now` is called with a member whose process has ended, or is there again. `url_of` gives a member's
    client URL, "" if there is none."""

    def __init__(
        self, context: EtcdContext, poll_now: Callable[[str], None], url_of: Callable[[EtcdMember], str]
    ) -> None:
        self._etcd = context
        self._poll_now = poll_now
        self._url_of = url_of
        self._followed: dict[str, trio.CancelScope] = {}
        self._processes: dict[str, ProcessSeen] = {}
        """Member -> its process, as the last connection showed it."""
        self._probed: set[str] = set()

    def follows(self, member: str) -> bool:
        return member in self._followed

    def follow(self, member: str, nursery: trio.Nursery) -> None:
        """Keep a connection to this member, which has none yet. Each attempt goes to the URL that it has then."""
        self._followed[member] = trio.CancelScope()
        nursery.start_soon(self._follow, member, self._followed[member])

    def leave(self, members: set[str]) -> None:
        """Close the connections to these members, and to those that are none any more."""
        known = {each.id for each in self._etcd.view.to_poll()} - members
        for member in self._followed.keys() - known:
            self._followed[member].cancel()

    def asked(self, member: str, at: float) -> None:
        """It is being asked something."""
        trace = self._etcd.view.traces.of(member)
        trace.asked = at if trace.asked is None else trace.asked

    def answered(self, member: str) -> None:
        self._etcd.view.traces.of(member).asked = None

    def is_overdue(self, member: str, seconds: float = OVERDUE_SECONDS) -> bool:
        """It has not answered for so long beyond what its last answer took, also if its poll has not failed yet."""
        now, asked = self._etcd.now().mono, self._etcd.view.traces.of(member).asked
        if asked is None or now - asked < seconds:
            return False
        last = self._etcd.view.last_answer(member)
        usual = 0.0 if last is None else min(last.at - last.asked, MOST_USUAL_SECONDS)
        return now - asked >= seconds + usual

    def examine(self, leader: str, url: str, nursery: trio.Nursery) -> bool:
        """Have the view know that the leader is overdue, and find out what a new connection to it meets. Returns
        whether it was not known to be overdue."""
        trace = self._etcd.view.traces.of(leader)
        news = trace.overdue is None
        now = self._etcd.now()
        self._etcd.view.overdue(leader, now.mono if trace.asked is None else trace.asked, now)
        if url and trace.reach is None and leader not in self._probed:
            self._probed.add(leader)
            nursery.start_soon(self._probe, leader, url)
        return news

    def is_silent(self, member: str) -> bool:
        """It is of no use to ask it now."""
        return self._etcd.view.traces.of(member).is_silent(self._etcd.view.last_answer(member))

    def answers(self, member: str) -> bool:
        """No request to it has been without an answer for longer than usual."""
        return not self.is_silent(member) and not self.is_overdue(member)

    async def _probe(self, member: str, url: str) -> None:
        reach = await _connect(url)
        if isinstance(reach, trio.SocketStream):
            await reach.aclose()
        self._etcd.view.traces.of(member).reach = reach if isinstance(reach, str) else "accepted"
        self._probed.discard(member)

    async def _follow(self, member: str, scope: trio.CancelScope) -> None:
        gone_since = trio.current_time()
        try:
            with scope:
                while (polled := self._polled(member)) is not None:
                    began = trio.current_time()
                    if url := self._url_of(polled):
                        await self._attach(member, url)
                    if trio.current_time() - began >= SHORT_SECONDS:
                        gone_since = trio.current_time()
                    lately = trio.current_time() - gone_since < AGAIN_LASTS_SECONDS
                    await trio.sleep(AGAIN_SECONDS if lately else AGAIN_SECONDS * 10)
                self._processes.pop(member, None)  # it is no member any more
        finally:
            del self._followed[member]

    def _polled(self, member: str) -> EtcdMember | None:
        return next((each for each in self._etcd.view.to_poll() if each.id == member), None)

    async def _attach(self, member: str, url: str) -> None:
        """Hold one connection until it ends, or find out why there is none."""
        try:
            async with self._etcd.client.attached(url) as attached:
                self._compare_process(member, attached.body, attached.date)
                attached.body = b""  # it is large, and the connection may stay for months
                if attached.lasts and await attached.closed():
                    self._etcd.view.traces.of(member).connection_ended(self._etcd.now().mono)
                    self._ended(member)
        except EtcdError:
            await self._look_why(member, url)

    async def _look_why(self, member: str, url: str) -> None:
        """There is no connection to it: perhaps its process has ended."""
        if self._etcd.view.traces.of(member).ended is None:
            met = await _connect(url)
            if isinstance(met, trio.SocketStream):
                await met.aclose()
            elif met == "refused":
                self._ended(member)

    def _ended(self, member: str) -> None:
        """So it seems; an answer as leader disproves it."""
        if self._etcd.view.traces.of(member).ended is None:
            self._etcd.view.process_ended(member, self._etcd.now())
        self._poll_now(member)

    def _compare_process(self, member: str, metrics: bytes, date: float | None) -> None:
        """Whether its process is another one than before."""
        found = measured(metrics.decode(errors="replace"))
        if found.started is not None:
            trace, now = self._etcd.view.traces.of(member), self._etcd.now()
            trace.db_quota = found.db_quota or 0
            before = self._processes.get(member)
            process = ProcessSeen(found.started, date, now.mono)
            self._processes[member] = process
            if before is not None and process.differs_from(before, trace.last_ended):
                self._etcd.view.restarted(member, now)
            elif before is not None:
                trace.same_process()
        self._poll_now(member)


async def _connect(url: str) -> trio.SocketStream | Reach:
    """A new connection, or why there is none."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with trio.move_on_after(CONNECT_SECONDS):
        try:
            return await trio.open_tcp_stream(parts.hostname or "", port)
        except OSError as error:
            return "refused" if _refused(error) else "silent"
    return "silent"


def _refused(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_refused, error.exceptions))
    return isinstance(error, ConnectionRefusedError) or (
        error.__cause__ is not None and _refused(error.__cause__)
    )
