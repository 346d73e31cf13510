"""`/metrics` in the format that is asked for, read by Prometheus' own tools and the reference parser."""

from __future__ import annotations

import re
import subprocess
from typing import Any
from unittest.mock import patch

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from heliosd.cluster.custom_metrics import MetricSet
from heliosd.cluster.metric_commands import RegisterMetric, UpdateMetric
from heliosd.hub import time_slice
from heliosd.hub.counters import HubCounters
from heliosd.protocol.views.custom_metrics import MetricType
from heliosd.web.rest.openmetrics import END, CustomFamilies, Format, openmetrics_text, wanted_format
from tests.support.metric_readings import LATER, START, Readings
from tests.support.rest_server import Rest

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def busy() -> Readings:
    """A node that has something of everything."""
    node = Readings()
    node.latency.add_peer("node-2", "127.0.0.1:7001", START)
    node.latency.succeeded("node-2", "probe", 0.002, START)
    node.latency.failed("node-2", "append_entries", LATER)
    node.take_snapshot()
    return node


def counted() -> HubCounters:
    counters = HubCounters(bytes=12)
    counters.connections["accepted"] += 2
    counters.messages["status"] += 4
    counters.dropped["slow"] += 1
    counters.broadcast.observe(0.001)
    return counters


def families(text: str) -> dict[str, Metric]:
    """As the reference parser reads them, which is strict."""
    return {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.PLAIN),
        ("*/*", Format.PLAIN),
        ("application/json, text/html", Format.PLAIN),
        ("text/plain", Format.TEXT),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Format.TEXT),
        (PROMETHEUS_2, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
        ("Application/OpenMetrics-Text", Format.OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', Format.OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format.TEXT),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", Format.TEXT),
        ("application/openmetrics-text;q=0", Format.PLAIN),
        ("application/openmetrics-text;q=x,,;;=", Format.PLAIN),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, form: Format) -> None:
    assert wanted_format(accept) is form


@pytest.mark.needs("promtool")
def test_promtool_has_no_remark_on_what_is_shown_to_whoever_has_no_preference() -> None:
    text = busy().text(counted(), Format.PLAIN)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_names_of_earlier_builds_stand_beside_those_in_seconds() -> None:
    plain = busy().text(counted(), Format.PLAIN)
    whole = busy().text(counted(), Format.TEXT)
    names = {
        form: set(re.findall(r"^(\w+)", text, re.M)) for form, text in (("plain", plain), ("text", whole))
    }
    old = names["text"] - names["plain"]
    assert len(old) == 8
    assert all(name.endswith("_ms") for name in old)
    assert {f"{name.removesuffix('_ms')}_seconds" for name in old} <= names["plain"]
    assert old <= families(busy().text(counted(), Format.OPENMETRICS)).keys()


def test_openmetrics_has_the_same_samples_as_the_text() -> None:
    node = busy()
    node.metrics.apply(RegisterMetric(name="jobs_total", type="counter", help="Jobs.", at=0.0))
    node.metrics.apply(UpdateMetric(name="jobs_total", delta=3, at=0.0))

    def lines(text: str) -> set[str]:
        # The process's own figures change between two readings.
        return {
            line.removesuffix(".0")
            for line in text.splitlines()
            if line[0] != "#" and not line.startswith(("process_", "python_"))
        }

    assert lines(node.text(counted(), Format.OPENMETRICS)) == lines(node.text(counted()))
    found = families(node.text(counted(), Format.OPENMETRICS))
    assert (found["jobs"].type, found["jobs"].samples[0].value) == ("counter", 3)
    assert found["heliosd_ws_connections"].type == "counter"


def test_a_counter_of_another_name_keeps_it_and_a_histogram_below_zero_has_no_sum() -> None:
    node = Readings()
    for name in ("jobs", "jobs_total", "_total"):
        node.metrics.apply(RegisterMetric(name=name, type="counter", at=0.0))
    node.metrics.apply(RegisterMetric(name="t", type="histogram", buckets=(-1.0, 1e16), at=0.0))
    found = families(node.text(form=Format.OPENMETRICS))
    assert {name: found[name].type for name in ("jobs", "jobs_total", "_total")} == dict.fromkeys(
        ("jobs", "jobs_total", "_total"), "unknown"
    )
    assert [sample.name for sample in found["t"].samples] == ["t_bucket"] * 3


CLASHING: tuple[tuple[str, MetricType], ...] = (
    ("a_total", "counter"),
    ("a_created", "gauge"),
    ("b_total", "counter"),
    ("b_created_total", "counter"),
    ("h", "histogram"),
    ("h_bucket_total", "counter"),
    ("h_created", "gauge"),
    ("i", "histogram"),
    ("i_count_total", "counter"),
    ("j", "histogram"),
)


@given(st.sets(st.sampled_from(CLASHING)))
def test_whatever_names_are_registered_a_page_is_read_and_has_every_sample(
    chosen: set[tuple[str, MetricType]],
) -> None:
    node = Readings()
    for name, kind in chosen:
        node.metrics.apply(RegisterMetric(name=name, type=kind, at=0.0))
    samples = [
        s.name for family in families(node.text(form=Format.OPENMETRICS)).values() for s in family.samples
    ]
    shown = {
        f"{name}{suffix}"
        for name, kind in chosen
        for suffix in (("_bucket", "_count", "_sum") if kind == "histogram" else ("",))
    }
    assert shown <= set(samples)


def test_a_metric_keeps_its_type_unless_another_one_takes_up_its_names() -> None:
    node = Readings()
    for name, kind in CLASHING:
        node.metrics.apply(RegisterMetric(name=name, type=kind, at=0.0))
    found = families(node.text(form=Format.OPENMETRICS))
    assert {name: family.type for name, family in found.items() if name[0] in "ab"} == {
        "a_total": "unknown",
        "a_created": "gauge",
        "b_total": "unknown",
        "b_created_total": "unknown",
    }
    assert [name for name, family in found.items() if family.type == "histogram" and len(name) == 1] == ["j"]


def test_a_histogram_whose_sum_is_negative_has_none() -> None:
    node = Readings()
    node.metrics.apply(RegisterMetric(name="t", type="histogram", buckets=(0.0, 1.0), at=0.0))
    node.metrics.apply(UpdateMetric(name="t", value=-5.0, at=0.0))
    found = families(node.text(form=Format.OPENMETRICS))
    assert [sample.name for sample in found["t"].samples] == ["t_bucket"] * 3


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@given(
    name=st.from_regex(r"[a-z_][a-z_]{0,10}(_total|_info|_count|_bucket|_created)?", fullmatch=True).filter(
        lambda name: not name.startswith(("__", "raft_", "heliosd_", "process_", "python_"))
    ),
    kind=st.sampled_from(["counter", "gauge"]),
    text=TEXT,
    label=TEXT,
)
def test_any_custom_metric_parses_under_its_own_name(name: str, kind: Any, text: str, label: str) -> None:
    metrics = MetricSet()
    metrics.apply(RegisterMetric(name=name, type=kind, help=text, labels={"l": label}, at=0.0))
    metrics.apply(
        UpdateMetric(name=name, at=0.0, **({"delta": 2.5} if kind == "counter" else {"value": 2.5}))
    )
    families_of = CustomFamilies(metrics.types())
    shown = (openmetrics_text(families_of.of(metrics.view(name))) + END).decode()
    found = [
        sample for family in families(shown).values() for sample in family.samples if sample.name == name
    ]
    assert [(sample.labels, sample.value) for sample in found] == [({"l": label}, 2.5)]


async def test_a_scraper_gets_openmetrics_over_http() -> None:
    rest = Rest()
    token = rest.token("admin")
    for accept, content_type in (
        (PROMETHEUS_2, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
    ):
        answer = await rest.ask("GET", "/metrics", token=token, headers={"Accept": accept})
        assert (answer.headers["Content-Type"], answer.headers["Vary"]) == (content_type, "Origin, Accept")
        body = await answer.get_data(as_text=True)
        assert str(body).endswith("# EOF\n") == ("openmetrics" in content_type)


@pytest.mark.parametrize("accept", [PROMETHEUS_2, "*/*"])
async def test_others_have_their_turns_while_a_scrape_goes_through_many_metrics(accept: str) -> None:
    rest, turns = Rest(), 0
    token = rest.token("admin")
    for number in range(50):
        rest.backend.metrics.apply(RegisterMetric(name=f"h{number}", type="histogram", at=0.0))

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with patch.object(time_slice, "TURN_SECONDS", 0.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            answer = await rest.ask("GET", "/metrics", token=token, headers={"Accept": accept})
            nursery.cancel_scope.cancel()
    assert str(await answer.get_data(as_text=True)).count("+Inf") >= 50
    assert turns >= 50
