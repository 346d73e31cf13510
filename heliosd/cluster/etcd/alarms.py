"""The alarms that etcd has raised, from the members' statuses. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A status lists each raised alarm among its errors: "memberID:10276657743932975437 alarm:NOSPACE ".
_ALARM = re.compile(r"memberID:(\d+) alarm:(\w+)")


def alarms_in(errors: Iterable[str]) -> dict[str, set[str]]:
    """Kind, such as NOSPACE, to the ids of the members for which it is raised."""
    raised: dict[str, set[str]] = {}
    for member, kind in _ALARM.findall("\n".join(errors)):
        raised.setdefault(kind, set()).add(f"{int(member):x}")
    return raised
