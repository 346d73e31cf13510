"""Checks passwords: two at a time, a bounded queue in which addresses take turns, and a limit on guessing.

1. An attempt counts as failed while it is hashed, and no longer if the password is right. One whose address or name
   is at its limit only because of attempts in progress waits for their results; otherwise it is refused (429).
2. Of the waiting addresses the one with the fewest failures in the last minute is next, and of equals the one that
   asked first since its last turn; one that was refused keeps its place. So guesses from many addresses do not
   delay others.
3. A password that was right since the start needs no hash and does not wait, unless its address is at its limit.
4. When the queue is full, the address that has most attempts in it, and of equals the last by rule 2, loses its
   newest one (503).
5. Each attempt is answered within `QUEUE_SECONDS` + `HASH_SECONDS`. A hash that takes longer goes on, and if the
   password was right, the next attempt needs none.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from heliosd.auth.access import Access
from heliosd.auth.throttle import WINDOW_SECONDS, Throttle, network_of
from heliosd.config.model import Settings
from heliosd.errors import Unauthenticated
from heliosd.web.problems import TryLater

HASHES_AT_ONCE = 2
"""An argon2id hash takes a core for some 20 ms; more threads than this would starve the event loop."""
QUEUE_LENGTH = 32
QUEUE_SECONDS = 2.0
"""An attempt that waits longer for its turn is refused (503)."""
HASH_SECONDS = 2.0
"""An attempt whose hash is not done so long after its turn may have come is refused (503)."""
MAX_PLACES = 10_000
"""Addresses whose place is kept."""
NICENESS = 5
"""Of the threads that hash: with two cores and many logins, threads of equal priority would delay all else."""


@dataclass(eq=False, slots=True)
class _Attempt:
    network: str
    name: str
    password: str = field(repr=False)
    done: trio.Event = field(default_factory=trio.Event)
    outcome: str | BaseException = field(default="", repr=False)
    """The hash that the password was right for, or why there is none."""

    def finish(self, outcome: str | BaseException) -> None:
        self.outcome = outcome
        self.done.set()


class PasswordCheck:
    def __init__(self, access: Access, settings: Settings) -> None:
        self._access = access
        self._throttle = Throttle(settings)
        self._asked_at: dict[str, float] = {}
        """When each address asked first since its last turn, in this order."""
        # Threads of their own: Trio's are used for other things afterwards, and a priority cannot be raised again.
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, "password", initializer=_lower_priority)
        self._waiting: dict[str, deque[_Attempt]] = {}
        """By address."""
        self._hashing: Counter[str] = Counter()
        """Attempts in progress, by address."""

    async def check(self, name: str, password: str, *, address: str) -> str:
        """The hash that the password was right for. A reload meanwhile may have brought another one.

        Raises `Unauthenticated`, the same for a wrong name as for a wrong password, and `TryLater`: 429 after too
        many failures of this address, 503 if more is asked than can be hashed soon.
        """
        attempt = _Attempt(network_of(address), name, password)
        at_limit = self._throttle.retry_after(attempt.network, name, trio.current_time()) > 0
        recognized = None if at_limit else self._access.recognized(name, password)
        if recognized is not None:
            await trio.lowlevel.checkpoint()
            return recognized
        self._note(attempt.network)
        self._waiting.setdefault(attempt.network, deque()).append(attempt)
        if sum(map(len, self._waiting.values())) > QUEUE_LENGTH:
            refused = self._waiting[max(self._waiting, key=self._share)][-1]
            self._remove(refused)
            refused.finish(_too_many())
        self._start()
        try:
            with trio.move_on_after(QUEUE_SECONDS):
                await attempt.done.wait()
            if self._remove(attempt):
                raise _too_many()
            with trio.move_on_after(HASH_SECONDS):
                await attempt.done.wait()
        finally:
            self._remove(attempt)
        if not attempt.done.is_set():
            raise _too_many()
        if isinstance(attempt.outcome, BaseException):
            raise attempt.outcome
        return attempt.outcome

    def _start(self) -> None:
        """Start as many attempts as may be hashed now."""
        while self._hashing.total() < HASHES_AT_ONCE and (attempt := self._next()) is not None:
            self._remove(attempt)
            self._asked_at.pop(attempt.network, None)
            if attempt.network in self._waiting:
                self._note(attempt.network)  # behind the others
            self._throttle.failed(attempt.network, attempt.name, trio.current_time())
            self._hashing[attempt.network] += 1
            token = trio.lowlevel.current_trio_token()
            future = self._threads.submit(self._access.check_password, attempt.name, attempt.password)
            future.add_done_callback(partial(self._report, token, attempt))

    def _next(self) -> _Attempt | None:
        """The attempt whose turn it is. Those that are at their limit are refused on the way."""
        now = trio.current_time()
        for network in sorted(self._waiting, key=self._rank):
            for attempt in tuple(self._waiting[network]):
                seconds = self._throttle.retry_after(network, attempt.name, now)
                if seconds <= 0:
                    return attempt
                if not self._hashing[network]:
                    self._remove(attempt)
                    attempt.finish(TryLater("Too many failed logins", status=429, seconds=seconds))
        return None

    def _share(self, network: str) -> tuple[int, tuple[int, float]]:
        return len(self._waiting[network]), self._rank(network)

    def _rank(self, network: str) -> tuple[int, float]:
        now = trio.current_time()
        # Without a place only where there are too many addresses.
        return self._throttle.failures(network, now), self._asked_at.get(network, now)

    def _note(self, network: str) -> None:
        now = trio.current_time()
        self._asked_at.setdefault(network, now)
        oldest = next(iter(self._asked_at))
        if len(self._asked_at) > MAX_PLACES or self._asked_at[oldest] < now - WINDOW_SECONDS:
            del self._asked_at[oldest]

    def _report(self, token: trio.lowlevel.TrioToken, attempt: _Attempt, done: Future[str | None]) -> None:
        """In a thread that hashes: let the event loop finish `attempt`."""
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._finish, attempt, done)

    def _finish(self, attempt: _Attempt, done: Future[str | None]) -> None:
        self._hashing -= Counter([attempt.network])
        error = done.exception()
        password_hash = done.result() if error is None else None
        if password_hash is not None:
            self._throttle.succeeded(attempt.network, attempt.name)
        attempt.finish(password_hash or error or Unauthenticated("Invalid credentials"))
        self._start()

    def _remove(self, attempt: _Attempt) -> bool:
        """Take `attempt` out of the queue; False: it is not in it."""
        queue = self._waiting.get(attempt.network)
        if queue is None or attempt not in queue:
            return False
        queue.remove(attempt)
        if not queue:
            del self._waiting[attempt.network]
        return True


def _too_many() -> TryLater:
    return TryLater("Too many logins at once", status=503, seconds=1)


def _lower_priority() -> None:
    """On Linux a priority is a thread's, elsewhere the whole process's."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
