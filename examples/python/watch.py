"""Prints what happens in the cluster. Needs `websockets` (pip install websockets) and nothing else.

    HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… python watch.py

Logs in, subscribes, pings, and when the connection ends logs in and connects again, each time after a longer wait.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

URL = os.environ.get("HELIOSD_URL", "http://127.0.0.1:8080").rstrip("/")
PING_SECONDS = 20.0
LONGEST_WAIT_SECONDS = 30.0
WANTED = ("status", "latency", "uptime", "snapshot", "custom_metrics", "state_changes", "peer_changes")


def log_in(user: str, password: str) -> str:
    """Returns a token. Exits when the daemon refuses; raises OSError when it cannot be reached."""
    request = urllib.request.Request(
        f"{URL}/api/auth/login",
        data=json.dumps({"username": user, "password": password}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["token"])
    except urllib.error.HTTPError as refusal:  # an OSError, too
        if refusal.code in (400, 401, 403):
            sys.exit(f"login refused: {refusal.read().decode(errors='replace')}")
        raise


def lines(message: dict[str, Any]) -> Iterator[str]:
    """What to print of one message. A client must ignore the types and keys it does not know."""
    data = message.get("data") or {}
    match message["type"]:
        case "status" | "status_update":
            leader = data["leader"] or "nobody"
            yield f"{data['node_id']} is {data['state']} in term {data['term']}, {leader} leads"
        case "state_change":
            yield f"{data['old_state']} -> {data['new_state']} in term {data['term']}"
        case "peer_change":
            yield f"peer {data['peer_id']} {data['event_type']}"
        case "custom_metrics":
            for name, metric in data.items():
                yield f"{name} = {metric['value'] if metric else 'deleted'}"
        case "error":
            yield f"error: {data['error']}"
        case kind:
            yield kind


async def ping(socket: ClientConnection) -> None:
    while True:
        await asyncio.sleep(PING_SECONDS)
        await socket.send(json.dumps({"type": "ping"}))


async def watch(token: str) -> None:
    """Shows messages until the connection ends. Raises OSError, InvalidStatus or ConnectionClosed."""
    target = f"ws{URL.removeprefix('http')}/ws/cluster?token={quote(token)}"
    async with connect(target) as socket, asyncio.TaskGroup() as group:
        await socket.send(json.dumps({"type": "subscribe", "data": dict.fromkeys(WANTED, True)}))
        pings = group.create_task(ping(socket))
        async for text in socket:
            message = json.loads(text)
            for line in lines(message):
                print(message["timestamp"], line, flush=True)  # at once, also into a pipe
        pings.cancel()


async def main(user: str, password: str) -> None:
    wait = 1.0
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await watch(await asyncio.to_thread(log_in, user, password))
            print("the daemon closed the connection", file=sys.stderr)
        except* (OSError, InvalidStatus, ConnectionClosed) as lost:
            print(*lost.exceptions, sep="\n", file=sys.stderr)
        if asyncio.get_running_loop().time() - started > 60:
            wait = 1.0
        # Spread by chance: many clients lose a daemon at one moment.
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)


if __name__ == "__main__":
    name = os.environ.get("HELIOSD_USER") or input("User: ")
    secret = os.environ.get("HELIOSD_PASSWORD") or getpass.getpass()
    try:
        asyncio.run(main(name, secret))
    except KeyboardInterrupt:
        sys.exit(130)
