"""Snapshots of etcd's database, streamed from a member into heliosd's data directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path

import trio

from heliosd import atomic_file
from heliosd.cluster.etcd.client.errors import EtcdError, EtcdRefused
from heliosd.cluster.snapshots import SnapshotOutcome, SnapshotTracker
from heliosd.errors import Conflict, HeliosError, NoLeader, StoreFull
from heliosd.protocol.views.snapshots import SnapshotRecord

from .context import EtcdContext
from .poller import Poller

RETAINED = 3
FOLDER = "etcd-snapshots"


@dataclass(slots=True, eq=False)
class _Request:
    """One snapshot. All who ask for one before it begins share it."""

    asked: trio.Event = field(default_factory=trio.Event)
    done: trio.Event = field(default_factory=trio.Event)
    outcome: SnapshotRecord | HeliosError | None = None


class Backup:
    """Takes snapshots into `directory`, files 0600; the newest `RETAINED` are kept.

    `take` may be called by any task; `run` takes the snapshots, one after the other. `emit` is called with how each
    ended, also if it failed and if nobody waits for it any more.
    """

    def __init__(
        self,
        context: EtcdContext,
        poller: Poller,
        tracker: SnapshotTracker,
        directory: Path,
        emit: Callable[[SnapshotOutcome], None],
    ) -> None:
        self._etcd = context
        self._poller = poller
        self._tracker = tracker
        self._directory = directory
        self._emit = emit
        self._next = _Request()

    async def take(self) -> SnapshotRecord:
        """Stream the database of this node's own member, else of the leader, to disk; begun after this call.

        The file gets its name, TERM-INDEX.db, once it is complete and its SHA-256 is right; the name is on disk
        when this returns. A large database may take minutes: a caller that gives up ends only its own waiting.
        Raises `NoLeader` if no member can be asked, `StoreFull` if it cannot be written, `Conflict` if etcd
        refuses.
        """
        request = self._next
        request.asked.set()
        await request.done.wait()
        if isinstance(request.outcome, HeliosError):
            raise request.outcome
        assert request.outcome is not None
        return request.outcome

    async def run(self) -> None:
        """Until cancelled. What was asked for before the start is taken too."""
        while True:
            await self._next.asked.wait()
            await self._etcd.subscribers.room()
            request, self._next = self._next, _Request()
            try:
                outcome = await self._take()
            except HeliosError as error:
                request.outcome = error
                outcome = self._tracker.failed(kind="created", message=str(error), now=self._etcd.now())
            else:
                request.outcome = outcome.record
            self._emit(outcome)
            request.done.set()

    async def _take(self) -> SnapshotOutcome:
        view = self._etcd.view
        member = view.own or next((each for each in view.members if each.id == view.leader), None)
        url = self._poller.url_of(member) if member is not None else ""
        if not url:
            raise NoLeader("No member can be asked for a snapshot")
        began = self._etcd.now()
        try:
            status = await self._etcd.client.status(url)
            name = f"{status.raft_term}-{status.raft_applied_index}"
            size = await self._stream(url, name)
        except OSError as error:
            raise StoreFull(f"the snapshot was not written: {error.strerror}") from error
        except EtcdRefused as refused:
            raise Conflict(refused.reason) from refused
        except EtcdError as error:
            raise NoLeader(str(error)) from error
        await trio.to_thread.run_sync(self._delete_old, [*(each.id for each in self._tracker.kept), name])
        now, latest = self._etcd.now(), self._tracker.latest
        previous = latest.index if latest is not None else 0
        return self._tracker.created(
            index=status.raft_applied_index,
            term=status.raft_term,
            size=size,
            duration=now.mono - began.mono,
            entries_compacted=0,
            leader_id=view.leader,
            peer_count=len(view.members) - (view.own is not None),
            previous_index=previous,
            now=now,
        )

    async def _stream(self, url: str, name: str) -> int:
        folder = self._directory / FOLDER
        part = folder / f"{name}.part"
        try:
            async with trio.wrap_file(await trio.to_thread.run_sync(self._open, part)) as file:
                async with self._etcd.client.snapshot(url) as snapshot:
                    async for piece in snapshot:
                        await file.write(piece)
                await file.flush()
                await trio.to_thread.run_sync(os.fsync, file.fileno())
            await trio.to_thread.run_sync(atomic_file.move, part, folder / f"{name}.db")
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        return snapshot.size

    def _open(self, part: Path) -> BufferedWriter:
        part.parent.mkdir(mode=0o700, exist_ok=True)
        atomic_file.sync_directory(self._directory)
        return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, atomic_file.MODE), "wb")

    def _delete_old(self, known: Sequence[str]) -> None:
        """Delete all but the newest, and files that a kill left incomplete.

        `known` are the names of which there is a record, the newest last. A file's time decides only among the
        others, which are older: where the clock was set back, the newest file has not the latest time.
        """
        folder = self._directory / FOLDER
        places = {name: place for place, name in enumerate(known, start=1)}
        with suppress(OSError):
            files = sorted(
                folder.glob("*.db"), key=lambda path: (places.get(path.stem, 0), path.stat().st_mtime_ns)
            )
            for old in [*files[:-RETAINED], *folder.glob("*.part")]:
                old.unlink(missing_ok=True)
