"""Whether a write-ahead log lost a commit in its middle.

SQLite reads its log up to the first frame with a wrong checksum and treats the rest as the torn end of a crash.
That is right for a torn end, but a flipped bit earlier would silently undo every answered write after it. The two
differ: a commit is on disk before the next transaction's first frame is written, so a valid commit frame that is
followed by a frame chained to it can stand behind a bad frame only if the disk returned wrong data.

The format is https://sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import struct
from io import BufferedReader

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
MAGIC = 0x377F0682  # plus 1: the checksums read their words big-endian

Sum = tuple[int, int]


def lost_commits(wal: BufferedReader) -> bool:
    """True if commits that were once on disk can no longer be read from this log, of which one frame is in memory
    at a time.

    The end of the log cannot be checked: a bad frame with nothing chained behind it looks like a torn write.
    """
    header = wal.read(HEADER_BYTES)
    if not wal.peek(1):
        return False  # the header is synced before the first frame: no frame was ever written
    magic, _, page_bytes, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", header)
    order = ">" if magic & 1 else "<"
    if magic & ~1 != MAGIC or _checksum(header[:24], (0, 0), order) != (sum1, sum2):
        return True
    # The sums that the next frame's checksum may start from: the one stored in the frame before and, if that frame
    # is bad, the one of its content, since the flipped bit may be in either.
    seeds = {(sum1, sum2)}
    follows_commit = bad_seen = False
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    while len(frame := wal.read(frame_bytes)) == frame_bytes:
        _, commit_pages, frame_salt1, frame_salt2, sum1, sum2 = struct.unpack_from(">6I", frame)
        page = frame[FRAME_HEADER_BYTES:]
        sums = {_checksum(page, _checksum(frame[:8], seed, order), order) for seed in seeds}
        chained = (sum1, sum2) in sums
        if chained and bad_seen and follows_commit:
            return True
        salted = (frame_salt1, frame_salt2) == (salt1, salt2)
        if not (chained or salted):  # left over from before the log was last restarted
            seeds, follows_commit, bad_seen = set(), False, True
            continue
        bad_seen = bad_seen or not (chained and salted)
        follows_commit = commit_pages != 0
        seeds = {(sum1, sum2)} if chained else {(sum1, sum2), *sums}
    return False


def _checksum(data: bytes, start: Sum, order: str) -> Sum:
    one, two = start
    for even, odd in struct.iter_unpack(f"{order}2I", data):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return one, two
