"""Resuming: which events were received, which are repeated, which are missing. Pure.

A `ResumeState` outlives connections. `query` gives the parameters of the next connection, `connected` begins it,
and `take` gets its messages in order and returns what the user is to see. Rules:

1. A connection begins with `welcome`, which says whether the missed events follow.
2. Within a connection seq only rises; events that a resumed connection repeats are dropped.
3. Missing events give a `Gap` in their place: the daemon's own `gap`, a `welcome` with `recovered: false`, or a
   hole in the numbers.
4. `cursor` covers exactly what `take` has returned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from heliosd.errors import BAD_JSON, NotUnderstood
from heliosd.protocol.history import EPOCH_PATTERN, MAX_SEQ, Cursor
from heliosd.protocol.message_data import WelcomeData

HOLE = "hole"
"""The reason of a `Gap` that the daemon did not announce."""
TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as the daemon sent it."""

    type: str
    seq: int | None
    """An event's number; None on everything else."""
    timestamp: str
    """RFC 3339 in UTC."""
    data: Any
    """Decoded JSON; None if there is none."""
    raw: str = field(repr=False)
    """The message exactly as it was received."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that are lost to this client: all from `from_seq` to `to_seq`. `status` follows.

    With a `previous_epoch` the numbering has changed: missing are all from `from_seq` on of the previous epoch,
    and those up to `to_seq` of the present one. With reason `ahead` the daemon has fewer events than were received
    from it before (its data was set back).
    """

    epoch: str
    from_seq: int
    to_seq: int
    reason: str
    """`slow_consumer`, `epoch_changed`, `too_old`, `too_many`, `ahead`, or `hole`: not announced by the daemon."""
    dropped: int | None = None
    """How many of them the subscription would have let through; None: unknown."""
    previous_epoch: str | None = None
    raw: str | None = field(default=None, repr=False)
    """The daemon's `gap` message, if there was one."""


class OutOfOrder(Exception):
    """An event's number is not higher than the one before: this connection cannot be used, the next one resumes."""


class _ReceivedEnvelope(msgspec.Struct, frozen=True):
    type: str
    timestamp: str = ""
    seq: int | None = None
    data: Any = None


class _GapData(msgspec.Struct, frozen=True):
    from_seq: int
    to_seq: int
    reason: str
    dropped: int | None = None


_decode = msgspec.json.Decoder(_ReceivedEnvelope).decode


def read(text: str | bytes) -> Message:
    """One message of the wire. Raises `NotUnderstood`."""
    try:
        envelope = _decode(text)
        raw = text if isinstance(text, str) else text.decode()
    except BAD_JSON as wrong:
        raise NotUnderstood(f"the daemon sent something that is no message: {wrong}") from wrong
    return Message(envelope.type, envelope.seq, envelope.timestamp, envelope.data, raw)


def cursor_text(cursor: Cursor) -> str:
    """`EPOCH:SEQ`, as `parse_cursor` reads it."""
    return f"{cursor.epoch}:{cursor.after}"


def parse_cursor(text: str) -> Cursor:
    """The cursor that `EPOCH:SEQ` names. Raises ValueError."""
    epoch, _, seq = text.rpartition(":")
    if not EPOCH_PATTERN.fullmatch(epoch) or not seq.isascii() or not seq.isdecimal() or len(seq) > 16:
        raise ValueError(f"not EPOCH:SEQ: {text!r}")
    if int(seq) > MAX_SEQ:
        raise ValueError(f"a seq is below 2^53: {text!r}")
    return Cursor(epoch, int(seq))


