"""The records of TLS in what a peer sends, counted by their headers, which are not encrypted (RFC 8446 section
5.1)."""

from __future__ import annotations

HEADER_BYTES = 5
MAX_CIPHERTEXT_BYTES = 16 * 1024 + 256
"""Of one record (RFC 8446 section 5.2)."""


class RecordCount:
    """How many records have come without application data, which only TLS itself has a use for. Each costs as much
    time as many kilobytes of data do, and an honest peer sends a few of them."""

    __slots__ = ("_head", "lacking", "without_data")

    def __init__(self) -> None:
        self.without_data = 0
        """Records that have begun, less two for each time that data was read: a long run of them shows, and so does
        an endless mixture of which most are without data."""
        self.lacking = 0
        """Bytes that the last record still lacks."""
        self._head = b""

    def add(self, data: bytes) -> None:
        """These bytes have come, behind those of the call before."""
        data = self._head + data
        at = self.lacking
        while at + HEADER_BYTES <= len(data):
            self.without_data += 1
            at += HEADER_BYTES + int.from_bytes(data[at + 3 : at + HEADER_BYTES], "big")
        self._head = data[at:]
        self.lacking = max(0, at - len(data))

    def data_read(self) -> None:
        """A record had application data, or the rest of one."""
        self.without_data = max(0, self.without_data - 2)
