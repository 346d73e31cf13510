"""Commands for the custom metrics as transactions: many commands in one, each answered by itself.

A new value requires that the metric is the one from which it was computed. A command that defines metrics also
requires the head of the log that was read, since its event is logged in the same transaction. A refusal is verified
in the same way before it is given: a metric that another node has just registered is not reported as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, repeat

import msgspec
from msgspec import Struct, field

from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.etcd.client.requests import Compare, Op, absent, delete, get, mod_is, put
from heliosd.cluster.etcd.client.responses import KeyValue, TxnResult
from heliosd.cluster.idempotency import MAX_KEPT, AnswerRecord, WriteKey, answer_of, repeated
from heliosd.cluster.metric_commands import (
    DeleteMetric,
    ExpireMetric,
    MetricCommand,
    RegisterMetric,
    ResetMetrics,
    UpdateMetric,
)
from heliosd.errors import BAD_JSON, RequestRefused
from heliosd.protocol.events import MetricsDefined

from .event_log import MAX_OPS, LogHead, LogItem, SeenHead, log_ops, read_head
from .keys import KeyLayout

MAX_BATCH_BYTES = 512 * 1024
"""Of values in one transaction; etcd refuses requests over 1.5 MiB (`--max-request-bytes`)."""


OUTDATED = 2
"""Old keys that are deleted with a new one, at most."""


class SeenMetrics(Struct, frozen=True):
    """The metrics and the log's head as they were read, or as the last transaction left them. Read only."""

    head: SeenHead = field(default_factory=SeenHead)
    metrics: MetricSet = field(default_factory=MetricSet)
    revisions: Mapping[str, int] = field(default_factory=dict)
    """Name -> mod_revision of its key."""
    revision: int = 0
    """Of two, the one with the higher revision is the newer."""
    answers: Mapping[str, AnswerRecord] = field(default_factory=dict)
    """To writes with a key, by its id."""


class MetricTransaction(Struct, frozen=True, kw_only=True):
    """One transaction that carries out the first `len(answers)` of the commands."""

    compares: tuple[Compare, ...]
    then: tuple[Op, ...]
    otherwise: tuple[Op, ...]
    answers: tuple[RequestRefused | None, ...]
    """The answer to each command if the transaction succeeds; None: committed."""
    seen: SeenMetrics
    metrics: MetricSet
    """The metrics if it succeeds."""
    head: LogHead | None
    """The head if it succeeds; None: unchanged."""
    compared: tuple[str, ...]
    """The names that `otherwise` reads, in its order; empty where it reads the head and all metrics."""
    written: tuple[str, ...]
    keyed: Mapping[str, AnswerRecord]
    """The answers that it stores, by the ids of their keys; `otherwise` reads them last, in this order."""


class Settled(Struct, frozen=True):
    """The transaction succeeded: the batch's `answers` hold. Compose the next batch on `seen`."""

    seen: SeenMetrics
    revision: int


class Outrun(Struct, frozen=True):
    """Nothing was written: another node wrote first. Compose the same commands again on `seen`."""

    seen: SeenMetrics


def compose(
    layout: KeyLayout,
    commands: Sequence[MetricCommand],
    seen: SeenMetrics,
    *,
    keys: Sequence[WriteKey | None] = (),
    lease: str,
    now_wall: float,
    max_events: int,
) -> MetricTransaction:
    """One transaction of as many of the commands, in their order, as fit; at least the first.

    Each is answered as `MetricSet.apply` answers it; one whose key (`keys`, in the same order, None: it has none)
    `seen` has an answer for is answered with that. A new answer is stored in the same transaction, under `lease`,
    and only if its key is new. Raises `ValueError` if a command defines metrics and the log has not
    begun (`Mirror.needs_birth`).
    """
    plan = _Plan(seen)
    for command, its_key in zip(commands, keys or repeat(None), strict=False):
        if not plan.has_room(command, its_key):
            break
        plan.take(command, its_key)
    names = sorted(plan.compared)
    compares = [mod_is(layout.metric(name), seen.revisions.get(name, 0)) for name in names]
    then: list[Op] = []
    if plan.reset and seen.revisions:
        # One operation and one event, however many metrics there are. Where there is none, a delete would make no
        # revision, and the one in the answer need not be one that the watch shows.
        then.append(delete(layout.folder("metrics"), layout.folder_end("metrics")))
    for name in plan.written:
        key = layout.metric(name)
        then.append(put(key, plan.metrics.encode_one(name)) if name in plan.metrics else delete(key))
    head = None
    if plan.defines:
        compares.append(mod_is(layout.head, seen.head.mod_revision))
    if plan.items:
        head, _, ops = log_ops(
            layout, plan.items, seen.head, lease=lease, now_wall=now_wall, max_events=max_events
        )
        then += ops
    for key_id, answer in plan.keyed.items():
        compares.append(absent(layout.answer(key_id)))
        then.append(put(layout.answer(key_id), msgspec.json.encode(answer), lease))
    then += [delete(layout.answer(key_id)) for key_id in plan.outdated()]
    reread = tuple(get(layout.answer(key_id)) for key_id in plan.keyed)
    whole = (get(layout.head), get(layout.folder("metrics"), layout.folder_end("metrics")))
    return MetricTransaction(
        compares=tuple(compares),
        then=tuple(then),
        otherwise=(whole if plan.defines else tuple(get(layout.metric(name)) for name in names)) + reread,
        answers=tuple(plan.answers),
        seen=seen,
        metrics=plan.metrics,
        head=head,
        compared=() if plan.defines else tuple(names),
        written=tuple(plan.written),
        keyed=plan.keyed,
    )


