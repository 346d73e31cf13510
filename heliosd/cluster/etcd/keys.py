"""What heliosd keeps in etcd, and under which keys. All of it lies under one prefix, and nothing else does.

head                 the log's head: its birth, the newest number, the leader as last logged
members              the members as last logged
events/<16 hex>      one event of the log, the bytes that clients get         (lease)
told/<dedupe key>    the log has this event                                   (lease)
metrics/<name>       one custom metric
observers/<node id>  a heliosd that is present                                (lease)
observer             the heliosd that logs the members' health                (lease)
learners/<address>   a learner at this peer address is to be promoted once it is in sync
leaving/<hex id>     a member that is about to be removed: no heliosd talks to it    (lease)
revoked/<jti>        a revoked token                                          (lease)
permit               the permit to stop a member, while one is out            (lease)
permitted            rewritten with every permit that is given
answers/<key id>     the answer to a write with an Idempotency-Key            (lease)
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from msgspec import Struct

from heliosd.cluster.etcd.client.requests import prefix_end

Single = Literal["head", "members", "observer"]
Folder = Literal["events", "dedupe", "metrics", "observers", "learners", "leaving", "revoked", "answers"]
Part = Single | Folder

_SINGLES: Final = {name.encode(): name for name in get_args(Single)}
_STORED_AS: Final[dict[Folder, bytes]] = {"dedupe": b"told"}
"""Folders whose name in etcd is another one."""
_FOLDERS: Final = {_STORED_AS.get(name, name.encode()): name for name in get_args(Folder)}


class KeyMeaning(Struct, frozen=True):
    """Where a key belongs: `name` is what follows the folder's slash, "" for keys outside of folders."""

    part: Part
    name: str = ""


class KeyLayout:
    """Makes and reads the keys under one prefix. Slashes are added at its ends if need be."""

    def __init__(self, prefix: str) -> None:
        inner = prefix.strip("/")
        self.prefix = b"/%s/" % inner.encode() if inner else b"/"
        self.end = prefix_end(self.prefix)
        """The first key beyond the prefix: `[prefix, end)` is everything that heliosd writes."""
        self.head = self.prefix + b"head"
        self.members = self.prefix + b"members"
        self.observer = self.prefix + b"observer"
        self.permit = self.prefix + b"permit"
        self.permitted = self.prefix + b"permitted"

    def folder(self, folder: Folder) -> bytes:
        """The prefix of all keys in the folder."""
        return b"%s%s/" % (self.prefix, _STORED_AS.get(folder, folder.encode()))

    def folder_end(self, folder: Folder) -> bytes:
        """The first key beyond the folder."""
        return prefix_end(self.folder(folder))

    def event(self, seq: int) -> bytes:
        """The key of an event; etcd's order of keys is the order of their numbers."""
        return b"%s%016x" % (self.folder("events"), seq)

    def dedupe(self, dedupe_key: str) -> bytes:
        return self.folder("dedupe") + _bytes(dedupe_key)

    def metric(self, name: str) -> bytes:
        return self.folder("metrics") + _bytes(name)

    def present(self, node_id: str) -> bytes:
        """The key by which a heliosd shows that it is present."""
        return self.folder("observers") + _bytes(node_id)

    def learner(self, address: str) -> bytes:
        return self.folder("learners") + _bytes(address)

    def leaving(self, member_id: str) -> bytes:
        return self.folder("leaving") + _bytes(member_id)

    def revoked(self, jti: str) -> bytes:
        return self.folder("revoked") + _bytes(jti)

    def answer(self, key_id: str) -> bytes:
        return self.folder("answers") + _bytes(key_id)

    def meaning(self, key: bytes) -> KeyMeaning | None:
        """Where a key belongs; None: it is not one that the mirror holds (`EtcdPermits` reads those of permits)."""
        if not key.startswith(self.prefix):
            return None
        first, slash, name = key[len(self.prefix) :].partition(b"/")
        if not slash:
            single = _SINGLES.get(first)
            return None if single is None else KeyMeaning(single)
        folder = _FOLDERS.get(first)
        if folder is None or not name:
            return None
        try:
            return KeyMeaning(folder, _text(name))
        except UnicodeDecodeError:
            return None

    def seq(self, meaning: KeyMeaning) -> int | None:
        """The number of an event; None: it is no event."""
        if meaning.part != "events" or len(meaning.name) != 16:
            return None
        try:
            seq = int(meaning.name, 16)
        except ValueError:
            return None
        return seq if b"%016x" % seq == meaning.name.encode() else None


# A token's id comes from outside and may hold a lone surrogate.
def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")
