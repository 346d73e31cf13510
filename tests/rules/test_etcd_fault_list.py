"""What does not work at the moment, and whether somebody has to change something in etcd."""

from __future__ import annotations

import logging

import pytest

from heliosd.cluster.etcd.client.errors import (
    EtcdDenied,
    EtcdLoginRefused,
    EtcdNoSpace,
    EtcdRefused,
    EtcdUnavailable,
)
from heliosd.cluster.etcd.faults import Faults

HERE = "http://etcd-1:2379"
DENIED = EtcdDenied(HERE, "etcdserver: permission denied", 7)
TOO_LARGE = EtcdRefused(HERE, "etcdserver: request is too large", 3)


def test_what_is_denied_is_a_refusal_that_holds_for_every_request() -> None:
    faults = Faults()
    faults.add("writing", DENIED)
    faults.add("writing metrics", TOO_LARGE)
    assert faults.refusals() == {"writing": str(DENIED), "writing metrics": str(TOO_LARGE)}
    assert faults.denials() == {"writing": str(DENIED)}


@pytest.mark.parametrize(
    "error", [DENIED, EtcdLoginRefused(HERE, "invalid user", 3), EtcdNoSpace(HERE, "space exceeded", 8)]
)
def test_a_right_a_login_and_space_can_be_given_back(error: EtcdRefused) -> None:
    faults = Faults()
    faults.add("writing metrics", error)
    assert "writing metrics" in faults.denials()
    faults.allowed("writing metrics")
    assert faults.all() == faults.denials() == faults.refusals() == {}


def test_what_is_allowed_need_not_work() -> None:
    faults = Faults()
    faults.add("writing metrics", EtcdUnavailable(HERE, "connection refused"))
    faults.allowed("writing metrics")
    faults.allowed("revocations")
    assert faults.reason("writing metrics") == f"{HERE}: connection refused"


def test_a_denial_that_becomes_another_trouble_is_none_any_more() -> None:
    faults = Faults()
    faults.add("presence", DENIED)
    faults.add("presence", EtcdUnavailable(HERE, "connection refused"))
    assert faults.denials() == faults.refusals() == {}
    assert faults.reason("presence") == f"{HERE}: connection refused"


def test_each_kind_of_trouble_is_logged_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    faults = Faults()
    for _ in range(3):
        faults.add("writing", DENIED)
    for _ in range(3):
        faults.clear("writing")
    assert caplog.messages == [
        f"etcd: writing does not work: {HERE}: etcdserver: permission denied",
        "etcd: writing works again",
    ]
