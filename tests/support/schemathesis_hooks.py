"""Loaded by schemathesis: a new token for every request, since the routes that it asks with this end theirs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any
from urllib.request import Request, urlopen

import schemathesis


@schemathesis.auth(refresh_interval=None)
class NewToken:
    """A token of the user `admin`. For the event stream it lasts a second, so that the stream ends."""

    def get(self, case: Any, context: Any) -> str:
        if case.operation.path.endswith("/events"):
            command = [
                os.environ["HELIOSD_PYTHON"],
                "-m",
                "heliosd",
                "token",
                "--user",
                "admin",
                "--ttl",
                "1s",
            ]
            command += ["--config", os.environ["HELIOSD_CONFIG"]]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        login = json.dumps({"username": "admin", "password": os.environ["HELIOSD_PASSWORD"]}).encode()
        with urlopen(Request(f"{os.environ['HELIOSD_URL']}/api/auth/login", login)) as answer:
            return str(json.load(answer)["token"])

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
