"""What a simulated member keeps: the custom metrics, the permit to stop a member, answers to writes with a key."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from heliosd.cluster.custom_metrics import MetricsApplied, MetricSet
from heliosd.cluster.idempotency import AnswerRecord, Answers, answer_of, repeated
from heliosd.cluster.metric_commands import KeyedCommand, MetricCommand
from heliosd.cluster.permits import EndPermit, GrantPermit, PermitCommand, PermitState, RenewPermit
from heliosd.errors import RequestRefused

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
        snapshot = (
            msgspec.json.decode(data, type=_Snapshot) if data.startswith(b"{") else _Snapshot(Raw(data))
        )
        self.metrics.restore(bytes(snapshot.metrics))
        self.permits = snapshot.permits
        self.answers = Answers(snapshot.answers)
