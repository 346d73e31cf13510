"""Snapshots of etcd's database, streamed from a member into heliosd's data directory."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from heliosd.cluster.etcd.client.errors import EtcdError, EtcdRefused
from heliosd.cluster.snapshots import SnapshotOutcome, SnapshotTracker
from heliosd.errors import Conflict, NoLeader, StoreFull

from .context import EtcdContext
from .poller import Poller

RETAINED = 3
FOLDER = "etcd-snapshots"


@dataclass(frozen=True, slots=True)
class Backup:
    """Takes snapshots into `directory`, files 0600; the newest `RETAINED` are kept."""

    etcd: EtcdContext
    poller: Poller
    tracker: SnapshotTracker
    directory: Path

    async def take(self) -> SnapshotOutcome:
        """Stream the database of this node's own member, else of the leader, to disk.

        The file gets its name, TERM-INDEX.db, once it is complete and its SHA-256 is right. Raises `NoLeader`
        if no member can be asked, `StoreFull` if it cannot be written, `Conflict` if etcd refuses.
        """
        view = self.etcd.view
        member = view.own or next((each for each in view.members if each.id == view.leader), None)
        url = self.poller.url_of(member) if member is not None else ""
        if not url:
            raise NoLeader("No member can be asked for a snapshot")
        began = self.etcd.now()
        try:
            status = await self.etcd.client.status(url)
            name = f"{status.raft_term}-{status.raft_applied_index}"
            size = await self._stream(url, name)
        except OSError as error:
            raise StoreFull(f"the snapshot was not written: {error.strerror}") from error
        except EtcdRefused as refused:
            raise Conflict(refused.reason) from refused
        except EtcdError as error:
            raise NoLeader(str(error)) from error
        await trio.to_thread.run_sync(self._forget_old)
        now, latest = self.etcd.now(), self.tracker.latest
        previous = latest.index if latest is not None else 0
        return self.tracker.created(
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

    def failed(self, error: Exception) -> SnapshotOutcome:
        """The record of a snapshot that failed."""
        return self.tracker.failed(kind="created", message=str(error), now=self.etcd.now())

    async def _stream(self, url: str, name: str) -> int:
        folder = self.directory / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / f"{name}.part"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            async with await trio.open_file(descriptor, "wb") as file:
                async with self.etcd.client.snapshot(url) as snapshot:
                    async for piece in snapshot:
                        await file.write(piece)
                await file.flush()
                await trio.to_thread.run_sync(os.fsync, descriptor)
            part.rename(folder / f"{name}.db")
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        return snapshot.size

    def _forget_old(self) -> None:
        """Delete all but the newest, and files that a kill left incomplete."""
        folder = self.directory / FOLDER
        with suppress(OSError):
            files = sorted(folder.glob("*.db"), key=lambda path: path.stat().st_mtime_ns)
            for old in [*files[:-RETAINED], *folder.glob("*.part")]:
                old.unlink(missing_ok=True)
