"""What does not work between this node and etcd: for `/readyz`, with one log line for each change."""

from __future__ import annotations

import logging
from typing import Literal

from heliosd.cluster.etcd.client.errors import EtcdDenied, EtcdLoginRefused, EtcdNoSpace, EtcdRefused

log = logging.getLogger(__name__)

Concern = Literal[
    "reading",
    "asking the members",
    "asking for statuses",
    "presence",
    "promoting learners",
    "logging events",
    "writing",
    "writing metrics",
    "revocations",
    "changing members",
]

OPTIONAL: frozenset[Concern] = frozenset(
    {"asking the members", "asking for statuses", "promoting learners", "changing members"}
)
"""A right that is missing for these leaves reads, writes and the view as they are."""


class Faults:
    """The present faults, by what they concern."""

    def __init__(self) -> None:
        self._reasons: dict[Concern, str] = {}
        self._kinds: dict[Concern, str] = {}
        self._refused: dict[Concern, None] = {}
        self._denied: dict[Concern, None] = {}

    def add(self, concern: Concern, error: Exception) -> None:
        """It does not work, for this reason. Logged if it worked before, or if the error is of another class than
        the last one: retries that fail alike are not logged."""
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
        """It would not be denied any more. A fault of another kind stays until `clear`."""
        if concern in self._denied:
            self.clear(concern)

    def reason(self, concern: Concern) -> str | None:
        """Why it does not work; None: it does."""
        return self._reasons.get(concern)

    def refusals(self) -> dict[Concern, str]:
        """The faults that are refusals by etcd: no retry helps, an operator has to change something."""
        return {concern: self._reasons[concern] for concern in self._refused}

    def denials(self) -> dict[Concern, str]:
        """The faults that concern every request of their kind: a right, a login or space is missing."""
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
