"""Writes that are safe to repeat: a key names one write, and its answer is kept with what it wrote.

The key travels with the command through the replicated log. Whoever applies the command a second time finds the
key, changes nothing, and gives the same answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from heliosd.errors import Conflict, Invalid, KeyReused, NotFound, RequestRefused

MAX_KEPT = 10_000


class WriteKey(Struct, frozen=True):
    """One write of one user."""

    id: str
    """A hash of the user and the user's key."""
    request: str
    """A hash of what was asked; the same key with another request is refused."""


class RefusalRecord(Struct, frozen=True):
    """A refusal, as it is stored."""

    kind: str
    message: str
    field: str | None = None


class AnswerRecord(Struct, frozen=True):
    """The answer to one write, as it is stored. `refused` None: it was done."""

    key: WriteKey
    at: float
    """Unix seconds."""
    refused: RefusalRecord | None = None


_KINDS: dict[str, type[RequestRefused]] = {kind.__name__: kind for kind in (Conflict, Invalid, NotFound)}


def answer_of(key: WriteKey, refused: RequestRefused | None, at: float) -> AnswerRecord:
    """What to store of a write that was done, or was `refused`."""
    if refused is None:
        return AnswerRecord(key, at)
    return AnswerRecord(key, at, RefusalRecord(type(refused).__name__, refused.message, refused.field))


def repeated(answer: AnswerRecord, key: WriteKey) -> RequestRefused | None:
    """The answer to a repetition. None: it was done."""
    if answer.key.request != key.request:
        return KeyReused()
    if answer.refused is None:
        return None
    kind = _KINDS.get(answer.refused.kind, Conflict)
    return kind(answer.refused.message, field=answer.refused.field)


class Answers:
    """The newest answers, at most 10,000. None is dropped for its age: a leap of the clock makes all old."""

    def __init__(self, answers: Iterable[AnswerRecord] = ()) -> None:
        self._kept = OrderedDict((answer.key.id, answer) for answer in answers)

    def find(self, key: WriteKey) -> AnswerRecord | None:
        return self._kept.get(key.id)

    def keep(self, answer: AnswerRecord) -> None:
        self._kept[answer.key.id] = answer
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def all(self) -> list[AnswerRecord]:
        """The oldest first."""
        return list(self._kept.values())
