"""The connected clients, and disconnecting one."""

from __future__ import annotations

from msgspec import Struct

from heliosd.errors import NotFound
from heliosd.hub.client_view import ClientView
from heliosd.web.rest.arguments import one_of
from heliosd.web.rest.route import Answer, Call, Nothing

from .peers import ById


class ClientList(Struct, frozen=True):
    clients: list[ClientView]
    total: int


class ClientGone(Struct, frozen=True):
    message: str
    client_id: str


async def list_clients(call: Call[Nothing, Nothing]) -> Answer:
    clients = await call.services.roster.views()
    return Answer(body=ClientList(clients, len(clients)))


async def disconnect_client(call: Call[ById, ById]) -> Answer:
    client_id = one_of(call.query.id, call.body.id, "id")
    if not call.services.roster.disconnect(client_id):
        raise NotFound("Unknown client", field="id")
    return Answer(body=ClientGone("Client disconnected successfully", client_id))
