"""The arithmetic of majorities."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet


def majority(size: int) -> int:
    """The smallest number that is more than half of `size`."""
    return size // 2 + 1


def has_majority(granted: AbstractSet[str], voters: Collection[str]) -> bool:
    """Whether a majority of `voters` granted. Others do not count; without voters there is no majority."""
    return sum(voter in granted for voter in voters) >= majority(len(voters))


def reached_by_majority(values: Iterable[int]) -> int:
    """The greatest number that a majority of the voters, one value each, has reached; 0 without voters.

    Of match indices: the index that may be committed (figure 2, "rules for leaders"). Of times of contact: when a
    majority was last known to follow.
    """
    ordered = sorted(values, reverse=True)
    return ordered[majority(len(ordered)) - 1] if ordered else 0
