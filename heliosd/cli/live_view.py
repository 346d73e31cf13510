"""What `heliosd watch` shows on a terminal: the cluster, its members, and the newest events. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timezone
from typing import Any

from heliosd.client.client import Connected, Disconnected, Item
from heliosd.client.resume import Message

from .event_format import EventFormatter
from .event_text import name_in_status
from .members_view import Cluster, MemberRow, clock_at, members_of
from .output import printable
from .report import BAD, FAINT, GOOD, STRONG, Table, box
from .screen import spread

KEPT_LINES = 500


class LiveView:
    """Takes what the client yields; `lines` is the screen. Times are Unix seconds; `zone` None: this machine's."""

    def __init__(
        self, url: str, user: str, types: frozenset[str], *, colour: bool, zone: timezone | None = None
    ) -> None:
        self._url = url
        self._user = user
        self._colour = colour
        self._zone = zone
        self._formatter = EventFormatter(
            types, colour=colour, zone=zone, date="%m-%d %H:%M:%S", milliseconds=False, seq_width=6
        )
        self._events: deque[str] = deque(maxlen=KEPT_LINES)
        self._status: Mapping[str, Any] | None = None
        self._connection: Connected | Disconnected | None = None
        self._since = 0.0
        self._lost_at: float | None = None
        self._retry_at = 0.0

    def take(self, item: Item, now: float) -> None:
        """The next item of the client."""
        match item:
            case Connected():
                if self._lost_at is not None:
                    away = now - self._lost_at
                    self._events.append(self._styled(f"-- reconnected after {away:.0f} s --", FAINT))
                self._connection, self._since, self._lost_at = item, now, None
            case Disconnected():
                self._connection = item
                self._retry_at = now + item.retry_in
                if self._lost_at is None:
                    self._lost_at = now
            case Message(type="status" | "status_update", data=dict() as data):
                self._status = data
            case _:
                self._events += self._formatter.lines(item, _rfc3339(now))

    def lines(self, width: int, height: int, now: float) -> list[str]:
        """The screen at a time, newest events last."""
        head = [
            spread(
                f"heliosd watch  {self._url}  {self._user}", self._clock(now, "%Y-%m-%d %H:%M:%S %Z"), width
            ),
            self._leader_line(),
            self._connection_line(now),
        ]
        table = self._members(width, height - len(head))
        room = max(0, height - len(head) - len(table) - 1)
        events = list(self._events)[-room:] if room else []
        title = "Events" if self._events else "Events: none since this began"
        return [*head, *table, self._styled(title, STRONG), *events]

    def _members(self, width: int, room: int) -> list[str]:
        """The table of members in at most half of the room."""
        if self._status is None:
            return []
        members = members_of_status(self._status)
        most = max(1, room // 2 - 4)
        cluster = Cluster(
            members=members[:most],
            leader=self._status["leader"],
            leader_name=name_in_status(self._status, self._status["leader"]),
            term=self._status["term"],
            observed_by=self._status["observed_by"],
            observed_at=self._status["observed_at"],
            stale=self._status["stale"],
        )
        table = cluster.members_table()
        more = f", {most} of them shown" if len(members) > most else ""
        count = "1 member" if len(members) == 1 else f"{len(members)} members{more}"
        titled = Table(table.columns, table.rows, count, table.optional)
        lines = list(box(titled, width, colour=self._colour and self._lost_at is None))
        return [self._styled(line, FAINT) for line in lines] if self._lost_at is not None else lines

    def _leader_line(self) -> str:
        status = self._status
        if status is None:
            return ""
        name = name_in_status(status, status["leader"])
        # By the table's words: a peer that is known to be down is not healthy, however few calls to it have failed.
        peers = [member for member in members_of_status(status) if not member.this_node]
        healthy = sum(peer.healthy for peer in peers)
        known = "" if self._lost_at is None else "last known: "
        leads = f"{name} leads" if name else "NO LEADER"
        stale = "; may be out of date" if status["stale"] else ""
        clients = "1 client" if status["clients"] == 1 else f"{status['clients']} clients"
        text = (
            f"{known}{leads}, term {status['term']}{stale}; {healthy} of {len(peers)} "
            f"peers healthy; commit {status['commit_index']}; {clients}"
        )
        style = FAINT if known else GOOD if name and not status["stale"] else BAD
        return self._styled(printable(text), style)

    def _connection_line(self, now: float) -> str:
        match self._connection:
            case Disconnected() as lost:
                left = max(0.0, self._retry_at - now)
                again = f"trying again in {left:.0f} s" if left >= 0.5 else "trying again"
                since = self._clock(self._lost_at or now, "%H:%M:%S")
                return self._styled(f"disconnected since {since}, {again}: {printable(lost.reason)}", BAD)
            case Connected():
                return self._styled(f"connected since {self._clock(self._since, '%H:%M:%S')}", FAINT)
            case _:
                return "connecting"

    def _clock(self, at: float, form: str) -> str:
        return clock_at(at, form, self._zone)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colour and style else text


def members_of_status(status: Mapping[str, Any]) -> tuple[MemberRow, ...]:
    """The members of a `status` message, which does not say this node's address."""
    node = {
        **status.get("node", {}),
        "id": status["node_id"],
        "name": name_in_status(status, status["node_id"]),
        "state": status["state"],
    }
    peers = status["peer_details"]
    states = {peer["id"]: peer["state"] for peer in peers if "state" in peer}
    return members_of(node, status["leader"], status["commit_index"], peers, states, "")


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
