"""What stands between this node and a healthy etcd: for `/readyz`, and one line in the log for each change."""

from __future__ import annotations

import logging
from typing import Literal

from heliosd.cluster.etcd.client.errors import EtcdDenied, EtcdLoginRefused, EtcdNoSpace, EtcdRefused

log = logging.getLogger(__name__)

Concern = Literal[
    "reading",
    "asking the members",
    "presence",
    "promoting learners",
    "telling events",
    "writing",
    "writing metrics",
    "revocations",
]


class Faults:
    """The troubles of this moment, by what they concern."""

    def __init__(self) -> None:
        self._reasons: dict[Concern, str] = {}
        self._kinds: dict[Concern, str] = {}
        self._refused: dict[Concern, None] = {}
        self._denied: dict[Concern, None] = {}

    def add(self, concern: Concern, error: Exception) -> None:
        """It does not work, for this reason. Logged if it worked before, or if the kind of error is another one:
        retries that fail alike say nothing new."""
        kind = type(error).__name__
        self._reasons[concern] = str(error)
        self._mark(self._refused, concern, isinstance(error, EtcdRefused))
        self._mark(self._denied, concern, isinstance(error, EtcdDenied | EtcdLoginRefused | EtcdNoSpace))
        if self._kinds.get(concern) != kind:
            self._kinds[concern] = kind
            log.warning("etcd: %s does not work: %s", concern, error)

    def clear(self, concern: Concern) -> None:
        """It works."""
        if self._reasons.pop(concern, None) is not None:
            del self._kinds[concern]
            self._mark(self._refused, concern, False)
            self._mark(self._denied, concern, False)
            log.info("etcd: %s works again", concern)

    def allowed(self, concern: Concern) -> None:
        """What was denied would not be any more. Other troubles stay until it works."""
        if concern in self._denied:
            self.clear(concern)

    def reason(self, concern: Concern) -> str | None:
        """Why it does not work; None: it does."""
        return self._reasons.get(concern)

    def refusals(self) -> dict[Concern, str]:
        """What etcd answers with no: no retry helps, somebody has to change something."""
        return {concern: self._reasons[concern] for concern in self._refused}

    def denials(self) -> dict[Concern, str]:
        """What no request of its kind gets past: a right, a login or space that is missing."""
        return {concern: self._reasons[concern] for concern in self._denied}

    def all(self) -> dict[Concern, str]:
        """Everything that does not work."""
        return dict(self._reasons)

    @staticmethod
    def _mark(among: dict[Concern, None], concern: Concern, holds: bool) -> None:
        if holds:
            among[concern] = None
        else:
            among.pop(concern, None)
