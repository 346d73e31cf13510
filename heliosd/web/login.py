"""The desk where passwords are checked: two at a time, a short queue, and a limit on guessing."""

from __future__ import annotations

import trio

from ..auth.access import Access
from ..auth.throttle import Throttle
from ..config import Settings
from ..errors import Unauthenticated
from .problems import TryLater

HASHES_AT_ONCE = 2
"""An argon2id hash takes a core for some 20 ms; more threads than this would starve the event loop."""
QUEUE_LENGTH = 8


class LoginDesk:
    def __init__(self, access: Access, settings: Settings) -> None:
        self._access = access
        self._throttle = Throttle(settings)
        self._hashing = trio.CapacityLimiter(HASHES_AT_ONCE)
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
            right = await trio.to_thread.run_sync(
                self._access.check_password, name, password, limiter=self._hashing
            )
        finally:
            self._inside -= 1
        if not right:
            raise Unauthenticated("Invalid credentials")
        self._throttle.succeeded(address, name)
