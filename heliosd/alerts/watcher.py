"""The task of the alerts: reads the event log from its own cursor, and sends what is due.

It looks at the hub's event log a few times a second, so nothing that it does can hold up the hub. The cursor, the
open conditions and what is due are stored in one transaction before anything is sent. Without alerts in the
configuration it only waits for some.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from itertools import islice
from math import inf

import msgspec
import trio

from heliosd.backoff import Backoff
from heliosd.clock import Instant
from heliosd.cluster.backend import Backend
from heliosd.config.model import AlertConfig, Settings
from heliosd.errors import NotDelivered
from heliosd.hub.event_log import EventLog
from heliosd.protocol.history import History
from heliosd.store.changes import Save, Saved, ValueSet

from .book import AlertBook
from .conditions import Observation
from .counters import AlertCounters
from .deliveries import Deliveries

STATE = "alerts/state"
"""The stored value: cursor, conditions and alerts."""
LOOK_SECONDS = 0.1
PAUSED_SECONDS = 1.0
"""A longer time between two looks was a pause, such as SIGSTOP or a suspended machine."""
OBSERVE_SECONDS = 0.25
"""Between two looks at the status and at the metrics."""
START_SECONDS = 5.0
"""After so long without a leader a start goes on, without what the log of the cluster may say."""
STORE_SECONDS = 10.0
"""A cursor that moved over events that open or close no condition is stored this often."""
RETRY_STORE_SECONDS = 1.0
"""After the disk refused."""
SLICE = 20
"""Events taken at once; then other tasks have their turn."""
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
GIVE_UP_SECONDS = 86_400.0
"""An alert that no attempt could send for so long is dropped."""
LOG_SECONDS = 60.0
"""Between two lines about one receiver that fails."""

log = logging.getLogger("heliosd")

Deliver = Callable[[AlertConfig, bytes], Awaitable[None]]


class AlertWatcher:
    """Sends the alerts of one daemon. `deliver` sends one alert, and raises `NotDelivered`."""

    def __init__(
        self,
        *,
        settings: Settings,
        event_log: EventLog,
        backend: Backend,
        saved: Saved,
        save: Save,
        deliver: Deliver,
        now: Callable[[], Instant],
        rng: random.Random,
    ) -> None:
        self.counters = AlertCounters()
        self._settings = settings
        self._log = event_log
        self._backend = backend
        self._deliver = deliver
        self._now = now
        self._rng = rng
        self._book = AlertBook(settings.current.node.id, saved.values.get(STATE))
        self._deliveries = Deliveries(saved, save, self.counters)
        self._history: History | None = None
        self._configured: tuple[AlertConfig, ...] | None = None
        self._senders: set[str] = set()
        self._ready = False
        self._stored_seq = 0
        self._store_at = self._observe_at = -inf
        self._looked_at = inf
        self._changed = trio.Event()
        settings.on_change(self._wake)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as senders:
            started = trio.current_time()
            while True:
                alerts = self._settings.current.alert
                if alerts != self._configured:
                    await self._configure(alerts)
                if not alerts:
                    if not self._settings.current.alert:  # they may have come meanwhile
                        await self._changed.wait()
                    continue
                self._start_senders(senders)
                self._ready = self._ready or self._backend.not_ready() is None
                await self._look(observe=self._ready or trio.current_time() - started > START_SECONDS)
                await trio.sleep(LOOK_SECONDS)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _configure(self, alerts: tuple[AlertConfig, ...]) -> None:
        names = [alert.name for alert in alerts]
        await self._deliveries.keep_only(names)
        if not alerts:
            self._configured, self._history = alerts, None
            self.counters.holding = {}
            self._book = AlertBook(self._settings.current.node.id, None)
            await self._deliveries.put([], ValueSet(STATE, None))
            return
        if not self._ready:
            with trio.move_on_after(START_SECONDS):
                await self._log.wait_readable()
                while not self._observation().complete:  # noqa: ASYNC110 (the backend signals nothing)
                    await trio.sleep(LOOK_SECONDS)
        # Who may vote is not in the log, and whether the quorum was at risk depends on it.
        self._book.conditions.observed = self._observation()
        # What holds is known before an alert that is new is in force.
        self._book.configure([alert for alert in alerts if self._book.knows(alert)])
        await self._read()
        self._book.configure(alerts, since=0.0 if self._log.readable else self._now().wall)
        self._configured, self._looked_at = alerts, inf
        self.counters.holding = {name: self._book.holds(name) for name in names}

    def _start_senders(self, senders: trio.Nursery) -> None:
        """Those that are missing: a sender may have ended because its alert was out of the configuration for so
        short a time that nothing else saw it."""
        for alert in self._configured or ():
            if alert.name not in self._senders:
                self._senders.add(alert.name)
                senders.start_soon(self._send_all, alert.name)

    def _observation(self) -> Observation:
        return Observation.of(self._backend.status(), complete=self._backend.complete)

    async def _look(self, *, observe: bool) -> None:
        """Take what has happened since the last look, store it, and hand over what is due."""
        now = self._now()
        if now.mono - self._looked_at > PAUSED_SECONDS:
            self._book.paused(now)
        if observe and now.mono >= self._observe_at:
            self._observe_at = now.mono + OBSERVE_SECONDS
            self._book.conditions.observed = self._observation()
        await self._read()
        if observe:
            now, conditions = self._now(), self._book.conditions
            wanted = [alert.when for alert in self._settings.current.alert]
            metrics = self._backend.metrics
            views = {each.metric: metrics.view(each.metric) for each in wanted if each.metric in metrics}
            closed = conditions.observe(conditions.observed, now)
            self._book.judge([*closed, *conditions.observe_metrics(wanted, views, now)], now)
        await self._store()
        # A disk that takes its time is no pause of this process.
        self._looked_at = self._now().mono

    async def _read(self) -> None:
        """Apply the events beyond the cursor."""
        if not self._log.readable:
            return
        while True:
            last = self._log.history
            if self._history is not None and self._history is not last:
                # Another numbering, or events that will never come. What was in the one before comes first.
                await self._read_from(self._history)
            self._history = last
            await self._read_from(last)
            if self._log.history is last:
                self._book.caught_up()
                return

    async def _read_from(self, history: History) -> None:
        state, book = self._book.state, self._book
        if history.epoch != state.epoch:
            if state.epoch:
                log.warning("alerts follow another event log", extra={"epoch": history.epoch})
            state.seq = history.oldest_seq - 1
        while state.seq != history.seq or state.epoch != history.epoch:
            if not history.oldest_seq - 1 <= state.seq <= history.seq:
                self._missed(history)
            now = self._now()
            for event in list(islice(history.after(state.seq), SLICE)):
                book.apply(event, history.epoch, now)
            if state.seq == history.seq:
                state.epoch = history.epoch
            await trio.lowlevel.checkpoint()

    def _missed(self, history: History) -> None:
        state = self._book.state
        missed = max(0, history.oldest_seq - 1 - state.seq)
        self.counters.missed_events += missed
        log.warning("events were gone before alerts saw them", extra={"events": missed})
        state.seq = history.oldest_seq - 1 if missed else history.seq

    async def _store(self) -> None:
        now = trio.current_time()
        fired, self._book.fired = self._book.fired, []
        for notification in fired:
            self.counters.fired[notification.alert] += 1
            log.warning("alert due", extra={"alert": notification.alert, "id": notification.id})
        moved = self._book.state.seq != self._stored_seq or self._deliveries.unsaved
        if self._book.changed or (moved and now >= self._store_at):
            self._book.changed = False
            self._stored_seq = self._book.state.seq
            await self._deliveries.put(fired, ValueSet(STATE, self._book.encode()))
            again = RETRY_STORE_SECONDS if self._deliveries.unsaved else STORE_SECONDS
            self._store_at = trio.current_time() + again
        for alert in self._settings.current.alert:
            self.counters.holding[alert.name] = self._book.holds(alert.name)

    def _alert(self, name: str) -> AlertConfig | None:
        return next((alert for alert in self._settings.current.alert if alert.name == name), None)

    async def _send_all(self, name: str) -> None:
        """Send what waits for one alert, one after another, until it is configured no more."""
        backoff = Backoff(self._rng, first=FIRST_RETRY_SECONDS, longest=LONGEST_RETRY_SECONDS)
        logged = -LOG_SECONDS
        while True:
            waiting = await self._deliveries.next(name)
            alert = self._alert(name)
            if alert is None:
                self._senders.discard(name)
                return
            now = trio.current_time()
            if waiting.tried_since is None:
                waiting.tried_since = now
            try:
                await self._deliver(alert, msgspec.json.encode(waiting.notification))
            except NotDelivered as failure:
                self.counters.failures[name] += 1
                wait = backoff.seconds()
                if now - logged >= LOG_SECONDS:
                    logged = now
                    reason = {"alert": name, "reason": str(failure), "failures": backoff.failures}
                    log.warning("alert not sent; it will be tried again", extra=reason)
                if now - waiting.tried_since > GIVE_UP_SECONDS:
                    await self._deliveries.remove(waiting, "too_old")
                else:
                    self._deliveries.retry_later(waiting)
                await trio.sleep(wait)
            else:
                self.counters.sent[name] += 1
                if backoff.failures:
                    log.info("alerts are sent again", extra={"alert": name, "failures": backoff.failures})
                    logged = -LOG_SECONDS
                backoff.reset()
                await self._deliveries.remove(waiting)
