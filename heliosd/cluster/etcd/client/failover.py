"""Asks the endpoints one after another: how long each may take, and when a request may go to the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import trio

from .endpoints import Endpoints
from .errors import EtcdError, EtcdForeign, EtcdNoLeader, EtcdOutcomeUnknown, EtcdRefused, EtcdUnavailable
from .progress import RequestProgress

ATTEMPT_SECONDS = 0.8
"""A read goes to the next endpoint after so long without an answer, or sooner if many are still to be asked."""
SHORT_ATTEMPT_SECONDS = 0.3
"""But not sooner than this: a busy leader must be able to answer."""
ELECTION_PAUSE_SECONDS = 0.2
"""Members without a leader are asked again after so long."""
SLOW_SECONDS = 0.4
"""If the caller cancels after so long, the endpoint counts as slow."""

T = TypeVar("T")


class Failover:
    """Shared by all requests, so that each uses what the others have found out about the endpoints."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def first_to_answer(
        self,
        ask: Callable[[str, RequestProgress], Awaitable[T]],
        seconds: float,
        *,
        write: bool = False,
    ) -> T:
        """Ask one endpoint after another until one answers; a write only while none can have done it."""
        failures: dict[str, EtcdUnavailable] = {}
        try:
            return await self._ask_in_turn(ask, seconds, failures, write=write)
        finally:
            failures.clear()  # they hold the frames that hold them

    async def _ask_in_turn(
        self,
        ask: Callable[[str, RequestProgress], Awaitable[T]],
        seconds: float,
        failures: dict[str, EtcdUnavailable],
        *,
        write: bool,
    ) -> T:
        until = trio.current_time() + seconds
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
                # A write that was sent goes to no other endpoint, so it may take all the time that is left.
                once_sent = left if write else patience
                try:
                    answer = await self.within(
                        endpoint, patience, partial(ask, endpoint), write=write, once_sent=once_sent
                    )
                except EtcdUnavailable as error:
                    # An answer without a leader says more than no answer after it.
                    if not isinstance(failures.get(endpoint), EtcdNoLeader):
                        failures[endpoint] = error
                except EtcdRefused:
                    self._endpoints.answered(endpoint)
                    raise
                else:
                    self._endpoints.answered(endpoint)
                    return answer
            electing = any(isinstance(error, EtcdNoLeader) for error in failures.values())
            # On a busy machine a sleep takes longer, and the next endpoint would have no time to answer.
            left = until - trio.current_time()
            if not electing or left < ELECTION_PAUSE_SECONDS + SHORT_ATTEMPT_SECONDS:
                raise none_of(failures)
            await trio.sleep(ELECTION_PAUSE_SECONDS)
            if until - trio.current_time() < SHORT_ATTEMPT_SECONDS:
                raise none_of(failures)

    async def within(
        self,
        endpoint: str,
        seconds: float,
        ask: Callable[[RequestProgress], Awaitable[T]],
        *,
        write: bool = False,
        once_sent: float = 0.0,
    ) -> T:
        """Ask one endpoint, and record a failure. A request that was sent has `once_sent` seconds, if more."""
        started = trio.current_time()
        # `trio.fail_after` costs more, and an idle heliosd asks a dozen times a second.
        scope = trio.CancelScope(deadline=started + seconds)

        def sent() -> None:
            scope.deadline = max(scope.deadline, started + once_sent)

        progress = RequestProgress(sent if once_sent > seconds else None)
        try:
            with scope:
                return await ask(progress)
        except trio.Cancelled:
            if trio.current_time() - started >= SLOW_SECONDS:
                self.failed(EtcdUnavailable(endpoint, "it is slow"))
            raise
        except (EtcdUnavailable, EtcdOutcomeUnknown) as found:
            self.failed(found)
            raise
        kind = EtcdOutcomeUnknown if write and progress.sent else EtcdUnavailable
        waited = max(seconds, once_sent) if progress.sent else seconds
        late = kind(endpoint, f"no answer within {waited:.2g} s")
        self.failed(late)
        try:
            raise late
        finally:
            del late  # it holds this frame

    def failed(self, error: EtcdError) -> None:
        """Record a failure of an endpoint. A refusal, or another cluster's id, is an answer and no failure."""
        if not isinstance(error, EtcdRefused | EtcdForeign):
            self._endpoints.failed(error.endpoint, trio.current_time(), error.reason)


def _fair_share(left: float, to_ask: int) -> float:
    """How long the next endpoint may take; the last one all that is left."""
    return left if to_ask == 1 else min(left, ATTEMPT_SECONDS, max(SHORT_ATTEMPT_SECONDS, left / to_ask))


def none_of(failures: Mapping[str, EtcdUnavailable]) -> EtcdUnavailable:
    """The last failure of each endpoint, as one error."""
    errors = tuple(failures.values())
    if not errors:
        return EtcdForeign("", "every endpoint of etcd belongs to another cluster")
    if len(errors) == 1:
        return errors[0]
    kind = EtcdNoLeader if any(isinstance(error, EtcdNoLeader) for error in errors) else EtcdUnavailable
    return kind("", f"no endpoint of etcd can be used: {'; '.join(map(str, errors))}")
