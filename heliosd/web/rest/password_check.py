"""The desk where passwords are checked: two at a time, a short queue, and a limit on guessing."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import trio

from heliosd.auth.access import Access
from heliosd.auth.throttle import Throttle
from heliosd.config.model import Settings
from heliosd.errors import Unauthenticated
from heliosd.web.problems import TryLater

HASHES_AT_ONCE = 2
"""An argon2id hash takes a core for some 20 ms; more threads than this would starve the event loop."""
QUEUE_LENGTH = 8
NICENESS = 5
"""Of the threads that hash: with two cores and a flood of logins, threads of equal rank would keep everybody else
waiting."""


class PasswordCheck:
    def __init__(self, access: Access, settings: Settings) -> None:
        self._access = access
        self._throttle = Throttle(settings)
        # Threads of their own: Trio's are lent to others afterwards, and nobody may raise a priority again.
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, "password", initializer=_step_back)
        self._inside = 0

    async def check(self, name: str, password: str, *, address: str, now_mono: float) -> None:
        """Return if the password is right; `now_mono` is monotonic seconds.

        Raises `Unauthenticated`, the same for a wrong name as for a wrong password, and `TryLater`: 429 after too
        many failures of this address, 503 at once when everyone together asks for more than can be hashed soon.
        """
        wait = self._throttle.retry_after(address, name, now_mono)
        if wait > 0:
            raise TryLater("Too many failed logins", status=429, seconds=wait)
        if self._inside >= HASHES_AT_ONCE + QUEUE_LENGTH:
            raise TryLater("Too many logins at once", status=503, seconds=1)
        # Counted before it is known, so that guesses made side by side all count.
        self._throttle.failed(address, name, now_mono)
        self._inside += 1
        try:
            right = await self._hashed(name, password)
        finally:
            self._inside -= 1
        if not right:
            raise Unauthenticated("Invalid credentials")
        self._throttle.succeeded(address, name)

    async def _hashed(self, name: str, password: str) -> bool:
        done, trio_token = trio.Event(), trio.lowlevel.current_trio_token()
        future = self._threads.submit(self._access.check_password, name, password)

        def resume(_: object) -> None:
            with suppress(trio.RunFinishedError):
                trio_token.run_sync_soon(done.set)

        future.add_done_callback(resume)
        # Whoever hangs up keeps his place until his hash is done. Bounded by the queue: some 100 ms.
        with trio.CancelScope(shield=True):
            await done.wait()
        return future.result()


def _step_back() -> None:
    """Let the event loop go first. On Linux a priority is a thread's, elsewhere the whole process's."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
