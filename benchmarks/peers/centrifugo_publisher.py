"""Publishes a status message to a Centrifugo at each beat, by its HTTP API.

usage: centrifugo_publisher URL INTERVAL_MS MESSAGE_BYTES. It prints the address of that Centrifugo as soon as it
answers: `beats.py` says the rest.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import sys
import time
from urllib.parse import urlsplit

from .beats import keep, message, print_ready

CHANNEL = "status"
AROUND = len('{"channel":"status","pub":{"data":}}')
"""What a client receives around the data."""
START_SECONDS = 15.0


def connected(url: str) -> http.client.HTTPConnection:
    """A connection that is kept, once there is somebody to connect to. Raises OSError if there is none in time."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), int(parts.port or 0)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    deadline = time.monotonic() + START_SECONDS
    while True:
        found = (
            http.client.HTTPSConnection(host, port, context=anybody)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, port)
        )
        try:
            found.connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # until it listens
        else:
            return found


def main() -> None:
    """Publish until stopped."""
    url, interval, size = sys.argv[1], float(sys.argv[2]) / 1000, int(sys.argv[3])
    connection = connected(url)

    def publish() -> None:
        data = json.loads(message(size - AROUND))
        body = json.dumps({"channel": CHANNEL, "data": data}, separators=(",", ":"))
        connection.request("POST", "/api/publish", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200 or b'"error"' in said:
            raise SystemExit(f"not published: {answer.status} {said.decode(errors='replace')}")

    publish()
    parts = urlsplit(url)
    print_ready((str(parts.hostname), int(parts.port or 0)))
    asyncio.run(keep(publish, interval))


if __name__ == "__main__":
    main()
