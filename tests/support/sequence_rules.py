"""What a stream of messages must hold so that its client has seen every event, or knows which it has not.

Pure: messages in, a `Violation` out. `sequence_checker.py` puts these rules to a running daemon. They are for a
client that is subscribed to everything, and know nothing of heliosd but its protocol.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import Any

CONTROL = frozenset({"pong", "subscribed", "error", "token_expiring", "authenticated"})
"""Answers to one client: they may stand anywhere behind the first message."""
MAX_REPLAY_EVENTS = 1000
MAX_REPLAY_BYTES = 1024 * 1024


class Violation(Exception):
    """A promise that was broken. `rule` is one of a few fixed words, for programs; the text is for people."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


@lru_cache(maxsize=4096)
def parsed(raw: bytes) -> Mapping[str, Any]:
    """A message, decoded once for all clients that got the same bytes. Not to be changed."""
    message = json.loads(raw)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Violation("malformed", f"not a message: {raw[:200]!r}")
    return message


@lru_cache(maxsize=4096)
def digest(raw: bytes) -> bytes:
    """The same for two messages that mean the same, however they are written."""
    canonical = json.dumps(parsed(raw), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(canonical, digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: bytes
    raw: bytes
    by: str


class Ledger:
    """What every client received under each number, shared by all clients: no number ever means two things."""

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._entries: dict[tuple[str, int], _Entry] = {}
        self._newest: dict[str, int] = {}

    def enter(self, epoch: str, seq: int, raw: bytes, by: str) -> None:
        """`by` received `raw` under this number. Raises `Violation` if another client received something else."""
        entry = self._entries.get((epoch, seq))
        if entry is None:
            self._entries[epoch, seq] = _Entry(digest(raw), raw, by)
            self._newest[epoch] = max(seq, self._newest.get(epoch, 0))
            if self._keep is not None and (old := self._entries.get((epoch, seq - self._keep))) is not None:
                # The digest stays for good, the words only for a while.
                self._entries[epoch, seq - self._keep] = _Entry(old.digest, b"", old.by)
        elif entry.digest != digest(raw):
            first = entry.raw.decode() or "(no longer kept)"
            raise Violation(
                "changed content",
                f"{epoch}:{seq} is two things\n  {entry.by} received: {first}\n  {by} received: {raw.decode()}",
            )

    def newest(self, epoch: str) -> int:
        """The highest number that any client received; 0 = none."""
        return self._newest.get(epoch, 0)

    def bytes_between(self, epoch: str, first: int, last: int) -> int | None:
        """How long the events from `first` to `last` are together; None if not all of them are known."""
        entries = [self._entries.get((epoch, seq)) for seq in range(first, last + 1)]
        return None if None in entries else sum(len(entry.raw) for entry in entries if entry is not None)

    def events(self, epoch: str) -> dict[int, Mapping[str, Any]]:
        """All that was received in an epoch and is kept, by number."""
        return {
            seq: parsed(entry.raw) for (of, seq), entry in self._entries.items() if of == epoch and entry.raw
        }

    def __len__(self) -> int:
        return len(self._entries)


class _Due(Enum):
    WELCOME = auto()
    REPLAY = auto()
    STATUS = auto()
    ANYTHING = auto()


@dataclass(slots=True)
class Seen:
    """What one client has seen; `+` adds up."""

    deliveries: int = 0
    """Events, replayed ones included."""
    replayed: int = 0
    resumes: int = 0
    """Connections that got `recovered: true` for a place to resume from."""
    refusals: Counter[str] = field(default_factory=Counter)
    gaps: int = 0
    named: int = 0
    """Events that the client knows it has not seen: by a gap, or by `recovered: false` in the same epoch."""
    epochs: int = 0

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            deliveries=self.deliveries + other.deliveries,
            replayed=self.replayed + other.replayed,
            resumes=self.resumes + other.resumes,
            refusals=self.refusals + other.refusals,
            gaps=self.gaps + other.gaps,
            named=self.named + other.named,
            epochs=self.epochs + other.epochs,
        )


class Follower:
    """One client over all its connections. `dial` before each, then every message of it into `take`."""

    def __init__(self, name: str, ledger: Ledger, *, hops: bool = False) -> None:
        self.name = name
        self._hops = hops
        """It goes from one daemon to another, of which each may be a moment behind what another has sent."""
        self.epoch = ""
        self.position: int | None = None
        """Every event up to here has been seen or is known to be missing; None before the first connection."""
        self.seen = Seen()
        self._ledger = ledger
        self._due = _Due.WELCOME
        self._replay_left = 0
        self._floor: tuple[str, int] = ("", 0)

    def dial(self) -> dict[str, str]:
        """The query for the next connection: where to go on."""
        self._due = _Due.WELCOME
        # Whatever any client received before this client connects was durable then, and stays.
        newest = self.position or 0 if self._hops else self._ledger.newest(self.epoch)
        self._floor = self.epoch, newest
        if self.position is None:
            return {"after": "now"}
        return {"epoch": self.epoch, "after": str(self.position)}

    def take(self, raw: bytes) -> None:
        """The next message. Raises `Violation`."""
        message = parsed(raw)
        kind = message["type"]
        if self._due is _Due.WELCOME:
            if kind != "welcome":
                raise self._violation("no welcome", f"the first message is {kind}")
            self._welcomed(message["data"])
        elif "seq" in message:
            self._event(message["seq"], raw)
        elif kind == "gap":
            self._gap(message["data"])
        elif kind == "welcome":
            self._renumbered(message["data"])
        elif kind == "status":
            self._status(message["data"]["as_of_seq"])
        elif kind not in CONTROL and self._due is not _Due.ANYTHING:
            raise self._violation(
                "wrong order",
                f"{kind} where {self._replay_left or 'no'} replayed events and then status are due",
            )

    def _welcomed(self, data: Mapping[str, Any]) -> None:
        epoch, seq, replayed = data["epoch"], data["seq"], data["replayed"]
        if epoch == self._floor[0] and seq < self._floor[1]:
            raise self._violation(
                "went back",
                f"seq is {seq}, but {epoch}:{self._floor[1]} had been received before this client connected",
            )
        if data["recovered"]:
            self._recovered(data)
        else:
            self._refused(data)
        if self.epoch != epoch:
            self.seen.epochs += 1
        self.epoch = epoch
        self._replay_left = replayed
        self._due = _Due.REPLAY if replayed else _Due.STATUS

    def _recovered(self, data: Mapping[str, Any]) -> None:
        epoch, seq, replayed = data["epoch"], data["seq"], data["replayed"]
        if data["reason"] is not None:
            raise self._violation("malformed", f"recovered: true with reason {data['reason']!r}")
        if self.position is None:
            if replayed:
                raise self._violation("wrong recovered", f"after=now replays {replayed} events")
            self.position = seq
            return
        if epoch != self.epoch:
            raise self._violation(
                "wrong recovered", f"recovered: true, but the epoch is {epoch}, not {self.epoch}"
            )
        if replayed != seq - self.position or (data["oldest_seq"] > self.position + 1 and replayed):
            raise self._violation(
                "wrong recovered",
                f"recovered: true after {self.position} with seq {seq} and oldest_seq {data['oldest_seq']}, "
                f"but {replayed} events are replayed",
            )
        self.seen.resumes += 1
        self.seen.replayed += replayed

    def _refused(self, data: Mapping[str, Any]) -> None:
        epoch, seq, reason = data["epoch"], data["seq"], data["reason"]
        at = self.position
        if data["replayed"]:
            raise self._violation("wrong recovered", f"recovered: false, but {data['replayed']} are replayed")
        if at is None:
            raise self._violation("wrong refusal", "after=now is not recovered")
        missed = seq - at
        if reason == "epoch_changed":
            holds = epoch != self.epoch
        elif reason == "too_old":
            holds = epoch == self.epoch and at < data["oldest_seq"] - 1
        elif reason == "too_many":
            size = self._ledger.bytes_between(epoch, at + 1, seq)
            holds = epoch == self.epoch and (
                missed > MAX_REPLAY_EVENTS or size is None or size > MAX_REPLAY_BYTES
            )
        else:  # `ahead` cannot be: the place to go on from came from this daemon
            holds = False
        if not holds:
            raise self._violation("wrong refusal", f"{reason} after {self.epoch}:{at}, answered with {data}")
        self.seen.refusals[reason] += 1
        if epoch == self.epoch:
            self.seen.named += missed
        self.position = seq

    def _renumbered(self, data: Mapping[str, Any]) -> None:
        """A welcome in the middle: a new epoch has begun."""
        if data["recovered"] or data["epoch"] == self.epoch or data["reason"] != "epoch_changed":
            raise self._violation("wrong recovered", f"a welcome in the middle of a connection: {data}")
        self.seen.refusals["epoch_changed"] += 1
        self.seen.epochs += 1
        self.epoch, self.position = data["epoch"], data["seq"]
        self._due = _Due.STATUS

    def _event(self, seq: int, raw: bytes) -> None:
        assert self.position is not None
        if self._due is _Due.STATUS:
            raise self._violation("wrong order", f"event {seq} where status is due")
        if seq <= self.position:
            # The content comes first: two contents under one number is the worse news.
            self._ledger.enter(self.epoch, seq, raw, self.name)
            raise self._violation("double", f"event {seq} after {self.position}: {raw.decode()}")
        if seq > self.position + 1:
            rule = "wrong recovered" if self._due is _Due.REPLAY else "hole"
            raise self._violation(rule, f"event {seq} follows {self.position}: {raw.decode()}")
        self._ledger.enter(self.epoch, seq, raw, self.name)
        self.position = seq
        self.seen.deliveries += 1
        if self._due is _Due.REPLAY:
            self._replay_left -= 1
            if not self._replay_left:
                self._due = _Due.STATUS

    def _gap(self, data: Mapping[str, Any]) -> None:
        assert self.position is not None
        first, last, dropped = data["from_seq"], data["to_seq"], data["dropped"]
        # Where a status is due a gap may come before it: the queue overflowed again, and one status is enough.
        if self._due is _Due.REPLAY:
            raise self._violation("wrong order", f"a gap inside of a replay: {data}")
        if first > self.position + 1:
            raise self._violation("hole", f"a gap from {first} follows {self.position}")
        if first <= self.position:
            raise self._violation("wrong gap", f"a gap from {first}, but {self.position} has been seen")
        if last < first or dropped != last - first + 1:
            raise self._violation("wrong gap", f"not all that is between its ends: {data}")
        self.seen.gaps += 1
        self.seen.named += dropped
        self.position = last
        self._due = _Due.STATUS

    def _status(self, as_of: int) -> None:
        if self._due is _Due.REPLAY:
            raise self._violation(
                "wrong recovered", f"status while {self._replay_left} more replayed events are due"
            )
        if as_of != self.position:
            raise self._violation("wrong status", f"status as of {as_of} after event {self.position}")
        self._due = _Due.ANYTHING

    def _violation(self, rule: str, text: str) -> Violation:
        return Violation(rule, f"{self.name} in epoch {self.epoch or '(none)'}: {text}")


def check_page(ledger: Ledger, page: Mapping[str, Any], epoch: str, after: int) -> int:
    """One page of `/api/cluster/history` after `after`; returns where the next one begins. Raises `Violation`."""
    if page["epoch"] != epoch:
        raise Violation("wrong history", f"asked for epoch {epoch}, got {page['epoch']}")
    at = after
    for event in page["events"]:
        if event["seq"] != at + 1:
            raise Violation("wrong history", f"event {event['seq']} follows {at}")
        at += 1
        ledger.enter(epoch, at, json.dumps(event).encode(), "history")
    if page["more"] != (at < page["seq"]):
        raise Violation("wrong history", f"more is {page['more']} at {at} of {page['seq']}")
    return at
