"""The check of sequences beside a test."""

from __future__ import annotations

import asyncio
import threading

from .daemon_process import wait_until
from .sequence_checker import Check

PATIENCE_SECONDS = 60.0


class RunningCheck:
    """A check in a thread of its own. Call `finish` while the daemon still runs: it receives the rest."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self._found: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self.check.run())
        except Exception as error:  # raised by `finish`, in the test's own thread
            self._found.append(error)

    def finish(self) -> None:
        """End the check; raises what it found."""
        self.check.stopping = True
        self._thread.join(3 * PATIENCE_SECONDS)
        print(self.check.summary())
        if self._found:
            raise self._found[0]
        assert not self._thread.is_alive()

    def wait_until_all_hear_more(self) -> None:
        """Until each client has received another event than before this call."""
        wait_until(lambda: len(self._heard()) == self.check.plan.clients or self.ended, PATIENCE_SECONDS)
        before = self._heard()
        wait_until(
            lambda: all(now > then for now, then in zip(self._heard(), before, strict=True)) or self.ended,
            PATIENCE_SECONDS,
        )
        self.raise_if_ended()

    def raise_if_ended(self) -> None:
        if self.ended:
            self.finish()

    @property
    def ended(self) -> bool:
        """It has found something."""
        return not self._thread.is_alive()

    def _heard(self) -> list[int]:
        return [follower.seen.deliveries for follower in self.check.followers]
