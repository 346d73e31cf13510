"""The first message of a connection that asked to resume, and what everybody hears when the epoch changes."""

from __future__ import annotations

from heliosd.clock import rfc3339
from heliosd.protocol import server_messages
from heliosd.protocol.history import History, Replay
from heliosd.protocol.message import OutgoingMessage

from .client import HubClient


def welcome_message(client: HubClient, history: History, replay: Replay, at: float) -> OutgoingMessage:
    """Where things stand, and whether what `client` missed follows."""
    welcome = server_messages.Welcome(
        client_id=client.id,
        epoch=history.epoch,
        seq=history.seq,
        oldest_seq=history.oldest_seq,
        recovered=replay.refusal is None,
        reason=replay.refusal,
        replayed=len(replay.events),
        expires_at=rfc3339(client.identity.expires_at),
    )
    return server_messages.of_welcome(welcome, at)
