"""The keys under the prefix as this node has applied them: from one full reading, then from the watch.

A change leads to the same items for the hub whether it was watched or found by a new reading after a compaction:
each event of the log once and in order, a hole by its numbers, and every metric whose value changed. etcd 3.4 may
deliver a change twice; what is not newer than the applied revision is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec
from msgspec import Struct

from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.etcd.client.responses import KeyValue, RangeResult, ResponseHeader, WatchBatch
from heliosd.cluster.idempotency import AnswerRecord
from heliosd.errors import BAD_JSON
from heliosd.protocol.events import LogReset, MetricValuesChanged

from .event_log import LogHead, SeenHead, SeenMembers, read_head, read_members
from .keys import KeyLayout, KeyMeaning, Part
from .metric_transactions import SeenMetrics
from .updates import MirrorUpdate, UpdateBuilder, logged, newest


class PresentObserver(Struct, frozen=True, kw_only=True):
    """A heliosd that is present; the value of its key."""

    id: str
    version: str
    since: str
    """RFC 3339."""
    url: str = ""
    """Of its dashboard; "": not known."""


class PendingLearner(Struct, frozen=True):
    """A learner that heliosd adds; the value of its key."""

    address: str
    """`HOST:PORT` of its peer URL: its id is known only once it is added."""


class SeenLearner(Struct, frozen=True):
    """A `PendingLearner` as it was read."""

    address: str
    mod_revision: int


class Revoked(Struct, frozen=True):
    """A revoked token; the value of its key."""

    expires_at: float
    """Unix seconds."""


class KnownState(Struct, frozen=True, kw_only=True):
    """How far a node has applied. At its next start it shows whether the cluster was set back meanwhile."""

    cluster_id: str
    revision: int
    epoch: str
    seq: int


class Mirror:
    """The state under the prefix. Read it only; call `load` before `apply`."""

    def __init__(self, layout: KeyLayout, max_events: int, before: KnownState | None = None) -> None:
        self.cluster_id = ""
        """"" until the first `load`."""
        self.revision = 0
        """Everything up to here is applied."""
        self.readings = 0
        """How often `load` has replaced the state. After one, a higher revision need not be a newer state."""
        self.head = SeenHead()
        self.members = SeenMembers()
        self.metrics = MetricSet()
        """Always the same object, in the order of registration."""
        self.observers: dict[str, PresentObserver] = {}
        self.observer = ""
        """Node id of the heliosd that logs the members' health; "": there is none."""
        self.learners: dict[str, SeenLearner] = {}
        """By what follows the folder in their keys."""
        self.leaving: set[str] = set()
        """Ids of members that are about to be removed."""
        self.revoked: dict[str, float] = {}
        """`jti` -> Unix seconds."""
        self.answers: dict[str, AnswerRecord] = {}
        """By the id of their keys."""
        self._layout = layout
        self._max_events = max_events
        self._before = before
        self._metric_revisions: dict[str, int] = {}
        self._epoch = ""
        self._seq = 0
        """The newest event handed to the hub."""
        self._epochs: set[str] = set() if before is None else {before.epoch}
        """All epochs handed to the hub so far."""
        self._void = ""
        """The epoch of a log that was set back: it would use its numbers a second time."""

    @property
    def known(self) -> KnownState:
        """What this node stores for its next start."""
        return KnownState(
            cluster_id=self.cluster_id, revision=self.revision, epoch=self._epoch, seq=self._seq
        )

    @property
    def needs_birth(self) -> bool:
        """Whether `event_log.begin` has to be written (on `head`) before events can be logged and published: there
        is no log, or it is another cluster's, or it was set back."""
        head = self.head.head
        return head is None or head.cluster != self.cluster_id or head.epoch == self._void

    def seen_metrics(self) -> SeenMetrics:
        """The base of metric commands; a copy that does not change."""
        return SeenMetrics(
            self.head, self.metrics.copy(), dict(self._metric_revisions), self.revision, self.answers
        )

    def load(self, pages: Sequence[RangeResult]) -> MirrorUpdate:
        """Replace the state by a linearizable reading of the whole prefix, all pages at one revision."""
        header = pages[0].header
        first = not self.cluster_id
        known = self._before if first else self.known
        set_back = known is not None and _set_back(known, header)
        old, revoked = self._shape(), self.revoked
        # The values of another cluster are no changes of the values published so far.
        same_cluster = not set_back and header.cluster_id == self.cluster_id
        gathered = UpdateBuilder(self._metric_revisions if same_cluster else None)
        self.cluster_id, self.revision = header.cluster_id, header.revision
        self.readings += 1
        self.head, self.members, self.observer = SeenHead(), SeenMembers(), ""
        self.observers, self.learners, self.revoked, self._metric_revisions = {}, {}, {}, {}
        self.leaving, self.answers = set(), {}
        self.metrics.clear()
        all_keys = (kv for page in pages for kv in page.kvs)
        # Metrics are kept in the order of their registration.
        for kv in sorted(all_keys, key=lambda kv: (kv.create_revision, kv.key)):
            meaning = self._layout.meaning(kv.key)
            if meaning is not None:
                self._put(meaning, kv, gathered)
        head = self.head.head
        if head is not None and (
            (set_back and head.epoch in self._epochs)
            or (known is not None and known.epoch == head.epoch and head.seq < known.seq)
            or _rebuilt(head, header)
        ):
            self._void = head.epoch
        self._emit(gathered)
        gathered.revoked = {jti: at for jti, at in self.revoked.items() if jti not in revoked}
        new = self._shape()
        return gathered.news({part for part in new if first or new[part] != old[part]})

    def is_outdated_by(self, batch: WatchBatch) -> bool:
        """Whether `batch` begins another log than the one that was read, as after the restore of a backup: then all
        else that was read may be of another past, and has to be read again in place of applying the batch."""
        heads = [
            event.kv
            for event in batch.events
            if event.kind == "put" and event.kv.key == self._layout.head and self._epoch
        ]
        try:
            epochs = {head.epoch for kv in heads if (head := read_head((kv,)).head) is not None}
        except (*BAD_JSON, ValueError):
            return False
        return bool(epochs - {self._epoch})

    def apply(self, batch: WatchBatch) -> MirrorUpdate:
        """Apply what the watch of the whole prefix delivered. A batch of another cluster is ignored, and so is what
        was applied already."""
        gathered = UpdateBuilder(self._metric_revisions)
        changed: set[Part] = set()
        if batch.header.cluster_id != self.cluster_id:
            return MirrorUpdate()
        for revision, group in groupby(batch.events, key=lambda event: event.kv.mod_revision):
            # All of a revision comes in one batch.
            if revision <= self.revision:
                continue
            self.revision = revision
            # In the order of keys, as in a reading.
            for event in sorted(group, key=lambda event: event.kv.key):
                meaning = self._layout.meaning(event.kv.key)
                if meaning is None:
                    continue
                changed.add(meaning.part)
                if event.kind == "put":
                    self._put(meaning, event.kv, gathered)
                else:
                    self._delete(meaning)
            self._emit(gathered)
        return gathered.news(changed)

    def _shape(self) -> dict[Part, object]:
        """What to compare to see which parts two readings differ in."""
        return {
            "head": self.head,
            "members": self.members,
            "metrics": self._metric_revisions,
            "observers": self.observers,
            "observer": self.observer,
            "learners": self.learners,
            "leaving": self.leaving,
            "revoked": self.revoked,
            "answers": self.answers,
        }

    def _put(self, meaning: KeyMeaning, kv: KeyValue, gathered: UpdateBuilder) -> None:
        name = meaning.name
        try:
            match meaning.part:
                case "head":
                    self.head = read_head((kv,))
                case "members":
                    self.members = read_members((kv,))
                case "observer":
                    self.observer = kv.value.decode()
                case "events":
                    event = logged(kv.value)
                    if self._layout.event(event.seq) == kv.key:
                        gathered.events[event.seq] = event
                case "metrics":
                    self._put_metric(name, kv, gathered)
                case "observers":
                    self.observers[name] = msgspec.json.decode(kv.value, type=PresentObserver)
                case "learners":
                    address = msgspec.json.decode(kv.value, type=PendingLearner).address
                    self.learners[name] = SeenLearner(address, kv.mod_revision)
                case "leaving":
                    self.leaving.add(name)
                case "answers":
                    self.answers[name] = msgspec.json.decode(kv.value, type=AnswerRecord)
                case "revoked":
                    expires_at = msgspec.json.decode(kv.value, type=Revoked).expires_at
                    if name not in self.revoked:
                        gathered.revoked[name] = expires_at
                    self.revoked[name] = expires_at
                case _:
                    pass  # a dedupe key
        except (*BAD_JSON, ValueError):
            gathered.unreadable.append(kv.key)

    def _put_metric(self, name: str, kv: KeyValue, gathered: UpdateBuilder) -> None:
        before = gathered.metric_revisions
        moved = before is not None and kv.version > 1 and before.get(name) != kv.mod_revision
        self._metric_revisions[name] = kv.mod_revision
        try:
            self.metrics.put(name, kv.value)
        except BAD_JSON:
            self.metrics.remove(name)
            raise
        if moved:
            gathered.moved[name] = self.metrics.view(name)

    def _delete(self, meaning: KeyMeaning) -> None:
        name = meaning.name
        match meaning.part:
            case "head":
                self.head = SeenHead()
            case "members":
                self.members = SeenMembers()
            case "observer":
                self.observer = ""
            case "metrics":
                self.metrics.remove(name)
                self._metric_revisions.pop(name, None)
            case "observers":
                self.observers.pop(name, None)
            case "learners":
                self.learners.pop(name, None)
            case "leaving":
                self.leaving.discard(name)
            case "revoked":
                self.revoked.pop(name, None)
            case "answers":
                self.answers.pop(name, None)
            case _:
                pass  # events and dedupe keys: trimmed, or their leases have ended

    def _emit(self, gathered: UpdateBuilder) -> None:
        """Publish what a revision, or a reading, has brought."""
        head = self.head.head
        if head is not None and not self.needs_birth:
            if head.epoch != self._epoch:
                kept = newest(gathered.events, head.seq, self._max_events)
                gathered.emitted.append(LogReset(epoch=head.epoch, seq=head.seq, kept=kept))
                self._epoch, self._seq = head.epoch, head.seq
                self._epochs.add(head.epoch)
            for seq in sorted(gathered.events):
                if self._seq < seq <= head.seq:
                    self._skip(seq - 1, gathered)
                    gathered.emitted.append(gathered.events[seq])
                    self._seq = seq
            self._skip(head.seq, gathered)
        gathered.events.clear()
        if gathered.moved:
            gathered.emitted.append(MetricValuesChanged(metrics=dict(gathered.moved)))
            gathered.moved.clear()

    def _skip(self, seq: int, gathered: UpdateBuilder) -> None:
        """Events up to `seq` that were not published are gone: report the hole."""
        if self._seq < seq:
            lost = (self._seq + 1, seq)
            gathered.emitted.append(LogReset(epoch=self._epoch, seq=seq, lost=lost))
            self._seq = seq


def _set_back(known: KnownState, header: ResponseHeader) -> bool:
    return known.cluster_id == header.cluster_id and header.revision < known.revision


def _rebuilt(head: LogHead | None, header: ResponseHeader) -> bool:
    """Whether the cluster's term is below the one in the log's head. The writer of the head saw that term, so a
    cluster that has the head from its own past cannot be below it."""
    return head is not None and header.cluster_id == head.cluster and header.raft_term < head.term
