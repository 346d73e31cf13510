"""The cluster's other members: list, add, remove."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from heliosd.cluster.backend import Peer
from heliosd.config.addresses import member_address, member_id
from heliosd.errors import NotFound
from heliosd.protocol.views.latency import AddressKind
from heliosd.protocol.views.status import PeerState
from heliosd.web.rest.arguments import checked, one_of
from heliosd.web.rest.route import Answer, Call, Nothing


class PeerList(Struct, frozen=True):
    peers: tuple[PeerState, ...]


class NewPeer(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    address: str


class AddedPeer(Struct, frozen=True):
    id: str
    address: str
    address_kind: AddressKind | UnsetType = UNSET


class PeerAdded(Struct, frozen=True):
    message: str
    peer: AddedPeer


class ById(Struct, frozen=True, forbid_unknown_fields=True):
    id: str | UnsetType = UNSET


class PeerRemoved(Struct, frozen=True):
    message: str
    peer_id: str


async def list_peers(call: Call[Nothing, Nothing]) -> Answer:
    return Answer(body=PeerList(call.services.backend.status().peer_states))


async def add_peer(call: Call[Nothing, NewPeer]) -> Answer:
    peer = call.body
    peer_id = checked(member_id, peer.id, "id")
    address = checked(member_address, peer.address, "address")
    added = await call.services.backend.add_peer(Peer(peer_id, address), again=call.repeated)
    body = PeerAdded("Peer added successfully", AddedPeer(added.id, added.address, added.address_kind))
    return Answer(status=201, body=body)


async def remove_peer(call: Call[ById, ById]) -> Answer:
    peer_id = checked(member_id, one_of(call.query.id, call.body.id, "id"), "id")
    try:
        await call.services.backend.remove_peer(peer_id)
    except NotFound:
        if not call.repeated:
            raise
    return Answer(body=PeerRemoved("Peer removed successfully", peer_id))
