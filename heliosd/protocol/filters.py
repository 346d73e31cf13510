"""Content filters: what a subscription selects within a topic, by globs and by equality.

They work on a message's `data` as on the wire, so that live and replayed messages are filtered alike.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import Any, Self, get_args

from heliosd.raft.roles import Role

from .events import PeerEvent

MAX_PATTERNS = 64
"""Patterns or values in one list."""
MAX_PATTERN_LENGTH = 200
MAX_STARS = 8
"""In one pattern: matching takes longer with each."""
MAX_GLOB_CHARACTERS = 1024
MAX_WILDCARDS = 64
"""`*` and `?` in all globs of one list. Texts without `*`, `?` and `[` are compared, and do not count."""
MAX_MIN_INTERVAL = 86_400.0


class BadSubscription(ValueError):
    """A client sent an invalid subscription; `field` names the wrong key."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class ContentFilter(ABC):
    """The filter of one topic. Equal when it selects the same. What it compiles it keeps."""

    @classmethod
    @abstractmethod
    def parse(cls, said: dict[str, Any], field: str) -> Self:
        """The filter that a client's object describes. Raises `BadSubscription` for a key below `field`."""

    @abstractmethod
    def apply(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """The data without what the filter excludes; None if nothing is left and the message is not sent.

        Returns `data` itself if nothing is excluded.
        """


@dataclass(frozen=True)
class PeerFilter(ContentFilter):
    """`peer_changes` of some peers or of some kinds. An empty tuple lets all through."""

    peers: tuple[str, ...] = ()
    events: tuple[str, ...] = ()

    @classmethod
    def parse(cls, said: dict[str, Any], field: str) -> Self:
        known = get_args(PeerEvent)
        return cls(**_lists(said, field, {"peers": _pattern, "events": _one_of(known)}))

    def apply(self, data: dict[str, Any]) -> dict[str, Any] | None:
        fits = self._fits_peer(data["peer_id"]) and (not self.events or data["event_type"] in self.events)
        return data if fits else None

    @cached_property
    def _fits_peer(self) -> Callable[[str], bool]:
        return _matcher(self.peers)


@dataclass(frozen=True, slots=True)
class StateFilter(ContentFilter):
    """`state_changes` to some states."""

    states: tuple[str, ...] = ()

    @classmethod
    def parse(cls, said: dict[str, Any], field: str) -> Self:
        return cls(**_lists(said, field, {"states": _one_of(get_args(Role))}))

    def apply(self, data: dict[str, Any]) -> dict[str, Any] | None:
        return data if not self.states or data["new_state"] in self.states else None


@dataclass(frozen=True)
class LatencyFilter(ContentFilter):
    """`latency` of some peers. The aggregates over all peers are not changed."""

    peers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, said: dict[str, Any], field: str) -> Self:
        return cls(**_lists(said, field, {"peers": _pattern}))

    def apply(self, data: dict[str, Any]) -> dict[str, Any] | None:
        kept = {name: peer for name, peer in data["peers"].items() if self._fits_peer(name)}
        if len(kept) == len(data["peers"]):
            return data
        return {**data, "peers": kept} if kept else None

    @cached_property
    def _fits_peer(self) -> Callable[[str], bool]:
        return _matcher(self.peers)


@dataclass(frozen=True)
class MetricsFilter(ContentFilter):
    """`custom_metrics` of some names and labels. A deleted metric has no labels, so its deletion passes if its name
    matches."""

    names: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, said: dict[str, Any], field: str) -> Self:
        rest = dict(said)
        labels = rest.pop("labels", {})
        if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
            raise BadSubscription("labels must be an object of texts", f"{field}.labels")
        if len(labels) > MAX_PATTERNS:
            raise BadSubscription(f"at most {MAX_PATTERNS} labels", f"{field}.labels")
        return cls(**_lists(rest, field, {"names": _pattern}), labels=tuple(sorted(labels.items())))

    def apply(self, data: dict[str, Any]) -> dict[str, Any] | None:
        kept = {name: metric for name, metric in data.items() if self._wants(name, metric)}
        if len(kept) == len(data):
            return data
        return kept or None

    def _wants(self, name: str, metric: dict[str, Any] | None) -> bool:
        return self._fits_name(name) if metric is None else self.selects(name, metric["labels"])

    def selects(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether it lets a metric with this name and these labels through."""
        return self._fits_name(name) and all(labels.get(key) == value for key, value in self.labels)

    @cached_property
    def _fits_name(self) -> Callable[[str], bool]:
        return _matcher(self.names)


def parse_min_interval(value: object, field: str) -> float:
    """Seconds, more than 0 and at most a day. Raises `BadSubscription`."""
    # Compared before any conversion: an integer of 400 digits fits no float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_MIN_INTERVAL:
        raise BadSubscription("min_interval must be seconds, more than 0 and at most 86400", field)
    return float(value)


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a text fits one of these; if there are none every text does.

    One expression for all globs, since a replay tests thousands of events. It is for the filter to keep: however
    many filters are in force, none is compiled twice.
    """
    if not patterns:
        return lambda _text: True
    plain = frozenset(pattern for pattern in patterns if not _is_glob(pattern))
    if len(plain) == len(patterns):
        return plain.__contains__
    match = re.compile("|".join(translate(each) for each in patterns if _is_glob(each))).match
    return lambda text: text in plain or match(text) is not None


def _is_glob(pattern: str) -> bool:
    return not {"*", "?", "["}.isdisjoint(pattern)


def _lists(
    said: dict[str, Any], field: str, readers: dict[str, Callable[[object], str | None]]
) -> dict[str, tuple[str, ...]]:
    """Lists of texts by key; a reader returns what is wrong with one text, or None."""
    lists = {}
    for key, values in said.items():
        if key not in readers:
            known = ", ".join(readers)
            raise BadSubscription(f"unknown key {key[:64]!r}; known are {known}", f"{field}.{key[:64]}")
        if not isinstance(values, list) or not 0 < len(values) <= MAX_PATTERNS:
            raise BadSubscription(f"{key} must be a list of 1 to {MAX_PATTERNS} texts", f"{field}.{key}")
        for number, value in enumerate(values):
            wrong = readers[key](value)
            if wrong is not None:
                raise BadSubscription(wrong, f"{field}.{key}[{number}]")
        globs = "".join(filter(_is_glob, values)) if readers[key] is _pattern else ""
        if len(globs) > MAX_GLOB_CHARACTERS or globs.count("*") + globs.count("?") > MAX_WILDCARDS:
            raise BadSubscription(
                f"the globs of {key} may have at most {MAX_GLOB_CHARACTERS} characters, and {MAX_WILDCARDS} of "
                "* and ?, in all",
                f"{field}.{key}",
            )
        lists[key] = tuple(values)
    return lists


def _pattern(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PATTERN_LENGTH:
        return f"a pattern must be text of 1 to {MAX_PATTERN_LENGTH} characters"
    return None if value.count("*") <= MAX_STARS else f"a pattern may have at most {MAX_STARS} stars"


def _one_of(known: tuple[str, ...]) -> Callable[[object], str | None]:
    return lambda value: None if value in known else f"must be one of {', '.join(known)}"
