"""`Idempotency-Key`: a write with such a header may be repeated, and is done once.

The form follows draft-ietf-httpapi-idempotency-key-header. A key belongs to one user and one request. Changes of
custom metrics carry it through the cluster's log (`cluster/idempotency.py`); of other writes this daemon keeps the
answers, across restarts too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
import trio
from msgspec import Struct, structs

from heliosd.cluster.idempotency import WriteKey
from heliosd.errors import Invalid, KeyReused, NoLeader, OutcomeUnknown, RequestRefused, StoreFull
from heliosd.store.changes import Save, ValueSet
from heliosd.web.problems import problem_for

from .route import Answer

HEADER = "Idempotency-Key"
MAX_KEPT = 1_000
KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"
_FORM = re.compile(KEY_PATTERN)
_STORED = "rest/answers/"


def read_key(given: Sequence[str], account: str, asked: Sequence[object]) -> WriteKey | None:
    """The key of a request with these header fields; None: it has none. `asked`: what the request is, as values
    that JSON can show; `account`: as `Identity.account`. Raises `Invalid`."""
    if not given:
        return None
    if len(given) > 1 or not _FORM.fullmatch(given[0]):
        raise Invalid(f"{HEADER} must be 1 to 255 visible ASCII characters, given once", field=HEADER)
    return WriteKey(_hash([account, given[0]]), _hash(asked))


def _hash(values: Sequence[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(values)).hexdigest()[:32]


class _KeptAnswer(Struct, frozen=True):
    """`status` 0: the write was begun, and what became of it is not known."""

    request: str
    status: int = 0
    body: msgspec.Raw = msgspec.Raw(b"{}")
    number: int = 0
    """Higher than that of every answer kept before; the store has no order."""


class AnsweredWrites:
    """The answers to the newest writes with a key. `stored`: the store's values at the start."""

    def __init__(self, stored: Mapping[str, bytes], save: Save) -> None:
        self._save = save
        self._running: dict[str, trio.Event] = {}
        kept = {
            name.removeprefix(_STORED): msgspec.json.decode(value, type=_KeptAnswer)
            for name, value in stored.items()
            if name.startswith(_STORED)
        }
        self._kept = dict(sorted(kept.items(), key=lambda item: item[1].number))
        """The oldest first."""
        self._number = max((each.number for each in kept.values()), default=0)

    async def answer(
        self, key: WriteKey, carry_out: Callable[[bool], Awaitable[Answer]], where: str
    ) -> Answer:
        """The answer that this key had before, or that of `carry_out`. While the same write runs this waits for it.

        `carry_out` learns whether the write was begun before with an unknown outcome. Raises `KeyReused`,
        `StoreFull` (nothing was begun), and what is no final answer: `NoLeader`, `OutcomeUnknown`.
        """
        while (running := self._running.get(key.id)) is not None:
            await running.wait()
        known = self._kept.get(key.id)
        if known is not None and known.request != key.request:
            raise KeyReused
        if known is not None and known.status:
            return Answer(status=known.status, body=bytes(known.body) + b"\n")
        self._running[key.id] = trio.Event()
        try:
            return await self._carry_out(key, carry_out, where, begun=known is not None)
        finally:
            self._running.pop(key.id).set()

    async def _carry_out(
        self, key: WriteKey, carry_out: Callable[[bool], Awaitable[Answer]], where: str, *, begun: bool
    ) -> Answer:
        if not begun:
            await self._keep(key, _KeptAnswer(key.request))
        try:
            answer = await carry_out(begun)
        except OutcomeUnknown:
            raise
        except (NoLeader, StoreFull):  # nothing was written
            if not begun:
                await self._forget(key)
            raise
        except RequestRefused as refused:
            problem = problem_for(refused, where)
            answer = Answer(status=problem.status, body=problem.body, headers=problem.headers)
        body = answer.body if isinstance(answer.body, bytes) else msgspec.json.encode(answer.body)
        with suppress(StoreFull):  # then it is in memory only, and after a restart of unknown outcome
            await self._keep(key, _KeptAnswer(key.request, answer.status, msgspec.Raw(body)))
        return answer

    async def _keep(self, key: WriteKey, answer: _KeptAnswer) -> None:
        before = self._kept.pop(key.id, None)
        self._number += 1
        answer = structs.replace(answer, number=self._number)
        self._kept[key.id] = answer
        changes = [ValueSet(_STORED + key.id, msgspec.json.encode(answer))]
        while len(self._kept) > MAX_KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            changes.append(ValueSet(_STORED + oldest, None))
        try:
            await self._save(changes)
        except StoreFull:
            if before is None:
                self._kept.pop(key.id, None)
            raise

    async def _forget(self, key: WriteKey) -> None:
        self._kept.pop(key.id, None)
        with suppress(StoreFull):  # then it is after a restart of unknown outcome
            await self._save([ValueSet(_STORED + key.id, None)])
