"""Follows the cluster and misses no event: over restarts of the daemon, of the network and of itself.

    pip install "websockets<18"
    HELIOSD_URL=http://127.0.0.1:8080 HELIOSD_USER=admin HELIOSD_PASSWORD=… python resume.py

Where it stopped is kept in the file HELIOSD_CURSOR; the next run goes on from there. docs/protocol.md shows this
program as the whole of what a client does.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

URL = os.environ.get("HELIOSD_URL", "http://127.0.0.1:8080").rstrip("/")
LOGIN = {"username": os.environ.get("HELIOSD_USER"), "password": os.environ.get("HELIOSD_PASSWORD")}
CURSOR = Path(os.environ.get("HELIOSD_CURSOR", "resume.cursor"))
TOPICS: dict[str, str] = {}  # all; or {"types": "state_changes,peer_changes"}, or {"filter": JSON}


class End(Exception):
    """To connect again is of no use: the program ends."""


class ConnectionLost(Exception):
    """There is no connection, and another attempt is right."""

    def __init__(self, why: str, *, pause: float = 0.0, new_token: bool = False) -> None:
        super().__init__(why)
        self.pause = pause  # seconds, before the delay
        self.new_token = new_token  # the old one must not be used again


class Client:
    token = ""
    cursor: Any = None  # {"epoch": text, "seq": number}

    def run(self) -> None:
        if CURSOR.exists():
            self.cursor = json.loads(CURSOR.read_text())
        failures = 0  # since a connection lasted for 10 s
        renewed = False  # since then: a new token was asked for without a delay
        while True:
            lasted = 0.0
            try:
                if not self.token:
                    self.log_in()
                with self.connection() as socket:
                    opened = time.monotonic()
                    try:
                        self.follow(socket)
                    finally:
                        lasted = time.monotonic() - opened
                self.read_history()
            except ConnectionLost as lost:
                print(lost, file=sys.stderr)
                if lasted >= 10.0:
                    failures, renewed = 0, False
                if lost.new_token:
                    self.token = ""
                if lost.new_token and not renewed:
                    renewed = True
                else:
                    time.sleep(
                        lost.pause + random.uniform(0.25, 1.0) * min(30.0, 0.5 * 2 ** min(failures, 6))
                    )
                    failures += 1

    def connection(self) -> ClientConnection:
        if self.cursor:
            query = {"epoch": self.cursor["epoch"], "after": self.cursor["seq"], **TOPICS}
        else:
            query = {"after": "now", **TOPICS}
        try:
            return connect(
                URL.replace("http", "ws", 1) + "/ws/cluster?" + urlencode(query),
                additional_headers={"Authorization": f"Bearer {self.token}"},
                open_timeout=10.0,
                max_size=2 * 1024 * 1024,
                ping_interval=None,  # follow() sends its own
                close_timeout=1.0,
            )
        except InvalidStatus as refusal:
            answer = refusal.response
            why = answer.body.decode(errors="replace")
            raise refused(answer.status_code, why, answer.headers.get("Retry-After")) from None
        except (OSError, WebSocketException) as failure:
            raise ConnectionLost(f"no connection: {failure}") from None

    def follow(self, socket: ClientConnection) -> None:
        """Take messages until the connection is lost. Returns if events are to be had from the history only."""
        heard = False  # anything since the last ping
        ping_at = time.monotonic() + 20.0
        status_at = time.monotonic() + 600.0
        renew_at = float("inf")
        while True:
            try:
                text = socket.recv(timeout=max(0.0, min(ping_at, renew_at) - time.monotonic()))
            except TimeoutError:
                text = None
            except ConnectionClosed as closed:
                raise after_close(closed) from None
            if text is not None:
                heard = True
                message = json.loads(text)
                match message["type"]:
                    case "welcome" if message["data"]["reason"] == "too_many":
                        return  # the connection is closed, and nothing more of it is taken
                    case "gap":
                        # Take nothing more: the cursor is before it, and the next connection brings its events.
                        raise ConnectionLost("the daemon dropped events: this client was too slow")
                    case "token_expiring":
                        renew_at = 0.0
                    case "error" if message.get("id") == "auth":
                        renew_at = time.monotonic() + 1.0
                self.take(message)
            now = time.monotonic()
            if now >= ping_at and not heard:
                raise ConnectionLost("nothing was received for 20 s")
            try:
                if now >= ping_at:
                    socket.send('{"type":"ping"}')
                    heard, ping_at = False, now + 20.0
                if now >= status_at:
                    # Its as_of_seq moves the cursor where a filter lets few events through.
                    socket.send('{"type":"status"}')
                    status_at = now + 600.0
                if now >= renew_at:
                    renew_at = self.renew(socket) + time.monotonic()
            except ConnectionClosed:  # recv() says why, once all that was sent before is taken
                ping_at = status_at = renew_at = float("inf")

    def take(self, message: Any) -> None:
        """What each message does. Unknown types and keys are ignored."""
        show(message)
        data = message.get("data")
        if message["type"] == "welcome":
            if self.cursor and not data["recovered"]:
                print(f"LOST: what came after {self.cursor}: {data['reason']}")
            if not self.cursor or not data["recovered"]:
                self.store(data["epoch"], data["seq"])
        elif message["type"] == "status":  # it replaces all that was known
            self.store(self.cursor["epoch"], max(self.cursor["seq"], data["as_of_seq"]))
        elif "seq" in message:  # a numbered event
            self.store(self.cursor["epoch"], message["seq"])

    def read_history(self) -> None:
        """Read the events after the cursor, page by page."""
        more = True
        while more:
            query = {"epoch": self.cursor["epoch"], "after": self.cursor["seq"], "limit": 1000, **TOPICS}
            status, page = self.ask("GET", "/api/cluster/history?" + urlencode(query), 403, 410)
            if status != 200:  # no right to read it; not kept any more
                print(f"LOST: what came after {self.cursor}: {status}")
                self.cursor = None
                return
            for message in page["events"]:
                self.take(message)
            more = page["more"]
        self.store(self.cursor["epoch"], max(self.cursor["seq"], page["seq"]))

    def log_in(self) -> None:
        self.token = ""
        status, answer = self.ask("POST", "/api/auth/login", 401, body=LOGIN)
        if status == 401:
            raise End("wrong name or password")
        self.token = answer["token"]

    def renew(self, socket: ClientConnection) -> float:
        """Put a new token in the place of the one that ends. Returns after how many seconds to try again."""
        try:
            status, answer = self.ask("POST", "/api/auth/refresh", 401)
            if status == 200:
                self.token = answer["token"]
            else:
                self.log_in()
        except ConnectionLost as failure:
            return max(3.0, failure.pause)
        socket.send(json.dumps({"type": "auth", "id": "auth", "data": {"token": self.token}}))
        return float("inf")

    def ask(self, method: str, path: str, *expected: int, body: object = None) -> tuple[int, Any]:
        """200 and the decoded body, or another status that the caller expects."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            with urlopen(Request(URL + path, data, headers, method=method), timeout=10.0) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            if error.code in expected:
                return error.code, None
            raise refused(error.code, str(error.reason), error.headers.get("Retry-After")) from None
        except (OSError, HTTPException, ValueError) as failure:  # none, or one that was cut off
            raise ConnectionLost(f"no answer: {failure}") from None

    def store(self, epoch: str, seq: int) -> None:
        """Called once the event was handled: a client that is killed in between gets it again."""
        self.cursor = {"epoch": epoch, "seq": seq}
        new = CURSOR.with_name(CURSOR.name + ".new")
        new.write_text(json.dumps(self.cursor))
        new.replace(CURSOR)


def refused(status: int, why: str, retry_after: str | None) -> ConnectionLost:
    """What to do after a status other than 200 and 101."""
    if status == 401:
        return ConnectionLost(f"{status} {why}", new_token=True)
    if status in {408, 425, 429} or status >= 500:
        seconds = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        return ConnectionLost(f"{status} {why}", pause=seconds)
    raise End(f"{status} {why}")


def after_close(closed: ConnectionClosed) -> ConnectionLost:
    """What to do after a close code of the daemon; 1006: there was none, or this side began to close."""
    code = closed.rcvd.code if closed.rcvd and closed.rcvd_then_sent else 1006
    if code in {1002, 1003, 1007, 1009, 4403}:
        raise End(f"closed with {closed}")
    pause = {4000: 5.0, 4429: 10.0}.get(code, 0.0)
    return ConnectionLost(f"closed with {closed}", pause=pause, new_token=code == 4401)


def show(message: Any) -> None:
    """One line for each message; `provisional` events have no number, and may never come with one."""
    print(json.dumps(message, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    try:
        Client().run()
    except End as end:
        sys.exit(str(end))
    except KeyboardInterrupt:
        sys.exit(130)
