"""The members of an etcd cluster as heliosd shows them, and the events between two lists of members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from heliosd.cluster.etcd.client.responses import EtcdMember
from heliosd.errors import Conflict, NotFound
from heliosd.protocol.events import PeerChanged, PeerEvent
from heliosd.protocol.views.latency import AddressKind


class KnownMember(Struct, frozen=True):
    """A member as it is shown, and as it is recorded under the prefix."""

    id: str
    """Lower-case hex, as etcdctl prints it."""
    name: str
    """"" until the member has started once."""
    address: str
    """`HOST:PORT` of its first client URL; of its peer URL until a client URL is known."""
    learner: bool

    @property
    def address_kind(self) -> AddressKind:
        """A member publishes its name and its client URLs together."""
        return "client" if self.name else "peer"


def known(members: Iterable[EtcdMember]) -> tuple[KnownMember, ...]:
    """These members by id: etcd lists members, and their URLs, in any order."""
    shown = (KnownMember(each.id, each.name, address_of(each), each.is_learner) for each in members)
    return tuple(sorted(shown, key=lambda each: each.id))


def completed(
    urls: Mapping[str, str], listed: Iterable[EtcdMember], recorded: Iterable[KnownMember]
) -> tuple[EtcdMember, ...]:
    """The members with these ids, each with the URL that answers for it ("": none), where no list can be had: who
    is not in the last list is as it was recorded, or has no name and counts as a voter."""
    old = {each.id: each for each in listed}
    kept = {each.id: each for each in recorded}

    def member(each: str, url: str) -> EtcdMember:
        found, record = old.get(each), kept.get(each)
        name = record.name if record is not None else ""
        learner = record is not None and record.learner
        return found or EtcdMember(each, name, (), (url,) if url else (), learner)

    return tuple(member(each, url) for each, url in sorted(urls.items()))


def bearing(members: Iterable[EtcdMember], text: str) -> tuple[EtcdMember, ...]:
    """The member with this id, else all that are called so."""
    each_list = list(members)
    return tuple(each for each in each_list if each.id == text) or tuple(
        each for each in each_list if each.name == text
    )


def find(members: Iterable[EtcdMember], text: str, *, field: str = "id") -> EtcdMember:
    """The member with this id or name. Raises `NotFound`, and `Conflict` for a name that several bear."""
    found = bearing(members, text)
    if not found:
        raise NotFound("Unknown peer", field=field)
    if len(found) > 1:
        ids = ", ".join(sorted(each.id for each in found))
        raise Conflict(f"{len(found)} members are called {text}: {ids}", field=field)
    return found[0]


def address_of(member: EtcdMember) -> str:
    """`HOST:PORT` for its clients (see `KnownMember`), "" if it has no URL at all."""
    urls = member.client_urls or member.peer_urls
    return _netloc(min(urls)) if urls else ""


def peers_at(member: EtcdMember, address: str) -> bool:
    """Whether other members reach this one at `HOST:PORT`."""
    return any(_netloc(url) == address for url in member.peer_urls)


def _netloc(url: str) -> str:
    """`HOST:PORT`; as it stands where it is no URL (a member lists what its configuration has)."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return url


def kind_of(member: EtcdMember) -> AddressKind:
    """The kind of `address_of`."""
    return "client" if member.client_urls else "peer"


def differences(before: Sequence[KnownMember], after: Sequence[KnownMember]) -> tuple[PeerChanged, ...]:
    """The events that lead from one list to the other, in the same order on every node.

    Removed, added, promoted, renamed, and by id within each. A member's first name counts as renamed. A changed
    address alone is no event.
    """
    old, new = ({each.id: each for each in each_list} for each_list in (before, after))
    both = sorted(old.keys() & new.keys())

    def changed(kind: PeerEvent, ids: Iterable[str], source: dict[str, KnownMember]) -> list[PeerChanged]:
        return [
            PeerChanged(
                event_type=kind,
                peer_id=each,
                peer_address=source[each].address,
                address_kind=source[each].address_kind,
                peer_name=source[each].name,
            )
            for each in sorted(ids)
        ]

    return (
        *changed("removed", old.keys() - new.keys(), old),
        *changed("added", new.keys() - old.keys(), new),
        *changed("promoted", (each for each in both if old[each].learner and not new[each].learner), new),
        *changed("renamed", (each for each in both if old[each].name != new[each].name), new),
    )
