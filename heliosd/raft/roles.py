"""The states in which a member is shown."""

from __future__ import annotations

from typing import Literal

Role = Literal["Leader", "Follower", "Candidate", "Learner", "Down", "Observer", "Unknown"]
"""`Down`: crashed (simulated cluster only). With etcd only: `Observer`, no member has this node's id; `Unknown`,
the state of this member is not known."""
