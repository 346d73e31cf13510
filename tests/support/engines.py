"""Which fan-out engine the daemons of the tests have: both in turn where a test asks for it, else the default, or
the one of `HELIOSD_TEST_FANOUT` (`make prove-fanout`)."""

from __future__ import annotations

import os

import pytest

FANOUT = os.environ.get("HELIOSD_TEST_FANOUT", "")
"""`websocket.fanout` of a daemon whose test says nothing about it; "": the default."""

on_both_engines = pytest.mark.parametrize("fanout", ["write", "uring"])
"""A test of a daemon that is the same by either engine."""
