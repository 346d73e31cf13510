"""Limits on failed logins in any minute, against the guessing of passwords."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque

from heliosd.config.addresses import ip_of
from heliosd.config.model import Settings

WINDOW_SECONDS = 60.0
_BY_ADDRESS = 10
_MAX_KEYS = 10_000

_Key = tuple[str, str | None]


class Throttle:
    """Counts failed logins by (address, name) and, ten times as many, by address alone.

    The caller asks `retry_after`, says `failed` before the password is hashed, and takes that back with
    `succeeded` if it was right; so guesses that run side by side all count. `now_mono` is monotonic seconds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failures: OrderedDict[_Key, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """Counters that are kept."""
        return len(self._failures)

    def failures(self, address: str, now_mono: float) -> int:
        """Failures of this address in the last minute, at most as many as its limit."""
        self._forget(now_mono)
        failures = self._failures.get((network_of(address), None), ())
        return sum(moment + WINDOW_SECONDS > now_mono for moment in failures)

    def retry_after(self, address: str, name: str, now_mono: float) -> float:
        """Seconds until another attempt is let through; 0 means go ahead."""
        self._forget(now_mono)
        return max(self._wait(key, limit, now_mono) for key, limit in self._limits(address, name))

    def failed(self, address: str, name: str, now_mono: float) -> None:
        """Count one attempt as failed."""
        self._forget(now_mono)
        for key, limit in self._limits(address, name):
            failures = self._failures.setdefault(key, deque())
            self._failures.move_to_end(key)
            failures.append(now_mono)
            while len(failures) > limit:
                failures.popleft()
        while len(self._failures) > _MAX_KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, address: str, name: str) -> None:
        """Take the newest failure of this pair back: the password was right."""
        for key, _ in self._limits(address, name):
            failures = self._failures.get(key)
            if failures:
                failures.pop()
            if failures is not None and not failures:
                del self._failures[key]

    def _limits(self, address: str, name: str) -> tuple[tuple[_Key, int], ...]:
        limit = self._settings.current.auth.login_attempts_per_minute
        network = network_of(address)
        # Names that nobody has may be long; what is kept of one is bounded.
        return ((network, name[:256]), limit), ((network, None), limit * _BY_ADDRESS)

    def _wait(self, key: _Key, limit: int, now_mono: float) -> float:
        failures = self._failures.get(key, deque())
        if len(failures) < limit:
            return 0.0
        # One more is let through once the limit-th newest failure has left the window.
        return max(0.0, failures[-limit] + WINDOW_SECONDS - now_mono)

    def _forget(self, now_mono: float) -> None:
        # Ordered by each key's newest failure, so the stale ones stand in front.
        while self._failures:
            key, failures = next(iter(self._failures.items()))
            if failures[-1] + WINDOW_SECONDS > now_mono:
                return
            del self._failures[key]


def network_of(address: str) -> str:
    """An IPv6 address as its /64, all of which one client may hold; an IPv4 address (mapped, too) as it is."""
    found = ip_of(address)
    if found is None:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
