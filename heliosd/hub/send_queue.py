"""All that waits for one client, and the order in which it goes. The rules are in docs/protocol.md, "Order".

1. Answers (`Kind.CONTROL`) and the stream (all else) go in one order, each message behind what was put before.
2. Of a value only the newest waits: it takes the older one's place at the end. Values of custom metrics merge by
   name. A status removes the values that it contains, a deletion those of its metric.
3. When it is full (`put` returns False) `drop_stream` removes the stream. Until `resume_stream` events are counted
   instead of queued; the gap that follows names them all, and those of an earlier gap that still waits.
4. While a client is held only answers go, and none before its first message. `answers_first` puts those that wait
   ahead of what was held, behind that message.
5. With a new subscription `narrow` removes what it does not want.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from msgspec import UNSET, Struct, UnsetType

from heliosd.protocol.message import Kind, OutgoingMessage, deleted_metrics, merged, without_metrics
from heliosd.protocol.server_messages import ClientId
from heliosd.protocol.subscription import Subscription

MAX_QUEUED_BYTES = 1024 * 1024

CUSTOM_METRICS = "custom_metrics"
Question = ClientId | None
"""What a client asked a status by: the id of its question, None where it gave none."""

IN_STATUS = (CUSTOM_METRICS, "status_update")
"""Types of values that a status contains."""
CONFLATED_FRAMES = frozenset({"ping frame", "pong frame"})
"""Protocol frames of which only the newest matters (RFC 6455 section 5.5.3)."""


class DroppedEvents(Struct, frozen=True):
    """Events that a client will not get: `events` of them, from one number to another."""

    from_seq: int
    to_seq: int
    events: int

    def and_then(self, later: DroppedEvents) -> DroppedEvents:
        return DroppedEvents(self.from_seq, later.to_seq, self.events + later.events)


@dataclass(slots=True, eq=False)
class SendQueue:
    """Bounded by `limit` messages and `MAX_QUEUED_BYTES`. Outside of the limits are a replay, a gap with its
    status, pings and pongs, answers while other threads write to the client, and the close frame."""

    _limit: int
    # A dict keeps order; a value is keyed by its type, everything else by a number of its own.
    _messages: dict[int | str, OutgoingMessage] = field(default_factory=dict)
    _front: deque[OutgoingMessage] = field(default_factory=deque)
    """Goes before `_messages`: a replay, and answers that must not wait behind it."""
    _serial: Iterator[int] = field(default_factory=count)
    _gaps: dict[int | str, DroppedEvents] = field(default_factory=dict)
    """What the gaps among the messages name, by key."""
    _questions: dict[int | str, Question] = field(default_factory=dict)
    """Statuses that answer a question, by key, with the question: if dropped they are made anew."""
    dropping: bool = False
    """From `drop_stream` to `resume_stream`."""
    dropped: DroppedEvents | None = None
    """While dropping: the events that the next gap must name."""
    ungreeted: bool = False
    """The first message to its client waits, or was dropped: a status or a welcome must go ahead of any answer."""
    only_answers: bool = False
    """It is full of answers: its client asks and does not read, so there is nothing to catch up on."""
    lost: int = 0
    """Events that were dropped, for the owner to count and to set back."""
    size: int = 0
    """Bytes that wait, without the replay."""

    def __len__(self) -> int:
        """Messages that wait, without the replay."""
        return len(self._messages)

    @property
    def waiting(self) -> int:
        """All messages that wait."""
        return len(self._messages) + len(self._front)

    @property
    def asked(self) -> bool:
        """Whether a status that answers a question is among them."""
        return bool(self._questions)

    @property
    def events(self) -> int:
        """How many of them are events."""
        return sum(m.seq is not None for m in (*self._front, *self._messages.values()))

    # -- in ------------------------------------------------------------------------------------------------------

    def put(self, message: OutgoingMessage, question: Question | UnsetType = UNSET) -> bool:
        """Queue `message` at the end. False: full, and it is not queued. `question` is the one that a status
        answers."""
        if self.dropping and message.kind in {Kind.EVENT, Kind.VALUE, Kind.STATUS} and question is UNSET:
            self._drop(message)  # the status of `resume_stream` says the same as a snapshot, or newer
            return True
        key: int | str = next(self._serial)
        if self.dropping and question is not UNSET:
            # `resume_stream` makes the status: this one would be older than the one before it.
            message = STATUS_DUE
        if message.kind is Kind.VALUE or message.type in CONFLATED_FRAMES:
            key = message.type
            older = self._remove(key)
            if older is not None and key == CUSTOM_METRICS:
                message = merged(older, message)
        elif message.kind is Kind.STATUS:
            for name in IN_STATUS:
                self._remove(name)
        elif CUSTOM_METRICS in self._messages and (deleted := deleted_metrics(message)):
            self._replace(CUSTOM_METRICS, without_metrics(self._messages[CUSTOM_METRICS], deleted))
        full = len(self._messages) >= self._limit or self.size + len(message.payload) > MAX_QUEUED_BYTES
        if full and message.type not in CONFLATED_FRAMES:  # of those at most two wait
            return False
        self._add(key, message)
        if question is not UNSET:
            self._questions[key] = question
        return True

    def put_beyond_limits(self, message: OutgoingMessage) -> None:
        """Queue `message` whatever the limits say: the close frame, an answer while other threads write to the
        client, a welcome or a status after `drop_stream`."""
        self._add(next(self._serial), message)

    def put_replay(self, messages: Iterable[OutgoingMessage]) -> None:
        """What goes before all else, outside of the limits; its first message is the first that the client gets."""
        self.ungreeted = True
        self._front.extend(messages)

    def put_gap(self, gap: OutgoingMessage, names: DroppedEvents, status: OutgoingMessage) -> None:
        """Queue a gap and a status whatever the limits say. While dropping the next gap names these events too."""
        if self.dropping:
            self._name(names)
            return
        key = next(self._serial)
        self._gaps[key] = names
        self._add(key, gap)
        for name in IN_STATUS:
            self._remove(name)
        self._add(next(self._serial), status)

    # -- out -----------------------------------------------------------------------------------------------------

    def has(self, *, answers_only: bool = False) -> bool:
        """Whether `pop` would return something."""
        if self._front and (not answers_only or self.goes_while_held(self._front[0])):
            return True
        return self._next(answers_only=answers_only) is not None

    def pop(self, *, answers_only: bool = False) -> OutgoingMessage | None:
        """The next message that may go, removed; None if there is none."""
        if self._front and (not answers_only or self.goes_while_held(self._front[0])):
            message = self._front.popleft()
        else:
            key = self._next(answers_only=answers_only)
            if key is None:
                return None
            message = self._take(key)
        self.ungreeted = self.ungreeted and message.kind is Kind.CONTROL
        return message

    def goes_while_held(self, message: OutgoingMessage) -> bool:
        """Whether `message` may go to a client whose token has expired: a protocol frame, and an answer, unless
        nothing has gone to it yet."""
        return message.kind is Kind.CONTROL and not (self.ungreeted and message.payload)

    def _take(self, key: int | str) -> OutgoingMessage:
        message = self._messages[key]
        self._remove(key)
        self._gaps.pop(key, None)
        self._questions.pop(key, None)
        return message

    def _next(self, *, answers_only: bool) -> int | str | None:
        if self.dropping:
            return None
        for key, message in self._messages.items():
            if not answers_only or self.goes_while_held(message):
                return key
        return None

    # -- what is dropped -----------------------------------------------------------------------------------------

    def drop_stream(self, *, epoch: bool = False) -> None:
        """Remove all but answers and a welcome; if the `epoch` has changed that too, and the replay. Statuses that
        answer a question keep their place. Until `resume_stream` nothing goes but the replay."""
        self.dropping = True
        if epoch:
            self.lost += sum(m.seq is not None for m in self._front)
            answers = [m for m in self._front if m.kind is Kind.CONTROL]
            self._front.clear()
            if self.ungreeted:  # behind the welcome that `resume_stream` puts
                waiting, self._messages = self._messages, {}
                for message in answers:
                    self._add(next(self._serial), message)
                self._messages |= waiting
            else:
                self._front.extend(answers)
        for key, message in list(self._messages.items()):
            if key in self._questions:
                self._replace(key, STATUS_DUE)
            elif key in self._gaps:
                self._remove(key)
                self._name(self._gaps.pop(key))
            elif message.kind is not Kind.CONTROL and (epoch or message.kind is not Kind.BOUNDARY):
                self._remove(key)
                self._drop(message)

    def refuse(self, message: OutgoingMessage, question: Question | UnsetType = UNSET) -> None:
        """`put` did not take it, and the stream has been dropped since: queue an answer, drop all else."""
        if message.kind is Kind.CONTROL:
            self.only_answers = not self.put(message)
        elif question is not UNSET:
            asked = len(self._questions) + 1
            too_many = len(self._messages) >= self._limit or asked * len(message.payload) > MAX_QUEUED_BYTES
            if asked > 1 and too_many:
                self.only_answers = True
                return
            key = next(self._serial)
            self._add(key, STATUS_DUE)
            self._questions[key] = question
        else:
            self._drop(message)

    def resume_stream(
        self,
        status: Callable[[Question | UnsetType], OutgoingMessage],
        *,
        welcome: OutgoingMessage | None = None,
        gap: OutgoingMessage | None = None,
    ) -> None:
        """Queue a welcome or a gap (for what was `dropped`), a status, and the answers that wait, with new statuses
        where they were dropped. From here on the stream is queued again."""
        answers, self._messages, self.size = self._messages, {}, 0
        questions, self._questions = self._questions, {}
        dropped, self.dropped, self.dropping = self.dropped, None, False
        for key in [key for key, message in answers.items() if message.kind is Kind.BOUNDARY]:
            self._add(key, answers.pop(key))  # a welcome: what is dropped comes after it
        if gap is not None and dropped is not None:
            self.put_gap(gap, dropped, status(UNSET))
        else:
            if welcome is not None:
                self.put_beyond_limits(welcome)
            self.put_beyond_limits(status(UNSET))
        for key, message in answers.items():
            if message is STATUS_DUE:
                self._questions[key] = questions[key]
                self._add(key, status(questions[key]))
            else:
                self._add(key, message)

    def clear(self) -> None:
        """Drop all that waits."""
        self.lost += self.events
        self.dropping, self.dropped = False, None
        for waiting in (self._messages, self._front, self._gaps, self._questions):
            waiting.clear()
        self.size = 0

    def _drop(self, message: OutgoingMessage) -> None:
        if message.seq is not None:
            self.lost += 1
            self._name(DroppedEvents(message.seq, message.seq, 1))

    def _name(self, dropped: DroppedEvents) -> None:
        self.dropped = dropped if self.dropped is None else self.dropped.and_then(dropped)

    # -- a new token, a new subscription -------------------------------------------------------------------------

    def answers_first(self) -> None:
        """Put the answers that wait ahead of everything else, behind those that are there already and behind the
        first message to the client. While that is to be made anew (`resume_stream`) they keep their place."""
        first: list[OutgoingMessage] = []
        if self.ungreeted and self._front:
            first.append(self._front.popleft())
        elif self.ungreeted:
            greeting = next((key for key, m in self._messages.items() if m.kind is not Kind.CONTROL), None)
            if greeting is None:
                return
            first.append(self._take(greeting))
        while self._front and self._front[0].kind is Kind.CONTROL:
            first.append(self._front.popleft())
        for key, message in list(self._messages.items()):
            if message.kind is Kind.CONTROL and message is not STATUS_DUE:
                first.append(self._take(key))
        self._front.extendleft(reversed(first))

    def narrow(self, subscription: Subscription, *, events: bool) -> None:
        """Remove what `subscription` does not want: of the values, and of the events too if `events`."""
        for key, message in list(self._messages.items()):
            if message.kind is Kind.VALUE or (events and message.kind is Kind.EVENT):
                self._replace(key, message.filtered_for(subscription))
        if events:
            kept = [m if m.kind is not Kind.EVENT else m.filtered_for(subscription) for m in self._front]
            self._front = deque(m for m in kept if m is not None)

    # ------------------------------------------------------------------------------------------------------------

    def _add(self, key: int | str, message: OutgoingMessage) -> None:
        self._messages[key] = message
        self.size += len(message.payload)

    def _replace(self, key: int | str, message: OutgoingMessage | None) -> None:
        """Put another message, or none, in the place of one."""
        if message is None:
            self._remove(key)
        else:
            self.size += len(message.payload) - len(self._messages[key].payload)
            self._messages[key] = message

    def _remove(self, key: int | str) -> OutgoingMessage | None:
        message = self._messages.pop(key, None)
        if message is not None:
            self.size -= len(message.payload)
        return message


STATUS_DUE = OutgoingMessage.of_frame("status due", b"")
"""Keeps the place of a status that `resume_stream` makes."""
