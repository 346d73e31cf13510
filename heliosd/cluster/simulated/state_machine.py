"""What a simulated member keeps: the custom metrics, the permit to stop a member, answers to writes with a key."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from heliosd.cluster.custom_metrics import MetricsApplied, MetricSet
from heliosd.cluster.idempotency import AnswerRecord, Answers, answer_of, repeated
from heliosd.cluster.metric_commands import KeyedCommand, MetricCommand
from heliosd.cluster.permits import EndPermit, GrantPermit, PermitCommand, PermitState, RenewPermit
from heliosd.errors import RequestRefused
from heliosd.protocol.views.custom_metrics import MetricView

_decode = msgspec.json.Decoder(MetricCommand | KeyedCommand | GrantPermit | RenewPermit | EndPermit).decode


class _Snapshot(Struct, frozen=True):
    metrics: Raw
    permits: PermitState = PermitState()
    answers: list[AnswerRecord] = []


class MetricStateMachine:
    """One member's state. Every member applies every command, and all refuse the same ones."""

    def __init__(self) -> None:
        self.metrics = MetricSet()
        self.permits = PermitState()
        self.answers = Answers()
        """To writes with a key."""
        self.before: dict[str, MetricView] = {}
        """The metrics before the last `restore`."""

    def apply(self, data: bytes) -> MetricsApplied | RequestRefused:
        """What the command changed, or why it was refused. A key that is known changes nothing, and is answered as
        it was the first time."""
        command = _decode(data)
        if not isinstance(command, KeyedCommand):
            return self._carry_out(command)
        key = command.key
        known = self.answers.find(key)
        if known is not None:
            return repeated(known, key) or MetricsApplied()
        result = self._carry_out(command.command)
        refused = result if isinstance(result, RequestRefused) else None
        self.answers.keep(answer_of(key, refused, command.command.at))
        return result

    def _carry_out(self, command: MetricCommand | PermitCommand) -> MetricsApplied | RequestRefused:
        try:
            if isinstance(command, GrantPermit | RenewPermit | EndPermit):
                self.permits = self.permits.after(command)
                return MetricsApplied()
            return self.metrics.apply(command)
        except RequestRefused as refused:
            # Tracebacks refer to all callers, which hold what is returned here.
            refused.__context__ = None
            return refused.with_traceback(None)

    def encode(self) -> bytes:
        """For a snapshot. Until the first permit or key it is the list of metrics alone, as in earlier versions."""
        answers = self.answers.all()
        if not self.permits.grants and not answers:
            return self.metrics.encode()
        return msgspec.json.encode(_Snapshot(Raw(self.metrics.encode()), self.permits, answers))

    def restore(self, data: bytes) -> None:
        """Become what `encode` turned into these bytes; b"" is the empty state."""
        self.before = self.metrics.views()
        snapshot = (
            msgspec.json.decode(data, type=_Snapshot) if data.startswith(b"{") else _Snapshot(Raw(data))
        )
        self.metrics.restore(bytes(snapshot.metrics))
        self.permits = snapshot.permits
        self.answers = Answers(snapshot.answers)

    def _known(self, name: str, view: MetricView) -> bool:
        """Whether it is the same metric as before: one that was deleted and registered anew has another time."""
        before = self.before.get(name)
        return before is not None and (before.created_at, before.type) == (view.created_at, view.type)

    def difference(self) -> MetricsApplied:
        """What the last `restore` changed, in terms of commands."""
        after = self.metrics.views()
        defined: dict[str, MetricView | None] = {name: None for name in self.before if name not in after}
        defined |= {name: view for name, view in after.items() if not self._known(name, view)}
        known = {name: view for name, view in after.items() if name not in defined}
        moved = {name: view for name, view in known.items() if self.before[name] != view}
        return MetricsApplied(defined=defined, moved=moved)
