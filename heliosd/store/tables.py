"""The tables of the store: what each change writes, and what a start reads.

The caller opens and ends the transaction. Each row has a CRC-32 of its other columns, because SQLite's own check
finds broken pages but not a flipped bit in a value.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, assert_never
from zlib import crc32

from heliosd.errors import StoreDamaged
from heliosd.raft.log import decode_membership, encode_membership
from heliosd.raft.messages import Entry, Snapshot
from heliosd.raft.storage import HardState, LogSuffix, MemberForgotten, MemberState, SnapshotSaved

from .changes import (
    Change,
    EventsCleared,
    EventsLogged,
    EventsTrimmed,
    LoggedEvent,
    RecordAdded,
    RecordsCleared,
    Saved,
    TokenRevoked,
    ValueSet,
)

APPLICATION_ID = 0x48454C53  # "HELS", in the header of every database of ours

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE member (
        name TEXT PRIMARY KEY, term INTEGER NOT NULL, vote TEXT NOT NULL, crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE log (
        member TEXT NOT NULL, idx INTEGER NOT NULL, term INTEGER NOT NULL, kind TEXT NOT NULL,
        data BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (member, idx)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE snapshot (
        member TEXT PRIMARY KEY, idx INTEGER NOT NULL, term INTEGER NOT NULL,
        membership BLOB NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE record (
        kind TEXT NOT NULL, key INTEGER NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE value (
        name TEXT PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE revoked (
        jti TEXT PRIMARY KEY, expires_at REAL NOT NULL, crc INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY, at REAL NOT NULL, type TEXT NOT NULL, payload BLOB NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT;
    """,
)
"""The steps to the present layout, one for each version. A released step never changes; `user_version` in the file
counts the steps that were taken."""
EVENTS_SINCE = 2
"""The version that has the table `event`."""


