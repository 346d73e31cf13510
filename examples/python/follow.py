"""Follows the cluster with heliosd's own client, over restarts of both sides, and never loses an event in silence.

    pip install heliosd        # or run it from a checkout of heliosd
    HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… python follow.py

Where it stopped is kept in the file `follow.cursor`; the next run goes on from there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import trio

from heliosd.client import Cursor, Disconnected, Gap, Message, Password, open_client

CURSOR = Path(os.environ.get("FOLLOW_CURSOR", "follow.cursor"))


def stored() -> Cursor | None:
    with suppress(FileNotFoundError):
        epoch, seq = CURSOR.read_text(encoding="ascii").split()
        return Cursor(epoch, int(seq))
    return None


def store(cursor: Cursor | None) -> None:
    if cursor is not None:
        new = CURSOR.with_suffix(".new")
        new.write_text(f"{cursor.epoch} {cursor.after}\n", encoding="ascii")
        new.replace(CURSOR)


async def main() -> None:
    url = os.environ.get("HELIOSD_URL", "http://127.0.0.1:8080")
    who = Password(os.environ["HELIOSD_USER"], os.environ["HELIOSD_PASSWORD"])
    async with open_client(url, who, since=stored(), notices=True) as client:
        async for item in client:
            match item:
                case Message(type="peer_change", data=data):
                    print(f"peer {data['peer_id']} {data['event_type']}", flush=True)
                case Message(type="state_change", data=data):
                    print(f"term {data['term']}: leader {data['leader'] or 'unknown'}", flush=True)
                case Message(type="custom_metrics", seq=None, data=data):
                    for name, metric in data.items():
                        print(f"{name} = {metric['value']}", flush=True)
                case Message(type="status", data=data):
                    # Replaces all that was known: after a connection, and after a gap.
                    print(
                        f"{data['node_id']} is {data['state']}, {data['leader'] or 'nobody'} leads",
                        flush=True,
                    )
                case Gap():
                    print(f"missed {item.from_seq} to {item.to_seq}: {item.reason}", flush=True)
                case Disconnected():
                    print(f"{item.reason}; again in {item.retry_in:.1f} s", file=sys.stderr)
            # Behind the work, so that what was stored has been dealt with.
            if isinstance(item, Gap) or (isinstance(item, Message) and item.seq is not None):
                store(client.cursor)


if __name__ == "__main__":
    try:
        trio.run(main)
    except KeyboardInterrupt:
        sys.exit(130)
