"""The cluster as rows of members, from the answers of GET …/status and GET …/peers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timezone
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from heliosd.raft.quorum import majority

from .report import BAD, GOOD, STRONG, Cell, Table

NO_VOTE = {"Learner", "Observer"}
"""Roles that say by themselves that a member, or this node, does not count for the quorum."""


class MemberRow(Struct, frozen=True):
    """One member, this node among them."""

    id: str
    name: str
    """As `id` where members have no names."""
    address: str
    role: str
    leader: bool
    voter: bool
    """Whether it counts for the quorum; its role does not say so while it is down."""
    this_node: bool
    healthy: bool
    lag_entries: int | None
    """Entries that the leader has and this member not; None: the node that was asked does not know."""
    latency_ms: float | None
    """The mean of recent calls; None for this node, and before the first call."""
    last_contact: str | None
    """RFC 3339; None for this node, and before the first answer."""
    version: str | None
    """Of the member's etcd, as the next three; None where it does not say."""
    db_size_bytes: int | None
    db_quota_bytes: int | None
    alarms: tuple[str, ...] | None


class Cluster(Struct, frozen=True):
    """The members, and what a script asks about them."""

    members: tuple[MemberRow, ...]
    leader: str
    leader_name: str
    term: int
    observed_by: str
    observed_at: str
    stale: bool

    @property
    def voters(self) -> int:
        return sum(member.voter for member in self.members)

    @property
    def healthy_voters(self) -> int:
        return sum(member.healthy for member in self.members if member.voter)

    @property
    def quorum(self) -> int:
        return majority(self.voters)

    def problems(self) -> list[str]:
        """Why the cluster is not healthy: no leader, quorum lost or at risk, an alarm of etcd, stale. Quorum is at
        risk when a member is down and the loss of one more would be the loss of the quorum."""
        found = [] if self.leader else ["no leader"]
        alive = f"{self.healthy_voters} of {self.voters} voters are healthy, {self.quorum} are needed"
        if self.healthy_voters < self.quorum:
            found.append(f"quorum lost: {alive}")
        elif self.healthy_voters == self.quorum < self.voters:
            found.append(f"quorum at risk: {alive}")
        found += [f"alarm {alarm} at {each.name}" for each in self.members for alarm in each.alarms or ()]
        if self.stale:
            found.append("stale: this may be out of date")
        return found

    def data(self) -> dict[str, Any]:
        """For JSON and YAML."""
        return asdict(self) | {
            "members": [asdict(member) for member in self.members],
            "voters": self.voters,
            "healthy_voters": self.healthy_voters,
            "quorum": self.quorum,
            "problems": self.problems(),
        }

    def members_table(self) -> Table:
        named = any(member.name != member.id for member in self.members)
        rows = [_row(member, named) for member in self.members]
        etcd = any(member.version for member in self.members)
        columns = ["Member", *(["ID"] if named else []), "Address", "Role", "State", "Lag", "ms", "Contact"]
        if etcd:
            columns += ["Version", "DB MB", "Alarms"]
            rows = [row + _etcd_cells(member) for row, member in zip(rows, self.members, strict=True)]
        leader = f"leader {self.leader_name}" if self.leader else "no leader"
        count = "1 member" if len(rows) == 1 else f"{len(rows)} members"
        title = f"Cluster: {count}, term {self.term}, {leader}"
        return Table(columns, rows, title, ["DB MB", "Alarms", "Version", "ID"])


def _row(member: MemberRow, named: bool) -> list[object]:
    return [
        Cell(member.name, STRONG if member.leader else ""),
        *([member.id] if named else []),
        member.address,
        "Leader" if member.leader else member.role,
        Cell("healthy", GOOD) if member.healthy else Cell("unhealthy", BAD),
        member.lag_entries,
        member.latency_ms,
        Cell(member.last_contact, text="this node" if member.this_node else clock(member.last_contact)),
    ]


