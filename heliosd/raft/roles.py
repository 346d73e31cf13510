"""The states in which a member is shown."""

from __future__ import annotations

from typing import Literal

Role = Literal["Leader", "Follower", "Candidate", "Learner", "Down", "Observer", "Unknown"]
"""`Down`: crashed (simulated cluster only). `Observer`: no member has this node's id (with etcd only). `Unknown`:
the state of this member is not known; in the simulated cluster it was removed, which this node has not applied
yet."""
