"""Clients by what they asked for: whoever asked for the same gets the same bytes, made once."""

from __future__ import annotations

from collections.abc import Sequence

from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.subscription import Subscription

from .client import HubClient
from .recipients import Recipients


class SubscriptionGroup:
    """The clients of one subscription, by what is written to them: with compression or not, over TLS or not."""

    __slots__ = ("audiences", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.audiences: dict[tuple[bool, bool], Recipients] = {}

    def add(self, client: HubClient) -> None:
        """One more client of this subscription."""
        kind = client.deflates, client.outlet.sealed
        audience = self.audiences.get(kind)
        if audience is None:
            audience = self.audiences[kind] = Recipients(
                deflating=client.deflates, sealed=client.outlet.sealed
            )
        audience.add(client)

    def remove(self, client: HubClient) -> None:
        """One less."""
        kind = client.deflates, client.outlet.sealed
        audience = self.audiences.get(kind)
        if audience is None or client.audience is not audience:
            return
        audience.remove(client)
        if not audience:
            del self.audiences[kind]


class RecipientGroups:
    """All subscriptions in force, and who has which."""

    def __init__(self) -> None:
        self._classes: dict[Subscription, SubscriptionGroup] = {}

    def add(self, client: HubClient) -> None:
        subscription = client.subscription
        found = self._classes.get(subscription)
        if found is None:
            found = self._classes[subscription] = SubscriptionGroup(subscription)
        # One object for all who said the same: thousands of equal ones would be kept otherwise.
        client.subscription = found.subscription
        found.add(client)

    def remove(self, client: HubClient) -> None:
        found = self._classes.get(client.subscription)
        if found is None:
            return
        found.remove(client)
        if not found.audiences:
            del self._classes[client.subscription]

    def cut(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[tuple[SubscriptionGroup, list[OutgoingMessage]]]:
        """Each class that gets something of `messages`, with what it gets: cut once for each narrowing."""
        cut = []
        for of in self._classes.values():
            mine = [m for message in messages if (m := message.cut_for(of.subscription)) is not None]
            if mine:
                cut.append((of, mine))
        return cut
