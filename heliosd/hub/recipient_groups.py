"""Clients by subscription: those with an equal one get the same bytes, made once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heliosd.protocol.message import OutgoingMessage
from heliosd.protocol.subscription import Subscription

from .client import HubClient
from .recipients import Recipients


class SubscriptionGroup:
    """The clients of one subscription, by what is written to them: with compression or not, over TLS or not."""

    __slots__ = ("recipients_by_form", "subscription")

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.recipients_by_form: dict[tuple[bool, bool], Recipients] = {}

    def add(self, client: HubClient) -> None:
        """One more client of this subscription."""
        kind = client.deflates, client.transport.encrypted
        recipients = self.recipients_by_form.get(kind)
        if recipients is None:
            recipients = self.recipients_by_form[kind] = Recipients(
                deflating=client.deflates, encrypted=client.transport.encrypted
            )
        recipients.add(client)

    def remove(self, client: HubClient) -> None:
        """One less."""
        kind = client.deflates, client.transport.encrypted
        recipients = self.recipients_by_form.get(kind)
        if recipients is None or client.recipients is not recipients:
            return
        recipients.remove(client)
        if not recipients:
            del self.recipients_by_form[kind]


class RecipientGroups:
    """All subscriptions in force, and the clients of each."""

    def __init__(self) -> None:
        self._groups: dict[Subscription, SubscriptionGroup] = {}

    def add(self, client: HubClient) -> None:
        subscription = client.subscription
        found = self._groups.get(subscription)
        if found is None:
            found = self._groups[subscription] = SubscriptionGroup(subscription)
        # One object for all equal ones: thousands would be kept otherwise.
        client.subscription = found.subscription
        found.add(client)

    def remove(self, client: HubClient) -> None:
        found = self._groups.get(client.subscription)
        if found is None:
            return
        found.remove(client)
        if not found.recipients_by_form:
            del self._groups[client.subscription]

    def split(
        self, messages: Sequence[OutgoingMessage]
    ) -> Iterator[tuple[Subscription, list[OutgoingMessage], Recipients]]:
        """All clients, with what they get of `messages`, if only nothing: filtered once for each subscription. So
        the caller can pause after each filter. Clients may leave while this runs, but none may come."""
        for group in list(self._groups.values()):
            mine = [m for message in messages if (m := message.filtered_for(group.subscription)) is not None]
            for recipients in list(group.recipients_by_form.values()):
                yield group.subscription, mine, recipients
