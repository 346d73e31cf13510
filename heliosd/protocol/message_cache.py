"""A cache of what is derived from messages. Messages may be long, so it is bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def cached_up_to(
    max_results: int, max_bytes: int, size: Callable[[Any], int]
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep the last `max_results`, or as many of them as `max_bytes` allow, and one at least. `size` gives the
    bytes of an argument. Arguments are positional and hashable."""

    def decorate(derive: Callable[P, T]) -> Callable[P, T]:
        kept: OrderedDict[tuple[Hashable, ...], tuple[T, int]] = OrderedDict()
        total = 0

        @wraps(derive)
        def cached(*args: P.args, **kwargs: P.kwargs) -> T:
            nonlocal total
            found = kept.get(args)
            if found is not None:
                kept.move_to_end(args)
                return found[0]
            made = derive(*args, **kwargs)
            kept[args] = made, sum(map(size, args))
            total += kept[args][1]
            while len(kept) > max_results or (total > max_bytes and len(kept) > 1):
                total -= kept.popitem(last=False)[1][1]
            return made

        return cached

    return decorate
