"""Events as the cluster's own log numbers them, before a hub has seen them."""

from __future__ import annotations

import json

from heliosd.store.changes import LoggedEvent

from .hub_harness import now


def logged(seq: int, name: str = "peer_change", data: object = None) -> LoggedEvent:
    """An event of this type under this number; without `data` its data hold the number."""
    message = {
        "type": name,
        "timestamp": "2026-11-23T00:00:00.000000Z",
        "seq": seq,
        "data": data or {"n": seq},
    }
    return LoggedEvent(seq=seq, at=now().wall, type=name, payload=json.dumps(message).encode())
