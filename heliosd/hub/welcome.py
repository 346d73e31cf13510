"""The first message of a connection that asked to resume, and what everybody hears when the epoch changes."""

from __future__ import annotations

from .. import messages
from ..clock import rfc3339
from ..history import History, Replay
from ..message import Message
from .client import Client


def welcome_to(client: Client, history: History, replay: Replay, at: float) -> Message:
    """Where things stand, and whether what `client` missed follows."""
    welcome = messages.Welcome(
        client_id=client.id,
        epoch=history.epoch,
        seq=history.seq,
        oldest_seq=history.oldest_seq,
        recovered=replay.refusal is None,
        reason=replay.refusal,
        replayed=len(replay.events),
        expires_at=rfc3339(client.identity.expires_at),
    )
    return messages.of_welcome(welcome, at)