def migrate(database: sqlite3.Connection, *, to: int = len(MIGRATIONS)) -> None:
    """Takes the steps that the file lacks, each in its own transaction."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    for number in range(version + 1, to + 1):
        database.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number - 1]}; PRAGMA user_version = {number}; COMMIT;"
        )


def schema(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """Every object in the database and the SQL that created it."""
    return database.execute("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").fetchall()


def expected_schema(version: int) -> list[tuple[str, str]]:
    """The `schema` of an intact file of this version."""
    scratch = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(scratch, to=version)
        return schema(scratch)
    finally:
        scratch.close()


def apply(database: sqlite3.Connection, change: Change) -> None:
    """Writes one change. Raises ValueError for one that would leave a hole in a log."""
    match change:
        case HardState(member, term, vote):
            database.execute("INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?)", _row(member, term, vote))
        case LogSuffix(member, entries):
            _replace_suffix(database, member, entries)
        case SnapshotSaved(member, snapshot, keeps_log):
            _replace_snapshot(database, member, snapshot, keeps_log)
        case MemberForgotten(member):
            database.execute("DELETE FROM member WHERE name = ?", (member,))
            database.execute("DELETE FROM log WHERE member = ?", (member,))
            database.execute("DELETE FROM snapshot WHERE member = ?", (member,))
        case RecordAdded(kind, key, body, keep):
            database.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", _row(kind, key, body))
            database.execute(
                "DELETE FROM record WHERE kind = ?1 AND key <="
                " (SELECT key FROM record WHERE kind = ?1 ORDER BY key DESC LIMIT 1 OFFSET ?2)",
                (kind, keep),
            )
        case RecordsCleared(kind):
            database.execute("DELETE FROM record WHERE kind = ?", (kind,))
        case ValueSet(name, bytes(body)):
            database.execute("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", _row(name, body))
        case ValueSet(name):
            database.execute("DELETE FROM value WHERE name = ?", (name,))
        case TokenRevoked(jti, expires_at):
            if not jti:
                database.execute("DELETE FROM revoked WHERE expires_at <= ?", (expires_at,))
            # SQLite keeps a whole REAL as an integer, which has no -0.0: adding 0.0 makes it 0.0 before the CRC.
            row = _row(jti, float(expires_at) + 0.0)
            database.execute("INSERT OR REPLACE INTO revoked VALUES (?, ?, ?)", row)
        case EventsLogged(events):
            database.executemany(
                "INSERT INTO event VALUES (?, ?, ?, ?, ?)",
                [_row(event.seq, event.at + 0.0, event.type, event.payload) for event in events],
            )
        case EventsTrimmed(before_seq):
            database.execute("DELETE FROM event WHERE seq < ?", (before_seq,))
        case EventsCleared():
            database.execute("DELETE FROM event")
        case _:
            assert_never(change)


def read(database: sqlite3.Connection) -> Saved:
    """Everything that is stored, also in an older layout. Raises `StoreDamaged`, naming the row, for a wrong CRC or
    a hole in a log."""
    members: dict[str, MemberState] = {}
    hard = {name: (term, vote) for name, term, vote in _rows(database, "member", "name")}
    snapshots = {
        name: _snapshot(index, term, membership, data)
        for name, index, term, membership, data in _rows(database, "snapshot", "member")
    }
    logs: dict[str, list[Entry]] = {}
    entries: dict[int, Entry] = {}
    for name, index, term, kind, data in _log_rows(database):
        entry = Entry(index, term, kind, data)
        # What one member has, most others have too: one object for all, as before the restart.
        shared = entries.setdefault(index, entry)
        logs.setdefault(name, []).append(shared if shared == entry else entry)
    for name in sorted(hard.keys() | snapshots.keys() | logs.keys()):
        term, vote = hard.get(name, (0, ""))
        snapshot, log = snapshots.get(name, Snapshot()), tuple(logs.get(name, ()))
        members[name] = MemberState(term=term, vote=vote, snapshot=snapshot, log=log)
    records: dict[str, list[bytes]] = {}
    for kind, _, body in _rows(database, "record", "kind, key"):
        records.setdefault(kind, []).append(body)
    return Saved(
        events=tuple(LoggedEvent(*fields) for fields in _event_rows(database)),
        members=members,
        records={kind: tuple(bodies) for kind, bodies in records.items()},
        values=dict(_rows(database, "value", "name")),
        revoked=read_revoked(database),
    )


def read_revoked(database: sqlite3.Connection) -> dict[str, float]:
    """`Saved.revoked` alone. Raises `StoreDamaged`."""
    return dict(_rows(database, "revoked", "jti"))


def check(database: sqlite3.Connection) -> None:
    """Raises what `read` raises, and holds one row at a time."""
    for table in ("member", "snapshot", "record", "value", "revoked"):
        deque(_rows(database, table, "1"), maxlen=0)
    deque(_log_rows(database), maxlen=0)
    deque(_event_rows(database), maxlen=0)


def _log_rows(database: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    due = {name: index + 1 for name, index in database.execute("SELECT member, idx FROM snapshot")}
    for row in _rows(database, "log", "member, idx"):
        name, index = row[:2]
        if index != due.get(name, 1):
            raise StoreDamaged(f"entry {due.get(name, 1)} of {name}'s log is missing")
        due[name] = index + 1
        yield row


def _event_rows(database: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    due = None
    for row in _rows(database, "event", "seq") if version >= EVENTS_SINCE else ():
        if due not in {None, row[0]}:
            raise StoreDamaged(f"event {due} is missing")
        due = row[0] + 1
        yield row


Field = str | int | float | bytes


def _row(*fields: Field) -> tuple[Field, ...]:
    """The fields and their CRC-32."""
    crc = 0
    for field in fields:
        crc = crc32(field if isinstance(field, bytes) else str(field).encode(), crc)
    return *fields, crc


def _rows(database: sqlite3.Connection, table: str, order: str) -> Iterator[tuple[Any, ...]]:
    # The names are constants of this module; SQL cannot bind names.
    for row in database.execute(f"SELECT * FROM {table} ORDER BY {order}"):  # noqa: S608
        fields = row[:-1]
        if _row(*fields) != row:
            raise StoreDamaged(f"the row {fields[0]!r} of table {table!r} does not match its checksum")
        yield fields


def _replace_suffix(database: sqlite3.Connection, member: str, entries: tuple[Entry, ...]) -> None:
    if not entries:
        return
    first = entries[0].index
    if any(after.index != before.index + 1 for before, after in pairwise(entries)):
        raise ValueError(f"the entries for {member}'s log are not contiguous")
    database.execute("DELETE FROM log WHERE member = ? AND idx >= ?", (member, first))
    snapshot_index = _snapshot_index(database, member)
    (last,) = database.execute("SELECT max(idx) FROM log WHERE member = ?", (member,)).fetchone()
    if not snapshot_index < first <= max(last or 0, snapshot_index) + 1:
        raise ValueError(f"entry {first} does not join on to {member}'s log")
    database.executemany(
        "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)",
        (_row(member, entry.index, entry.term, entry.kind, entry.data) for entry in entries),
    )


def _replace_snapshot(database: sqlite3.Connection, member: str, snapshot: Snapshot, keeps_log: bool) -> None:
    if snapshot.index < _snapshot_index(database, member):
        raise ValueError(f"snapshot {snapshot.index} of {member} is older than the stored one")
    membership = encode_membership(snapshot.membership, snapshot.learners)
    database.execute(
        "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?, ?, ?)",
        _row(member, snapshot.index, snapshot.term, membership, snapshot.data),
    )
    if keeps_log:
        database.execute("DELETE FROM log WHERE member = ? AND idx <= ?", (member, snapshot.index))
    else:
        database.execute("DELETE FROM log WHERE member = ?", (member,))


def _snapshot(index: int, term: int, membership: bytes, data: bytes) -> Snapshot:
    members = decode_membership(membership)
    return Snapshot(index, term, members.voters, data, members.learners)


def _snapshot_index(database: sqlite3.Connection, member: str) -> int:
    row = database.execute("SELECT idx FROM snapshot WHERE member = ?", (member,)).fetchone()
    return int(row[0]) if row else 0
