"""Ask the endpoints of etcd one after the other: how long each may take, and when a request may go to another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import trio

from .endpoints import Endpoints
from .errors import EtcdError, EtcdNoLeader, EtcdOutcomeUnknown, EtcdRefused, EtcdUnavailable
from .transport import RequestProgress

ATTEMPT_SECONDS = 0.8
"""A read is put to the next endpoint after so long without an answer, or sooner if many are still to be asked."""
SHORT_ATTEMPT_SECONDS = 0.3
"""But not sooner than this: a busy member that leads must be able to answer."""
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
        ask: Callable[[str, RequestProgress], Awaitable[T]],
        seconds: float,
        *,
        write: bool = False,
    ) -> T:
        """Ask one endpoint after the other until one answers; a write only as long as none can have done it."""
        until = trio.current_time() + seconds
        failures: dict[str, EtcdUnavailable] = {}
        while True:
            order = self._endpoints.order(trio.current_time())
            for place, endpoint in enumerate(order):
                left = until - trio.current_time()
                if left <= 0:
                    failures.setdefault(
                        endpoint, EtcdUnavailable(endpoint, f"not asked within {seconds:g} s")
                    )
                    continue
                patience = _fair_share(left, len(order) - place)
                # A write that was sent is not put to another, so it may take all the time there is.
                once_sent = left if write else patience
                try:
                    answer = await self.within(
                        endpoint, patience, partial(ask, endpoint), write=write, once_sent=once_sent
                    )
                except EtcdUnavailable as error:
                    # That it answered, if without a leader, says more than its silence after that.
                    if not isinstance(failures.get(endpoint), EtcdNoLeader):
                        failures[endpoint] = error
                except EtcdRefused:
                    self._endpoints.answered(endpoint)
                    raise
                else:
                    self._endpoints.answered(endpoint)
                    return answer
            electing = any(isinstance(error, EtcdNoLeader) for error in failures.values())
            # A busy machine sleeps longer than it was told to, and who is asked then has no time to answer.
            left = until - trio.current_time()
            if not electing or left < ELECTION_PAUSE_SECONDS + SHORT_ATTEMPT_SECONDS:
                raise _none_of(failures)
            await trio.sleep(ELECTION_PAUSE_SECONDS)
            if until - trio.current_time() < SHORT_ATTEMPT_SECONDS:
                raise _none_of(failures)

    async def within(
        self,
        endpoint: str,
        seconds: float,
        ask: Callable[[RequestProgress], Awaitable[T]],
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

                progress = RequestProgress(sent)
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


def _fair_share(left: float, to_ask: int) -> float:
    """How long the next one of those that are still to be asked may take: the last one all that is left."""
    return left if to_ask == 1 else min(left, ATTEMPT_SECONDS, max(SHORT_ATTEMPT_SECONDS, left / to_ask))


def _none_of(failures: Mapping[str, EtcdUnavailable]) -> EtcdUnavailable:
    """The last that is known of each endpoint, as one error."""
    errors = tuple(failures.values())
    if len(errors) == 1:
        return errors[0]
    kind = EtcdNoLeader if any(isinstance(error, EtcdNoLeader) for error in errors) else EtcdUnavailable
    return kind("", f"no endpoint of etcd can be used: {'; '.join(map(str, errors))}")
