"""Raft messages and entries in words, for `raft_scenarios.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from heliosd.raft.log import decode_membership
from heliosd.raft.messages import (
    AppendAnswer,
    AppendEntries,
    Entry,
    InstallAnswer,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteAnswer,
    RequestVote,
    TimeoutNow,
    VoteAnswer,
)


def short_entries(entries: Iterable[Entry]) -> str:
    """Their terms, with the command or the membership: `1 2:x 2:{ab+c}`."""
    return " ".join(map(_short, entries))


def entry_words(entry: Entry) -> str:
    return f"{entry.index}/{_short(entry)}"


def _short(entry: Entry) -> str:
    match entry.kind:
        case "noop":
            return f"{entry.term}"
        case "command":
            return f"{entry.term}:{entry.data.decode()}"
        case "membership":
            members = decode_membership(entry.data)
            learners = "".join(f"+{name}" for name in members.learners)
            return f"{entry.term}:{{{''.join(members.voters)}{learners}}}"


def message_words(message: Message) -> str:
    return f"{type(message).__name__} term {message.term}{_rest(message)}"


def _rest(message: Message) -> str:
    match message:
        case PreVote() | RequestVote():
            by_transfer = ", by transfer" if isinstance(message, RequestVote) and message.transfer else ""
            return f", log ends {message.last_index}/{message.last_term}{by_transfer}"
        case PreVoteAnswer(granted=granted) | VoteAnswer(granted=granted):
            return ", granted" if granted else ", refused"
        case AppendEntries(prev_index=index, prev_term=term, entries=entries, commit=commit):
            return f", after {index}/{term}: {short_entries(entries) or 'nothing'}, commit {commit}"
        case AppendAnswer(accepted=True, match_index=match):
            return f", matches up to {match}"
        case AppendAnswer(conflict_index=0):
            return ", refused"
        case AppendAnswer(prev_index=prev, conflict_index=index, conflict_term=0):
            return f", no entry {prev}: the log ends before {index}"
        case AppendAnswer(prev_index=prev, conflict_index=index, conflict_term=term):
            return f", another entry {prev}: of term {term}, from {index} on"
        case InstallSnapshot(snapshot=snapshot, offset=offset, done=done):
            part = f"from byte {offset}{', the last part' if done else ''}"
            return f", snapshot {snapshot.index}/{snapshot.term}: {snapshot.data.decode()!r} {part}"
        case InstallAnswer(match_index=0, received=received):
            return f", has {received} bytes"
        case InstallAnswer(match_index=match):
            return f", matches up to {match}"
        case TimeoutNow():
            return ""
        case _:
            assert_never(message)
