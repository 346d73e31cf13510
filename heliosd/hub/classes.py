"""Clients by what they asked for: whoever asked for the same gets the same bytes, made once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..message import Message
from ..subscription import Subscription
from .audience import Audience
from .client import Client


class SubscriptionClass:
    """The clients of one subscription, those that took compression apart from those that did not."""

    __slots__ = ("deflating", "plain", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.plain = Audience()
        self.deflating = Audience()

    def half(self, client: Client) -> Audience:
        """The half that `client` belongs to."""
        return self.deflating if client.deflates else self.plain

    def halves(self) -> Iterator[tuple[Audience, bool]]:
        """Each half that has anyone in it, and whether they took compression."""
        if self.plain:
            yield self.plain, False
        if self.deflating:
            yield self.deflating, True


class Classes:
    """All subscriptions in force, and who has which."""

    def __init__(self) -> None:
        self._classes: dict[Subscription, SubscriptionClass] = {}

    def add(self, client: Client) -> None:
        subscription = client.subscription
        found = self._classes.get(subscription)
        if found is None:
            found = self._classes[subscription] = SubscriptionClass(subscription)
        # One object for all who said the same: thousands of equal ones would be kept otherwise.
        client.subscription = found.subscription
        found.half(client).add(client)

    def remove(self, client: Client) -> None:
        found = self._classes.get(client.subscription)
        if found is None or client.audience is None:
            return
        found.half(client).remove(client)
        if not found.plain and not found.deflating:
            del self._classes[client.subscription]

    def cut(self, messages: Sequence[Message]) -> list[tuple[SubscriptionClass, list[Message]]]:
        """Each class that gets something of `messages`, with what it gets: cut once for each narrowing."""
        cut = []
        for of in self._classes.values():
            mine = [m for message in messages if (m := message.cut_for(of.subscription)) is not None]
            if mine:
                cut.append((of, mine))
        return cut