def settle(layout: KeyLayout, batch: MetricTransaction, result: TxnResult) -> Settled | Outrun:
    """The outcome of a batch. After an unknown outcome the commands are answered with that, and the batch is not
    composed again."""
    revision = result.header.revision
    if result.succeeded:
        revisions = {name: at for name, at in batch.seen.revisions.items() if name in batch.metrics}
        revisions |= {name: revision for name in batch.written if name in batch.metrics}
        head = batch.seen.head if batch.head is None else SeenHead(batch.head, revision)
        answers = _gained(batch.seen.answers, batch.keyed)
        # The store's revision counts other programs' keys as well: only a change here has one that the watch shows.
        as_of = revision if batch.then else batch.seen.revision
        return Settled(SeenMetrics(head, batch.metrics, revisions, as_of, answers), revision)
    responses = result.responses[: len(result.responses) - len(batch.keyed)]
    answers = _gained(batch.seen.answers, _answers(result.responses[len(responses) :]))
    if not batch.compared:
        head_kv, kvs = responses
        in_order = sorted(kvs, key=lambda kv: (kv.create_revision, kv.key))
        return Outrun(_with(SeenMetrics(read_head(head_kv), answers=answers), layout, in_order, revision))
    metrics, revisions = batch.seen.metrics.copy(), dict(batch.seen.revisions)
    for name, found in zip(batch.compared, responses, strict=True):
        if not found:
            metrics.remove(name)
            revisions.pop(name, None)
    base = SeenMetrics(batch.seen.head, metrics, revisions, answers=answers)
    return Outrun(_with(base, layout, [kv for found in responses for kv in found], revision))


def _gained(
    answers: Mapping[str, AnswerRecord], new: Mapping[str, AnswerRecord]
) -> Mapping[str, AnswerRecord]:
    return {**answers, **new} if new else answers


def _answers(responses: Sequence[Sequence[KeyValue]]) -> dict[str, AnswerRecord]:
    found: dict[str, AnswerRecord] = {}
    for kv in (kv for kvs in responses for kv in kvs):
        with suppress(*BAD_JSON):
            answer = msgspec.json.decode(kv.value, type=AnswerRecord)
            found[answer.key.id] = answer
    return found


class _Plan:
    """Applies the commands of one batch, one after another, and collects what to compare and write."""

    def __init__(self, seen: SeenMetrics) -> None:
        self.metrics = seen.metrics.copy()
        self.answers: list[RequestRefused | None] = []
        self.items: list[LogItem] = []
        self.compared: set[str] = set()
        """Metrics whose value, or absence, an answer depends on."""
        self.written: dict[str, None] = {}
        self.defines = False
        """Whether an answer depends on which metrics exist."""
        self.reset = False
        self.keyed: dict[str, AnswerRecord] = {}
        self._known = seen.answers
        self._defined: set[str] = set()
        self._size = 0

    def has_room(self, command: MetricCommand, key: WriteKey | None) -> bool:
        if not self.answers:
            return True
        if key is not None and key.id in self.keyed:
            return False
        # etcd refuses a transaction that puts and deletes the same key; and a value in the same revision as its
        # metric's registration would not be published as a change.
        if self.reset or isinstance(command, ResetMetrics) or command.name in self._defined:
            return False
        keys = len(self.compared | self.written.keys()) + (1 + OUTDATED) * (len(self.keyed) + 1)
        # With one more event, the head, and the trimming.
        return keys + len(self.items) + 3 <= MAX_OPS and self._size < MAX_BATCH_BYTES

    def outdated(self) -> list[str]:
        """Ids of the oldest keys, if there are more than are kept: a few for each new one. Other nodes may delete
        the same ones, or have."""
        surplus = len(self._known) + len(self.keyed) - MAX_KEPT
        return list(islice(self._known, max(0, min(surplus, OUTDATED * len(self.keyed)))))

    def take(self, command: MetricCommand, key: WriteKey | None) -> None:
        if key is not None and (known := self._known.get(key.id)) is not None:
            self.answers.append(repeated(known, key))
            return
        self._carry_out(command)
        if key is not None:
            self.keyed[key.id] = answer_of(key, self.answers[-1], command.at)

    def _carry_out(self, command: MetricCommand) -> None:
        try:
            applied = self.metrics.apply(command)
        except RequestRefused as refused:
            self.answers.append(refused.with_traceback(None))
            if isinstance(command, UpdateMetric | DeleteMetric | ExpireMetric):
                self.compared.add(command.name)
            else:
                self.defines = True
            return
        self.answers.append(None)
        match command:
            case UpdateMetric():
                self.compared.add(command.name)
                self.written[command.name] = None
                self._size += len(self.metrics.encode_one(command.name))
            case RegisterMetric() | DeleteMetric() | ExpireMetric():
                if isinstance(command, ExpireMetric):
                    self.compared.add(command.name)  # whoever writes to it first keeps it
                self._defined.add(command.name)
                self.written[command.name] = None
                self.defines = True
                if command.name in self.metrics:
                    self._size += 2 * len(self.metrics.encode_one(command.name))
            case ResetMetrics():
                self.defines = self.reset = True
        if applied.defined:
            self.items.append(LogItem("", MetricsDefined(metrics=applied.defined, reason=applied.reason)))


def _with(base: SeenMetrics, layout: KeyLayout, kvs: Sequence[KeyValue], revision: int) -> SeenMetrics:
    """`base` with these metrics as they were at `revision`."""
    metrics, revisions = base.metrics.copy(), dict(base.revisions)
    for kv in kvs:
        meaning = layout.meaning(kv.key)
        if meaning is not None:
            revisions[meaning.name] = kv.mod_revision
            # A value that is not readable is no metric; its revision allows it to be overwritten.
            with suppress(*BAD_JSON):
                metrics.put(meaning.name, kv.value)
    return SeenMetrics(base.head, metrics, revisions, revision, base.answers)
