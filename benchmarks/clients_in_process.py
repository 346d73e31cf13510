"""Clients of the fan-out without a daemon around it."""

from __future__ import annotations

from heliosd.auth.identity import Identity, TokenOrigin
from heliosd.hub.client import HubClient
from heliosd.hub.transport import Transport
from heliosd.protocol.message import Kind, OutgoingMessage
from heliosd.protocol.subscription import Topic


def status_message(payload: bytes) -> OutgoingMessage:
    """A message that nothing has been derived from yet."""
    return OutgoingMessage("status_update", Kind.VALUE, Topic.STATUS, payload)


def client_on(serial: int, transport: Transport) -> HubClient:
    """A client of everything, with this connection."""
    identity = Identity(
        user_id="viewer",
        roles=(),
        permissions=frozenset(),
        jti="",
        issued_at=0.0,
        expires_at=0.0,
        token_origin=TokenOrigin(issuer="", audience="", key="", password=""),
    )
    return HubClient(
        serial=serial,
        id=str(serial),
        identity=identity,
        address="",
        since=0.0,
        transport=transport,
        send_buffer=256,
    )


def must_be_done(client: HubClient) -> None:
    """In place of the hub's `settle`: the sockets of a measurement take everything."""
    assert not client.behind
