"""etcd's keys, transactions, watch and compaction, in memory: what the rules over etcd are tested on.

As etcd 3.4 has it: a transaction is one revision; one that puts a key twice, or puts and deletes it, or has more
than 128 operations, is refused. Leases are not minded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heliosd.cluster.etcd.client.requests import Compare, Delete, Get, Op, Put
from heliosd.cluster.etcd.client.responses import (
    KeyValue,
    RangeResult,
    ResponseHeader,
    TxnResult,
    WatchBatch,
    WatchEvent,
)
from heliosd.cluster.etcd.keys import KeyLayout

LAYOUT = KeyLayout("/heliosd/")
CLUSTER = "cdf818194e3a8c32"
MAX_OPS = 128


class Refused(Exception):
    """etcd would refuse the transaction itself."""


@dataclass(frozen=True, slots=True)
class Request:
    compares: tuple[Compare, ...]
    then: tuple[Op, ...]
    otherwise: tuple[Op, ...]


class Etcd:
    """One cluster as a whole; `revisions` is its history, for watches."""

    def __init__(self, cluster_id: str = CLUSTER, raft_term: int = 2) -> None:
        self.cluster_id = cluster_id
        self.raft_term = raft_term
        self.revision = 1
        self.kvs: dict[bytes, KeyValue] = {}
        self.revisions: dict[int, list[WatchEvent]] = {}
        self.compacted = 0

    @property
    def header(self) -> ResponseHeader:
        return ResponseHeader(self.cluster_id, "1", self.revision, self.raft_term)

    def txn(self, compares: Sequence[Compare], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> TxnResult:
        for ops in (compares, then, otherwise):
            if len(ops) > MAX_OPS:
                raise Refused(f"{len(ops)} operations")
        self._check(then)
        self._check(otherwise)
        succeeded = all(map(self._holds, compares))
        ops = then if succeeded else otherwise
        changes: list[WatchEvent] = []
        responses: list[tuple[KeyValue, ...]] = []
        for op in ops:
            match op:
                case Get():
                    responses.append(self._found(op.key, op.end))
                    continue
                case Put():
                    changes.append(self._put(op))
                case Delete():
                    for kv in self._found(op.key, op.end):
                        del self.kvs[kv.key]
                        gone = KeyValue(key=kv.key, mod_revision=self.revision + 1)
                        changes.append(WatchEvent("delete", gone))
            responses.append(())
        if changes:
            self.revision += 1
            self.revisions[self.revision] = changes
        return TxnResult(self.header, succeeded, tuple(responses))

    def put(self, key: bytes, value: bytes) -> None:
        self.txn((), (Put(key, value),))

    def delete(self, key: bytes, end: bytes | None = None) -> None:
        self.txn((), (Delete(key, end),))

    def value(self, key: bytes) -> bytes:
        return self.kvs[key].value

    def under(self, start: bytes, end: bytes) -> tuple[KeyValue, ...]:
        return self._found(start, end)

    def read(self, page: int = 7, layout: KeyLayout = LAYOUT) -> list[RangeResult]:
        """The whole prefix in pages, as of now."""
        found = self._found(layout.prefix, layout.end)
        cuts = range(0, max(len(found), 1), page)
        return [
            RangeResult(self.header, found[cut : cut + page], cut + page < len(found), len(found))
            for cut in cuts
        ]

    def watch(self, start: int, upto: int | None = None, layout: KeyLayout = LAYOUT) -> WatchBatch:
        """What a watch of the prefix delivers of the revisions from `start` to `upto` (None: all)."""
        assert start > self.compacted
        events = tuple(
            event
            for revision in range(start, (self.revision if upto is None else upto) + 1)
            for event in self.revisions.get(revision, [])
            if layout.prefix <= event.kv.key < layout.end
        )
        return WatchBatch(self.header, events, False, False, 0, "")

    def compact(self) -> None:
        """Forget what led to the present."""
        self.compacted = self.revision

    def backup(self) -> Etcd:
        """The same cluster, its id as well, as a restore from a backup of this moment makes it."""
        other = Etcd(self.cluster_id, self.raft_term)
        other.revision, other.kvs = self.revision, dict(self.kvs)
        return other

    def _holds(self, compare: Compare) -> bool:
        kv = self.kvs.get(compare.key)
        match compare.target:
            case "CREATE":
                return (0 if kv is None else kv.create_revision) == compare.wanted
            case "MOD":
                return (0 if kv is None else kv.mod_revision) == compare.wanted
            case "VALUE":
                return kv is not None and kv.value == compare.wanted

    def _check(self, ops: Sequence[Op]) -> None:
        puts = [op.key for op in ops if isinstance(op, Put)]
        if len(puts) != len(set(puts)):
            raise Refused("duplicate key given in txn request")
        for op in ops:
            if isinstance(op, Delete):
                inside = (op.key <= key < op.end if op.end else key == op.key for key in puts)
                if any(inside):
                    raise Refused("duplicate key given in txn request")

    def _put(self, op: Put) -> WatchEvent:
        old = self.kvs.get(op.key)
        revision = self.revision + 1
        kv = KeyValue(
            key=op.key,
            value=op.value,
            create_revision=revision if old is None else old.create_revision,
            mod_revision=revision,
            version=1 if old is None else old.version + 1,
            lease=op.lease,
        )
        self.kvs[op.key] = kv
        return WatchEvent("put", kv)

    def _found(self, key: bytes, end: bytes | None) -> tuple[KeyValue, ...]:
        if end is None:
            return (self.kvs[key],) if key in self.kvs else ()
        return tuple(self.kvs[each] for each in sorted(self.kvs) if key <= each < end)
