"""Ask the endpoints of etcd one after the other: how long each may take, and when a request may go to another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from .etcd_endpoints import Endpoints
from .etcd_errors import EtcdError, EtcdNoLeader, EtcdOutcomeUnknown, EtcdRefused, EtcdUnavailable
from .etcd_transport import Progress

ATTEMPT_SECONDS = 0.8
"""A read is put to the next endpoint after so long without an answer."""
ELECTION_PAUSE_SECONDS = 0.2
"""While members say that they have no leader, they are asked again after so long."""
SLOW_SECONDS = 0.4
"""A caller that gave up after so long has found out that an endpoint is slow."""

T = TypeVar("T")


class Failover:
    """Shared by all requests, so that each knows which endpoints failed the others."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def first_to_answer(
        self,
        ask: Callable[[str, Progress], Awaitable[T]],
        seconds: float,
        *,
        write: bool = False,
    ) -> T:
        """Ask one endpoint after the other until one answers; a write only as long as none can have done it."""
        until = trio.current_time() + seconds
        while True:
            failures: list[EtcdUnavailable] = []
            order = self._endpoints.order(trio.current_time())
            for endpoint in order:
                left = until - trio.current_time()
                if left <= 0:
                    break
                patience = left if endpoint == order[-1] else min(left, ATTEMPT_SECONDS)
                # A write that was sent is not put to another, so it may take all the time there is.
                once_sent = left if write else patience
                try:
                    answer = await self.within(
                        endpoint, patience, partial(ask, endpoint), write=write, once_sent=once_sent
                    )
                except EtcdUnavailable as error:
                    failures.append(error)
                except EtcdRefused:
                    self._endpoints.answered(endpoint)
                    raise
                else:
                    self._endpoints.answered(endpoint)
                    return answer
            electing = any(isinstance(error, EtcdNoLeader) for error in failures)
            if not electing or trio.current_time() + ELECTION_PAUSE_SECONDS >= until:
                raise _none_of(failures)
            await trio.sleep(ELECTION_PAUSE_SECONDS)

    async def within(
        self,
        endpoint: str,
        seconds: float,
        ask: Callable[[Progress], Awaitable[T]],
        *,
        write: bool = False,
        once_sent: float = 0.0,
    ) -> T:
        """Ask one endpoint, and remember if it fails. What was sent has `once_sent` instead, if that is more."""
        started = trio.current_time()
        try:
            with trio.fail_after(seconds) as scope:

                def sent() -> None:
                    scope.deadline = max(scope.deadline, started + once_sent)

                progress = Progress(sent)
                return await ask(progress)
        except trio.TooSlowError:
            unknown = write and progress.sent
            error: EtcdError = (EtcdOutcomeUnknown if unknown else EtcdUnavailable)(
                endpoint, f"no answer within {max(seconds, once_sent) if progress.sent else seconds:.2g} s"
            )
            self.failed(error)
            raise error from None
        except trio.Cancelled:
            if trio.current_time() - started >= SLOW_SECONDS:
                self.failed(EtcdUnavailable(endpoint, "it is slow"))
            raise
        except (EtcdUnavailable, EtcdOutcomeUnknown) as found:
            self.failed(found)
            raise

    def failed(self, error: EtcdError) -> None:
        """A refusal is an answer, and no failure of the endpoint."""
        if not isinstance(error, EtcdRefused):
            self._endpoints.failed(error.endpoint, trio.current_time(), error.reason)


def _none_of(failures: Sequence[EtcdUnavailable]) -> EtcdUnavailable:
    if len(failures) == 1:
        return failures[0]
    kind = EtcdNoLeader if any(isinstance(error, EtcdNoLeader) for error in failures) else EtcdUnavailable
    return kind("", f"no endpoint of etcd can be used: {'; '.join(map(str, failures))}")