def _etcd_cells(member: MemberRow) -> list[object]:
    size = member.db_size_bytes
    megabytes = "" if size is None else f"{size / 1e6:.1f}"
    return [
        member.version,
        Cell(size, text=megabytes),
        Cell(",".join(member.alarms or ()), BAD),
    ]


def cluster_of(status: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]) -> Cluster:
    """`status` as GET …/status answers, `peers` the `peers` of GET …/peers. Members stand in the order of names."""
    leader = status["leader"]
    states = {peer["id"]: peer["state"] for peer in peers}
    own_address = leader["address"] if leader["is_leader"] else ""
    last = status["indices"]["last_log"]
    return Cluster(
        members=members_of(status["node"], leader["id"], last, status["peers"], states, own_address),
        leader=leader["id"],
        leader_name=leader.get("name") or leader["id"],
        term=status["node"]["term"],
        observed_by=status["observed_by"],
        observed_at=status["observed_at"],
        stale=status["stale"],
    )


def members_of(
    node: Mapping[str, Any],
    leader: str,
    last: int,
    peers: Sequence[Mapping[str, Any]],
    states: Mapping[str, str],
    own_address: str,
) -> tuple[MemberRow, ...]:
    """Rows in the order of names. `last`: the leader's last index; `states`: the peers' roles, as far as known."""
    rows = [
        MemberRow(
            id=peer["id"],
            name=peer.get("name") or peer["id"],
            address=peer["address"],
            role=states.get(peer["id"], ""),
            leader=peer["id"] == leader,
            # A daemon of before `voter` says only the role.
            voter=peer.get("voter", states.get(peer["id"], "") not in NO_VOTE) or peer["id"] == leader,
            this_node=False,
            healthy=peer["latency"]["connection_healthy"] and states.get(peer["id"]) != "Down",
            lag_entries=max(0, last - peer["match_index"]) if "match_index" in peer else None,
            latency_ms=peer["latency"]["avg_latency_ms"] if peer["latency"]["sample_count"] else None,
            last_contact=_rfc3339(peer["latency"]["last_contact_unix"]),
            **_of_etcd(peer),
        )
        for peer in peers
    ]
    if node["state"] != "Observer":
        own = MemberRow(
            id=node["id"],
            name=node.get("name") or node["id"],
            address=own_address,
            role=node["state"],
            leader=node["id"] == leader,
            # The simulated cluster says only the role, as did daemons of before `voter` and `healthy`.
            voter=node.get("voter", node["state"] not in NO_VOTE) or node["id"] == leader,
            this_node=True,
            healthy=node.get("healthy", True) and node["state"] != "Down",
            lag_entries=0 if node["id"] == leader else None,
            latency_ms=None,
            last_contact=None,
            **_of_etcd(node),
        )
        rows.append(own)
    return tuple(sorted(rows, key=lambda row: (row.name, row.id)))


def _of_etcd(shown: Mapping[str, Any]) -> dict[str, Any]:
    alarms = shown.get("alarms")
    return {
        **{name: shown.get(name) for name in ("version", "db_size_bytes", "db_quota_bytes")},
        "alarms": None if alarms is None else tuple(alarms),
    }


def clock(timestamp: str | None, zone: timezone | None = None, *, date: bool = False) -> str:
    """RFC 3339 as a time of this machine's zone, or of `zone`; "" for None and for what is no time."""
    try:
        moment = datetime.fromisoformat(timestamp or "").astimezone(zone)
    except ValueError:
        return ""
    return moment.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")


def clock_at(at: float, form: str, zone: timezone | None) -> str:
    """Unix seconds in the form of `strftime`, as a time of `zone`, or of this machine's zone for None."""
    return datetime.fromtimestamp(at, UTC).astimezone(zone).strftime(form)


def time_cell(timestamp: str | None) -> Cell:
    """RFC 3339 for programs, the date and time of this machine's zone for people."""
    return Cell(timestamp, text=clock(timestamp, date=True))


def _rfc3339(unix: float) -> str | None:
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z") if unix else None
