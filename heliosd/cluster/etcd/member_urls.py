"""Where each member of etcd is polled: at a client URL that the list of members has or, where that one is silent,
at another one, or at a configured endpoint at which the member has answered."""

from __future__ import annotations

from collections.abc import Collection

from heliosd.cluster.etcd.client.endpoints import normal
from heliosd.cluster.etcd.client.responses import EtcdMember

from .context import EtcdContext


class MemberUrls:
    """`answered` and `failed` are called after each poll."""

    def __init__(self, context: EtcdContext) -> None:
        self._etcd = context
        self._behind: dict[str, str] = {}
        """Configured endpoint that is in no member's client URLs -> the member that answered there last."""
        self._members: tuple[EtcdMember, ...] | None = None
        self._unlisted: list[str] = []
        """The configured endpoints that are in no client URL of these members."""
        self._failing_since: dict[str, float] = {}
        """URL whose last poll failed -> when it first failed."""
        self._failed_at: dict[str, float] = {}
        """The same -> when it last failed."""

    def of(self, member: EtcdMember) -> str:
        """The URL at which to poll this member; "" if there is none."""
        known = self._etcd.client.urls()
        listed = [url for url in map(normal, member.client_urls) if url in known]
        found = [url for url, behind in self._behind.items() if behind == member.id]
        # One that does not fail; where all do, by turns.
        return min(listed + found, key=lambda url: self._failed_at.get(url, 0.0), default="")

    def all_of(self, members: Collection[str]) -> list[str]:
        """Every URL of the members with these ids, in its normal form."""
        urls = [url for url, member in self._behind.items() if member in members]
        listed = (each.client_urls for each in self._etcd.view.members if each.id in members)
        return urls + [normal(url) for each in listed for url in each]

    def is_listed(self, url: str) -> bool:
        """It is not known by an answer alone."""
        return url not in self._behind

    def nameless(self) -> list[str]:
        """Configured endpoints that are in no member's client URLs and whose member is not known yet: the listed
        URLs may not be usable from here."""
        members = self._etcd.view.members
        if members is not self._members:
            self._members = members
            listed = {url for member in members for url in map(normal, member.client_urls)}
            ids = {member.id for member in members}
            # Where a member was that is removed, another may come, or another cluster.
            self._behind = {
                url: member for url, member in self._behind.items() if member in ids and url not in listed
            }
            configured = (each.url for each in self._etcd.client.endpoints() if each.configured)
            self._unlisted = [url for url in configured if url not in listed]
        return [url for url in self._unlisted if url not in self._behind]

    def answered(self, url: str, found: str = "") -> None:
        """A poll at this URL was answered. `found`: by which member, where that was not known."""
        self._failing_since.pop(url, None)
        self._failed_at.pop(url, None)
        members = self._etcd.view.members
        # Since the poll was sent it may have been listed, or the member removed, which answers for a second more.
        if found and url in self._unlisted and (not members or any(each.id == found for each in members)):
            self._behind[url] = found

    def failed(self, url: str, now: float) -> None:
        """A poll at this URL failed."""
        self._failing_since.setdefault(url, now)
        self._failed_at[url] = now

    def failing_for(self, url: str, now: float) -> float:
        """Seconds since the first of its polls failed; 0 if the last one was answered."""
        return now - self._failing_since.get(url, now)