class ResumeState:
    """The state of one follower. `whole`: it gets every event, so that a hole in the numbers is a loss."""

    def __init__(self, since: Cursor | None, *, whole: bool) -> None:
        self._whole = whole
        self._epoch = "" if since is None or since.after is None else since.epoch
        self._seq = 0 if since is None or since.after is None else since.after
        self._seen = 0
        self._welcomed = False
        self._replay_left = 0
        self._replay_until = 0
        self.missing_until: int | None = None
        """Set by a `welcome` with too many events to replay. Pass the events up to this number, from the daemon's
        history, to `take` and then call `caught_up`; or call `give_up`."""

    @property
    def cursor(self) -> Cursor | None:
        """The point to resume from; None until the first `welcome`."""
        return Cursor(self._epoch, self._seq) if self._epoch else None

    def query(self) -> dict[str, str]:
        """The parameters with which a connection resumes where the last one ended."""
        if not self._epoch:
            return {"after": "now"}
        return {"epoch": self._epoch, "after": str(self._seq)}

    def connected(self) -> None:
        """A new connection with the parameters of `query` has begun."""
        self._welcomed = False
        self._seen = 0
        self._replay_left = 0
        self.missing_until = None

    def take(self, message: Message) -> list[Message | Gap]:
        """The items to show for the next message. Raises `NotUnderstood` and `OutOfOrder`."""
        if message.type == "welcome":
            return self._welcome(message)
        if not self._welcomed:
            raise NotUnderstood("the daemon did not begin with a welcome: it cannot resume")
        if message.type == "gap":
            return self._gap(message)
        if message.type == "status":
            return [*self._holes_before_status(message), message]
        if message.seq is not None:
            return self._event(message, message.seq)
        return [message]

    def caught_up(self) -> list[Message | Gap]:
        """All available events up to `missing_until` were taken; a `Gap` for those that are missing."""
        assert self.missing_until is not None
        until, self.missing_until = self.missing_until, None
        holes = self._holes(until) if self._whole else []
        self._pass(until)
        return holes

    def give_up(self, reason: str = TOO_MANY) -> Gap:
        """The events up to `missing_until` cannot be fetched; the `Gap` for them."""
        assert self.missing_until is not None
        gap = Gap(self._epoch, self._seq + 1, self.missing_until, reason)
        self._pass(self.missing_until)
        self.missing_until = None
        return gap

    def _welcome(self, message: Message) -> list[Message | Gap]:
        try:
            welcome = msgspec.convert(message.data, WelcomeData)
        except msgspec.ValidationError as wrong:
            raise NotUnderstood(f"the daemon's welcome is not one: {wrong}") from wrong
        first, self._welcomed = not self._welcomed, True
        stays = welcome.epoch == self._epoch
        if first and not self._epoch:
            # No replay was asked for, only the present position.
            self._begin(welcome)
            return [message]
        if stays and welcome.recovered:
            self._replay_left = welcome.replayed
            self._replay_until = welcome.seq
            return [message]
        if stays and welcome.reason == TOO_MANY:
            self.missing_until = welcome.seq
            return [message]
        gap = Gap(
            welcome.epoch,
            self._seq + 1,
            welcome.seq,
            (welcome.reason or HOLE) if stays else "epoch_changed",
            previous_epoch=None if stays else self._epoch,
        )
        self._begin(welcome)
        return [message, gap]

    def _begin(self, welcome: WelcomeData) -> None:
        self._epoch = welcome.epoch
        self._seq = self._seen = welcome.seq
        self._replay_left = 0

    def _gap(self, message: Message) -> list[Message | Gap]:
        try:
            gap_data = msgspec.convert(message.data, _GapData)
        except msgspec.ValidationError as wrong:
            raise NotUnderstood(f"the daemon's gap is not one: {wrong}") from wrong
        gap = Gap(
            self._epoch,
            gap_data.from_seq,
            gap_data.to_seq,
            gap_data.reason,
            dropped=gap_data.dropped,
            raw=message.raw,
        )
        holes = self._holes(gap_data.from_seq - 1) if self._whole else []
        self._pass(gap_data.to_seq)
        return [*holes, gap]

    def _event(self, message: Message, seq: int) -> list[Message | Gap]:
        if seq <= self._seen:
            raise OutOfOrder(f"event {seq} came after event {self._seen}")
        self._seen = seq
        self._replay_left = max(0, self._replay_left - 1)
        if seq <= self._seq:
            return []
        holes = self._holes(seq - 1) if self._whole else []
        self._seq = seq
        return [*holes, message]

    def _holes_before_status(self, status: Message) -> list[Message | Gap]:
        """`status` follows all events that it includes, so it shows which did not arrive."""
        as_of = status.data.get("as_of_seq") if isinstance(status.data, dict) else None
        if not isinstance(as_of, int) or self.missing_until is not None:
            return []
        lost: list[Message | Gap] = []
        if self._replay_left:
            lost = self._holes(self._replay_until)
            self._replay_left = 0
        elif self._whole:
            lost = self._holes(as_of)
        self._pass(as_of)
        return lost

    def _holes(self, until: int) -> list[Message | Gap]:
        if until <= self._seq:
            return []
        gap = Gap(self._epoch, self._seq + 1, until, HOLE)
        self._pass(until)
        return [gap]

    def _pass(self, seq: int) -> None:
        """No event up to `seq` follows any more."""
        self._seq = max(self._seq, seq)
        self._seen = max(self._seen, seq)
