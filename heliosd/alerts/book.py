"""Which alerts are due: the configured alerts over the conditions that hold.

1. Each alert is sent once for each occurrence of its condition.
2. `for` counts the time between the events of the log. So what began and ended while heliosd was down is judged as
   if it had been there; and what began before a restart goes on counting.
3. While heliosd runs, `for` is also measured on the monotonic clock: no leap of the wall clock makes an alert due.
4. After a pause of the process nothing is due before what happened meanwhile can be known.
5. An alert that is new in the configuration is sent for what holds then, but not for what happened before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import inf

import msgspec
from msgspec import Raw, Struct

from heliosd.clock import Instant, rfc3339
from heliosd.config.alert_condition import MOMENTS
from heliosd.config.model import AlertConfig
from heliosd.protocol.message import OutgoingMessage

from .conditions import DISAGREE_SECONDS, EVENT_TYPES, Closed, Conditions, ConditionState, Occurrence

SETTLE_SECONDS = 0.25
"""An event that ends a condition just in time may be read so long after it was logged."""


class Notification(Struct, frozen=True, kw_only=True):
    """What is sent for one alert, as JSON."""

    id: str
    """The same whenever this alert is sent for this occurrence, also by another daemon of the cluster."""
    alert: str
    when: str
    summary: str
    node: str
    """The daemon that sends it."""
    at: str
    """RFC 3339: when the condition began."""
    fired_at: str
    for_seconds: float
    subject: str
    """The peer's or leader's id, or ""."""
    event: Raw
    """The event that the condition began with, as on the WebSocket; null: it is not in the log (yet)."""
    repeated: bool = False
    """It may have been sent before."""


class _AlertState(Struct, kw_only=True):
    when: str
    done: dict[str, str] = {}
    """The occurrence that was sent, or is not to be sent, by subject."""
    since: float = 0.0
    """What the log has from until then, in Unix seconds, happened before this alert was in force. 0: nothing."""


class BookState(Struct, kw_only=True):
    """What of an `AlertBook` is stored."""

    epoch: str = ""
    seq: int = 0
    """The last event that was taken."""
    at: float = 0.0
    """When it was logged, in Unix seconds."""
    conditions: ConditionState
    alerts: dict[str, _AlertState] = {}


class AlertBook:
    """`fired` collects what is due; the caller takes it away. `changed`: something is to be stored."""

    def __init__(self, node: str, stored: bytes | None) -> None:
        state = BookState(conditions=ConditionState())
        if stored is not None:
            state = msgspec.json.decode(stored, type=BookState)
        self.state = state
        self.conditions = Conditions(node, state.conditions)
        self.fired: list[Notification] = []
        self.changed = False
        self._node = node
        self._alerts: Sequence[AlertConfig] = ()
        self._due: dict[tuple[str, str], float] = {}
        """Alert and ref -> when it is due, on the monotonic clock."""
        self._other_epoch, self._known_until = "", -inf
        """The numbering that is read and not followed yet, and the time of the cursor when that began."""
        self._silent_until = -inf
        """Until then only the log says what was due; on the monotonic clock."""

    def encode(self) -> bytes:
        """What goes on after a restart."""
        self.state.conditions = self.conditions.stored()
        return msgspec.json.encode(self.state)

    def knows(self, alert: AlertConfig) -> bool:
        """Whether it was in force before, with the same condition."""
        known = self.state.alerts.get(alert.name)
        return known is not None and known.when == str(alert.when)

    def configure(self, alerts: Sequence[AlertConfig], *, since: float = 0.0) -> None:
        """These alerts are in force from now on. `since`: what the log has from until then happened before those
        that are new; to be given where the log cannot be read yet."""
        held = {(alert.name, str(alert.when), alert.hold) for alert in self._alerts}
        before, self.state.alerts = self.state.alerts, {}
        for alert in alerts:
            when = str(alert.when)
            known = before.get(alert.name)
            if known is None or known.when != when:
                past = self.conditions.open(when) if when in MOMENTS else []
                known = _AlertState(when=when, done={each.subject: each.ref for each in past}, since=since)
            self.state.alerts[alert.name] = known
        # What is due when must stay: it would be reckoned anew by the wall clock, which may have leapt.
        same = {alert.name for alert in alerts if (alert.name, str(alert.when), alert.hold) in held}
        self._due = {key: due for key, due in self._due.items() if key[0] in same}
        self._alerts = alerts
        self.changed = True

    def apply(self, message: OutgoingMessage, epoch: str, now: Instant) -> None:
        """Take the next event of the log."""
        assert message.seq is not None
        if message.type in EVENT_TYPES:
            # What another log has from before this cursor's last event happened before.
            if epoch not in (self.state.epoch, self._other_epoch):
                self._other_epoch, self._known_until = epoch, self.state.at
            known = epoch != self.state.epoch and message.at <= self._known_until
            past = {name for name, alert in self.state.alerts.items() if known or message.at <= alert.since}
            self._judge(self.conditions.apply(message, epoch), now, past)
            self._fire_at_once(now, past)
            self.changed = True
        if epoch == self.state.epoch or message.at > self.state.at:
            self.state.at = message.at
        self.state.seq = message.seq

    def caught_up(self) -> None:
        """The whole log was taken: what it will have is news for every alert."""
        for alert in self.state.alerts.values():
            alert.since = 0.0

    def paused(self, now: Instant) -> None:
        """This process did not run for a while. What ended meanwhile is known soon, but not yet: until then
        nothing that is observed fires an alert."""
        self._silent_until = now.mono + DISAGREE_SECONDS
        self.conditions.paused()

    def judge(self, closed: Sequence[Closed], now: Instant) -> None:
        """Take what was closed by an observation, and fire what is due now."""
        silent = now.mono < self._silent_until
        self._judge([Closed(each.occurrence, None) for each in closed] if silent else closed, now)
        for alert, each in self._waiting():
            key = (alert.name, each.ref)
            if key not in self._due:
                left = min(max(0.0, alert.hold - (now.wall - each.at)), alert.hold)
                self._due[key] = now.mono + left
                self.changed = True
            settle = SETTLE_SECONDS if alert.hold else 0.0
            if not silent and now.mono >= self._due[key] + settle and self.conditions.agrees(each):
                self._fire(alert, each, now)

    def holds(self, name: str) -> int:
        """How many occurrences of this alert's condition hold that were sent."""
        state = self.state.alerts.get(name)
        if state is None or state.when in MOMENTS:
            return 0
        return sum(state.done.get(each.subject) == each.ref for each in self.conditions.open(state.when))

    def _waiting(self) -> Iterable[tuple[AlertConfig, Occurrence]]:
        for alert in self._alerts:
            state = self.state.alerts[alert.name]
            for each in self.conditions.open(state.when):
                if state.done.get(each.subject) != each.ref:
                    yield alert, each

    def _judge(self, closed: Sequence[Closed], now: Instant, past: Collection[str] = ()) -> None:
        """Fire what was due before it ended, but for the alerts in `past`. It held for so long if both clocks say
        so, where both were read."""
        for end in closed:
            each = end.occurrence
            for alert in self._alerts:
                state = self.state.alerts[alert.name]
                if state.when != each.kind:
                    continue
                due = self._due.pop((alert.name, each.ref), -inf)
                sent = state.done.pop(each.subject, "") == each.ref
                held = end.at is not None and alert.hold <= max(0.0, end.at - each.at) and now.mono >= due
                if held and not sent and alert.name not in past:
                    self._fire(alert, each, now, ended=True)
            self.changed = True

    def _fire_at_once(self, now: Instant, past: Collection[str]) -> None:
        """Before the next event can end them. The alerts in `past` get only what still holds at the end."""
        for alert, each in list(self._waiting()):
            if alert.name in past:
                if each.kind in MOMENTS:
                    self.state.alerts[alert.name].done[each.subject] = each.ref
            elif alert.hold == 0:
                self._fire(alert, each, now)

    def _fire(self, alert: AlertConfig, each: Occurrence, now: Instant, *, ended: bool = False) -> None:
        when = str(alert.when)
        if not ended:
            self.state.alerts[alert.name].done[each.subject] = each.ref
        self._due.pop((alert.name, each.ref), None)
        began = rfc3339(each.at)
        subject = f" {each.subject}" if each.subject else ""
        notification = Notification(
            id=f"{alert.name}/{when}/{each.ref}",
            alert=alert.name,
            when=when,
            summary=f"{alert.name}: {when}{subject} since {began}",
            node=self._node,
            at=began,
            fired_at=rfc3339(now.wall),
            for_seconds=alert.hold,
            subject=each.subject,
            event=each.event,
        )
        self.fired.append(notification)
        self.changed = True
