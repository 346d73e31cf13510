"""What a leader knows of one follower."""

from __future__ import annotations

from typing import Literal

from .messages import Snapshot


class Progress:
    """`probe`: the leader searches where the logs agree, one message at a time. `replicate`: entries are sent as
    they come, without waiting for answers. `snapshot`: a chunk of one is in flight, and no entries are sent."""

    __slots__ = (
        *("caught_up", "heard_at", "match", "mode", "next", "offset", "round_began", "round_end"),
        *("snapshot", "snapshot_sent_at", "waiting"),
    )

    def __init__(self, *, next_index: int, now: int) -> None:
        self.match = 0
        """The follower's durable log equals the leader's up to here."""
        self.next = next_index
        """The next entry to send."""
        self.mode: Literal["probe", "replicate", "snapshot"] = "probe"
        self.waiting = False
        """In `probe`: an answer is due, and only a heartbeat sends again."""
        self.heard_at = now
        """The tick at which the newest answered message was sent."""
        self.snapshot = Snapshot()
        """In `snapshot`: the one that is being sent, which stays the same if the log is compacted meanwhile."""
        self.offset = 0
        """Where the chunk in flight begins."""
        self.snapshot_sent_at = 0
        self.caught_up = False
        """Of a learner: whether it caught up in its last round (thesis 4.2.1)."""
        self.begin_round(next_index, now)

    def begin_round(self, last_index: int, now: int) -> None:
        """A round ends when the follower has what is the leader's log now."""
        self.round_end = last_index
        self.round_began = now

    def matched(self, index: int) -> bool:
        """The follower's log matches up to `index`. Returns whether that is further than known before."""
        if self.mode == "snapshot" and index < self.snapshot.index:
            return False
        if self.mode != "replicate":
            self.mode = "replicate"
            self.next = index + 1
        further = index > self.match
        self.match = max(self.match, index)
        self.next = max(self.next, self.match + 1)
        return further

    def search_from(self, index: int) -> None:
        """The follower's log does not match: probe again at `index`."""
        self.mode = "probe"
        self.waiting = False
        self.next = max(self.match + 1, index)

    def send_snapshot(self, snapshot: Snapshot) -> None:
        """From its first chunk on."""
        self.mode = "snapshot"
        self.snapshot = snapshot
        self.offset = 0
