"""What an event says, in one line of words, and how it is to be coloured. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .report import BAD, GOOD, PLAIN, number_text

_PEER_STYLES = {"added": GOOD, "healthy": GOOD, "removed": BAD, "unhealthy": BAD}
_CAUSES = {
    "transfer": "planned",
    "stopped": "it has stopped",
    "unreachable": "it is cut off",
    "stepped_down": "it stepped down",
    "removed": "it was removed",
}


def event_lines(name: str, data: Any) -> list[tuple[str, str]]:
    """Text and style of an event: one, or one for each metric. A newer daemon's event of unknown data is shown by
    its type."""
    try:
        return list(_described(name, data))
    except (KeyError, TypeError, AttributeError, ValueError):
        return [(name, PLAIN)]


def _described(name: str, data: Any) -> Iterator[tuple[str, str]]:
    match name:
        case "state_change":
            yield _state_change(data)
        case "peer_change":
            happened = data["event_type"]
            yield f"peer {_named(data)} {happened}", _PEER_STYLES.get(happened, PLAIN)
        case "snapshot":
            yield _snapshot(data)
        case "custom_metrics":
            for metric, view in data.items():
                if view is None:
                    yield f"metric {metric} deleted", PLAIN
                else:
                    yield f"metric {metric} registered ({view['type']})", PLAIN
        case _:
            yield name, PLAIN


def name_in_status(status: Mapping[str, Any], member: str) -> str:
    """The name of a member in a `status` message, by its id; the id where it has none."""
    node = status.get("node", {})
    names = {peer["id"]: peer.get("name") for peer in (*status.get("peer_details", ()), node) if "id" in peer}
    return str(names.get(member) or member)


def _named(data: Mapping[str, Any]) -> str:
    who = data.get("peer_name") or data["peer_id"]
    return f"{who} at {data['peer_address']}" if data.get("peer_address") else str(who)


def _state_change(data: Mapping[str, Any]) -> tuple[str, str]:
    leader, term = data.get("leader_name") or data["leader"], data["term"]
    who = data.get("member_name") or data.get("member") or "this node"
    old, new = data["old_state"], data["new_state"]
    # A cause is of the loss of the leader before.
    cause = data.get("cause") if not leader or data.get("cause") == "transfer" else None
    why = f" ({_CAUSES[cause]})" if cause in _CAUSES else ""
    unseen = data.get("terms_unseen")
    missing = f"; terms {unseen[0]} to {unseen[1]} were not seen" if unseen else ""
    states = f"{who} stays {new}" if old == new else f"{who}: {old} → {new}"
    # While its own member is down, a daemon does not see whether the others have a leader.
    leads = f"{leader} leads" if leader else "no leader is seen" if "Down" in {old, new} else "no leader"
    style = PLAIN if cause == "transfer" else GOOD if leader else BAD
    return f"{leads} in term {term}{why}; {states}{missing}", style


def _snapshot(data: Mapping[str, Any]) -> tuple[str, str]:
    what = f"snapshot {data.get('snapshot_id') or data['index']} {data['type']}"
    if not data.get("success", True):
        return f"{what} failed: {data.get('error_message') or 'no reason given'}", BAD
    return f"{what}, {data['size_bytes']} bytes in {data['duration_ms']:g} ms", PLAIN


def metric_values(data: Mapping[str, Any], most: int) -> str:
    """Names and values of at most so many metrics, and how many more there are."""
    shown = [f"{name} = {number_text(view['value'])}" for name, view in list(data.items())[:most] if view]
    more = len(data) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
