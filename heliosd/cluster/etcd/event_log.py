"""The event log that all heliosd of one etcd cluster write together, each event once.

An append is one transaction. It requires that the head is the one its writer read and that none of its dedupe keys
exists, and writes the dedupe keys, the events under the next numbers, and the head. A writer that loses the race
finds the newer head in the answer and composes again. So the numbers have no hole, and nodes that want the same
event logged derive the same dedupe key. `pending_events.py` says which events there are to append.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from msgspec import Struct, structs
from msgspec.structs import replace

from heliosd.cluster.etcd.client.requests import Compare, Op, absent, delete, get, mod_is, put
from heliosd.cluster.etcd.client.responses import KeyValue, TxnResult
from heliosd.errors import BAD_JSON
from heliosd.protocol import server_messages
from heliosd.protocol.events import Event, Stamped, StateChanged
from heliosd.store.changes import LoggedEvent

from .keys import KeyLayout
from .members import KnownMember

MAX_OPS = 100
"""Operations, and compares, in one transaction of ours. etcd refuses more than 128 (`--max-txn-ops`)."""


class LogHead(Struct, frozen=True, kw_only=True):
    """Where the log stands. The leader is that of the last event about a leader."""

    birth: str
    """Random; another one means that the numbers began again."""
    cluster: str
    """The id of the etcd cluster in which the log began. A restored cluster usually has another one."""
    seq: int = 0
    term: int = 0
    leader: str = ""
    """"" after its loss was logged."""
    turn: int = 0
    """The number of the last event about a leader or its loss."""

    @property
    def epoch(self) -> str:
        """The epoch as clients see it: with a number it names one event for good."""
        return f"{self.cluster}-{self.birth}"

    def knows_more(self, term: int, leader: str) -> bool:
        """Its writer has seen a loss or an election after that of `leader` in `term`."""
        return self.term > term or (self.term == term and self.leader != leader)

    def ahead_of(self, term: int, leader: str) -> bool:
        """The same, but not where the log only lacks the loss of its leader, which this node has seen."""
        return self.knows_more(term, leader) and (self.term > term or bool(leader))


class MembersRecord(Struct, frozen=True, kw_only=True):
    """The members as of the newest logged event about them, by id."""

    members: tuple[KnownMember, ...] = ()
    unhealthy: tuple[str, ...] = ()
    """Ids, ascending."""


class SeenHead(Struct, frozen=True):
    """The head as it was read. None: there is none, or it is not readable; then `begin` writes a new one."""

    head: LogHead | None = None
    mod_revision: int = 0
    """0: the key does not exist."""


class SeenMembers(Struct, frozen=True):
    """The members record as it was read. None: there is none, or it is not readable."""

    record: MembersRecord | None = None
    mod_revision: int = 0


class LogItem(Struct, frozen=True):
    """One event to be logged. `key` is its dedupe key, the same on every node that wants this event logged;
    "" for an event that another compare of the transaction guards."""

    key: str
    event: Event


class NewMembers(Struct, frozen=True, kw_only=True):
    """A record that replaces exactly the one with this mod_revision (0: there is none)."""

    record: MembersRecord
    instead_of: int


class Append(Struct, frozen=True, kw_only=True):
    """What a node wants to log in one transaction: all of it or nothing."""

    items: tuple[LogItem, ...] = ()
    members: NewMembers | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.items) or self.members is not None

    def without(self, logged: Collection[str]) -> Append:
        """The same without the events that the log already has."""
        return replace(self, items=tuple(item for item in self.items if item.key not in logged))


class Draft(Struct, frozen=True, kw_only=True):
    """One transaction, and what the log has gained once it succeeds."""

    compares: tuple[Compare, ...]
    then: tuple[Op, ...]
    otherwise: tuple[Op, ...]
    """Reads what `outcome` needs: the head, the members, and the dedupe keys in the order of `keys`."""
    head: LogHead
    events: tuple[LoggedEvent, ...] = ()
    keys: tuple[str, ...] = ()


class Logged(Struct, frozen=True):
    """The log has these events since `revision`."""

    events: tuple[LoggedEvent, ...]
    revision: int


class AlreadyLogged(Struct, frozen=True):
    """Another node, or an earlier attempt of this one, has logged all of it."""


class HeadMoved(Struct, frozen=True):
    """Nothing was written. What etcd holds instead, as of one revision; compose again from that."""

    head: SeenHead
    members: SeenMembers
    logged: frozenset[str]
    """Those dedupe keys of the draft that exist."""
    revision: int


def compose(
    layout: KeyLayout, append: Append, seen: SeenHead, *, lease: str, now_wall: float, max_events: int
) -> Draft:
    """The transaction that appends to the log whose head was `seen`.

    Raises `ValueError` if there is no head (see `begin`), if an event about a leader does not fit the head, or for
    too many events.
    """
    head, events, then = log_ops(
        layout, append.items, seen, lease=lease, now_wall=now_wall, max_events=max_events
    )
    keys = tuple(item.key for item in append.items if item.key)
    compares = [
        mod_is(layout.head, seen.mod_revision),
        *(absent(layout.dedupe(key)) for key in keys),
    ]
    then = [*(put(layout.dedupe(key), b"", lease) for key in keys), *then]
    if append.members is not None:
        compares.append(mod_is(layout.members, append.members.instead_of))
        then.append(put(layout.members, msgspec.json.encode(append.members.record)))
    reads = (layout.head, layout.members, *(layout.dedupe(key) for key in keys))
    if max(len(compares), len(then), len(reads)) > MAX_OPS:
        raise ValueError(f"{len(append.items)} events are too many for one transaction")
    return Draft(
        compares=tuple(compares),
        then=tuple(then),
        otherwise=tuple(get(key) for key in reads),
        head=head,
        events=events,
        keys=keys,
    )


def begin(
    layout: KeyLayout,
    seen: SeenHead,
    *,
    cluster_id: str,
    birth: str,
    members: Sequence[KnownMember] = (),
    term: int = 0,
    leader: str = "",
) -> Draft:
    """The transaction that begins a log: the first one, or a new one where the old one was set back or belongs to
    another cluster. It deletes the old log; numbers start from 1 again.

    The present leader and members are recorded without an event. `birth`: 12 random URL-safe characters.
    """
    head = LogHead(birth=birth, cluster=cluster_id, term=term, leader=leader)
    record = MembersRecord(members=tuple(members))
    return Draft(
        compares=(mod_is(layout.head, seen.mod_revision),),
        then=(
            delete(layout.folder("events"), layout.folder_end("events")),
            delete(layout.folder("dedupe"), layout.folder_end("dedupe")),
            put(layout.members, msgspec.json.encode(record)),
            put(layout.head, msgspec.json.encode(head)),
        ),
        otherwise=(get(layout.head), get(layout.members)),
        head=head,
    )


def outcome(draft: Draft, result: TxnResult) -> Logged | AlreadyLogged | HeadMoved:
    """The outcome of a draft. After an unknown outcome compose the same append again on the head as it is then: if
    the first attempt was carried out after all, this returns `AlreadyLogged`."""
    if result.succeeded:
        return Logged(draft.events, result.header.revision)
    head, members, *keys = result.responses
    logged = frozenset(key for key, found in zip(draft.keys, keys, strict=True) if found)
    if logged and len(logged) == len(draft.events):
        return AlreadyLogged()
    return HeadMoved(read_head(head), read_members(members), logged, result.header.revision)


def log_ops(
    layout: KeyLayout,
    items: Sequence[LogItem],
    seen: SeenHead,
    *,
    lease: str,
    now_wall: float,
    max_events: int,
) -> tuple[LogHead, tuple[LoggedEvent, ...], list[Op]]:
    """The head after `items`, the logged events, and the operations that write them; the caller adds the compare
    of the head. Without items nothing is written. Raises as `compose` does."""
    if seen.head is None:
        raise ValueError("a log has to begin before events are appended to it")
    head = seen.head
    events: list[LoggedEvent] = []
    for item in items:
        head = _after(head, item.event)
        logged = server_messages.of_event(Stamped(head.seq, now_wall, item.event))
        events.append(LoggedEvent(head.seq, now_wall, logged.type, logged.payload))
    then: list[Op] = [put(layout.event(event.seq), event.payload, lease) for event in events]
    if events:
        then.append(put(layout.head, msgspec.json.encode(head)))
        # etcd refuses a transaction that both puts and deletes a key.
        oldest = min(head.seq + 1 - max_events, seen.head.seq + 1)
        if oldest > 1:
            then.append(delete(layout.folder("events"), layout.event(oldest)))
    return head, tuple(events), then


def read_head(found: Sequence[KeyValue]) -> SeenHead:
    """The head out of a range answer."""
    if not found:
        return SeenHead()
    try:
        head = msgspec.json.decode(found[0].value, type=LogHead)
    except BAD_JSON:
        head = None
    return SeenHead(head, found[0].mod_revision)


def read_members(found: Sequence[KeyValue]) -> SeenMembers:
    """The members record out of a range answer."""
    if not found:
        return SeenMembers()
    try:
        record = msgspec.json.decode(found[0].value, type=MembersRecord)
    except BAD_JSON:
        record = None
    return SeenMembers(record, found[0].mod_revision)


def _after(head: LogHead, event: Event) -> LogHead:
    """The head once `event` is logged."""
    seq = head.seq + 1
    match event:
        case StateChanged(new_state="Leader"):
            if head.leader or event.term < head.term:
                raise ValueError("a new leader is logged only after the loss of the one before it")
            return structs.replace(head, seq=seq, term=event.term, leader=event.leader, turn=seq)
        case StateChanged():
            if (event.member, event.term) != (head.leader, head.term):
                raise ValueError("only the leader in the head can be logged as lost")
            return structs.replace(head, seq=seq, leader="", turn=seq)
        case _:
            return structs.replace(head, seq=seq)
