"""The states that a member can be shown in."""

from __future__ import annotations

from typing import Literal

Role = Literal["Leader", "Follower", "Candidate", "Learner", "Down", "Observer", "Unknown"]
"""`Down`: crashed (simulated). `Observer` and `Unknown` occur with etcd only: no member bears this node's id;
a leader whose fate is not known."""
