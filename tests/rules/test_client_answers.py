"""What the client makes of answers that heliosd did not write, as of a proxy before it."""

from __future__ import annotations

import pytest

from heliosd.client.http_api import error_text


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"error":"\xff"}', b'{"error":' + b"[" * 100_000])
def test_a_refusal_without_an_error_of_heliosd_is_told_by_its_status(body: bytes) -> None:
    assert error_text(body, 502) == "the daemon answered with HTTP status 502"
