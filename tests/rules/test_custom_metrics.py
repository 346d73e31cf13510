from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.custom_metrics import MetricsApplied, MetricSet
from heliosd.cluster.metric_commands import (
    DeleteMetric,
    KeyedCommand,
    MetricCommand,
    RegisterMetric,
    ResetMetrics,
    UpdateMetric,
    check_command,
    decode_command,
    encode_command,
)
from heliosd.errors import Conflict, Invalid, NotFound, RequestRefused
from heliosd.protocol.views.custom_metrics import CustomMetricsReport

AT = 1_700_000_000.0


def register(name: str, kind: Any = "gauge", **more: Any) -> RegisterMetric:
    return RegisterMetric(name=name, type=kind, at=AT, **more)


def update(name: str, **more: Any) -> UpdateMetric:
    return UpdateMetric(name=name, at=AT + 1, **more)


def carry_out(metrics: MetricSet, command: MetricCommand) -> MetricsApplied:
    """What a backend does with a command: check it, then apply it."""
    check_command(command)
    return metrics.apply(command)


def set_of(*commands: MetricCommand) -> MetricSet:
    metrics = MetricSet()
    for command in commands:
        carry_out(metrics, command)
    return metrics


def refused(metrics: MetricSet, command: MetricCommand) -> RequestRefused:
    before = metrics.encode()
    with pytest.raises(RequestRefused) as caught:
        carry_out(metrics, command)
    assert metrics.encode() == before
    return caught.value


def test_a_registered_metric_is_defined_with_its_first_value() -> None:
    metrics = MetricSet()
    applied = metrics.apply(register("app_depth", help="Depth.", labels={"env": "prod"}))
    assert applied.moved == {}
    assert msgspec.to_builtins(applied.defined["app_depth"]) == {
        "name": "app_depth",
        "type": "gauge",
        "help": "Depth.",
        "labels": {"env": "prod"},
        "value": 0.0,
        "created_at": "2023-11-14T22:13:20.000000Z",
        "updated_at": "2023-11-14T22:13:20.000000Z",
    }


def test_a_gauge_takes_its_value_and_a_counter_its_delta() -> None:
    metrics = set_of(register("g"), register("c", "counter"))
    moved = metrics.apply(update("g", value=-2.5)).moved["g"]
    assert (moved.value, moved.updated_at) == (-2.5, "2023-11-14T22:13:21.000000Z")
    metrics.apply(update("c"))
    metrics.apply(update("c", delta=2.5))
    assert metrics.apply(update("c", delta=0)).moved["c"].value == 3.5


def test_a_histogram_counts_by_bound_and_its_value_is_its_count() -> None:
    metrics = set_of(register("h", "histogram", buckets=(-1, 0.5, 2)))
    for value in (-1, 0, 0.5, 0.6, 1e9):
        metrics.apply(update("h", value=value))
    view = metrics.view("h")
    assert (view.buckets, view.bucket_counts) == ((-1, 0.5, 2), (1, 3, 4, 5))
    assert (view.value, view.count) == (5, 5)
    assert view.sum == pytest.approx(1e9 + 0.1)


def test_a_histogram_without_buckets_has_the_default_ones() -> None:
    view = set_of(register("h", "histogram")).view("h")
    assert msgspec.json.encode(view.buckets) == b"[0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (58.0, "58"),
        (2.5, "2.5"),
        (-3.0, "-3"),
        (2.0**53, "9007199254740992"),
        (1e300, "1e300"),
    ],
)
def test_a_whole_value_is_written_without_a_point(value: float, text: str) -> None:
    metrics = set_of(register("g"))
    metrics.apply(update("g", value=value))
    assert b'"value":%s,' % text.encode() in msgspec.json.encode(metrics.view("g"))


@pytest.mark.parametrize(
    ("command", "error", "field"),
    [
        (register("g"), Conflict, "name"),
        (update("none", value=1.0), NotFound, "name"),
        (DeleteMetric(name="none", at=AT), NotFound, "name"),
        (update("c", value=1.0), Invalid, "value"),
        (update("c", delta=-1.0), Invalid, "delta"),
        (update("c", delta=math.inf), Invalid, "delta"),
        (update("c", delta=1.7e308), Invalid, "delta"),
        (update("g", delta=1.0), Invalid, "delta"),
        (update("g"), Invalid, "value"),
        (update("g", value=math.nan), Invalid, "value"),
        (update("h"), Invalid, "value"),
        (update("h", value=1.7e308), Invalid, "value"),
        (update("h", value=1.0, delta=1.0), Invalid, "delta"),
    ],
)
def test_what_cannot_be_applied_names_its_field_and_changes_nothing(
    command: MetricCommand, error: type[RequestRefused], field: str
) -> None:
    metrics = set_of(
        register("g"),
        register("c", "counter"),
        update("c", delta=1.7e308),
        register("h", "histogram"),
        update("h", value=1.7e308),
    )
    refusal = refused(metrics, command)
    assert (type(refusal), refusal.field) == (error, field)


@pytest.mark.parametrize(
    "name",
    [
        *("", "1a", "a-b", "a b", "a\n", "ä", "a{}", "a" * 201),
        *("__a", "raft_x", "heliosd_x", "process_x", "python_x"),
    ],
)
def test_names_outside_the_rule_are_refused(name: str) -> None:
    refusal = refused(MetricSet(), register(name))
    assert (type(refusal), refusal.field) == (Invalid, "name")


@pytest.mark.parametrize("name", ["a", "_a", ":a:b", "A9", "raft", "xraft_y", "a" * 200, "_total", "x_total"])
def test_names_within_the_rule_are_taken(name: str) -> None:
    assert len(set_of(register(name))) == 1


@pytest.mark.parametrize("name", ["raft", "process", "_"])
def test_a_histogram_that_would_show_reserved_names_is_refused(name: str) -> None:
    assert refused(MetricSet(), register(name, "histogram")).field == "name"


@pytest.mark.parametrize("suffix", ["_bucket", "_sum", "_count"])
@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_a_name_that_a_histogram_shows_too_is_refused_in_either_order(suffix: str, kind: str) -> None:
    refusal = refused(set_of(register("h", "histogram")), register("h" + suffix, kind))
    assert (type(refusal), refusal.field) == (Invalid, "name")
    refusal = refused(set_of(register("h" + suffix, kind)), register("h", "histogram"))
    assert (type(refusal), refusal.field) == (Invalid, "name")


def test_names_that_only_look_alike_stand_beside_each_other() -> None:
    metrics = set_of(register("c", "counter"), register("c_total", "counter"), register("c_sum"))
    metrics.apply(register("g_count"))
    metrics.apply(register("g"))
    metrics.apply(register("h", "histogram"))
    metrics.apply(register("h_created"))
    assert len(metrics) == 7


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"help": "x" * 4_097}, "help"),
        ({"help": "a\0b"}, "help"),
        ({"help": "\ud800"}, "help"),
        ({"labels": {"a-b": ""}}, "labels"),
        ({"labels": {"a:b": ""}}, "labels"),
        ({"labels": {"": ""}}, "labels"),
        ({"labels": {"a\n": ""}}, "labels"),
        ({"labels": {"__a": ""}}, "labels"),
        ({"labels": {"le": ""}}, "labels"),
        ({"labels": {"a" * 201: ""}}, "labels"),
        ({"labels": {f"l{number}": "" for number in range(17)}}, "labels"),
        ({"labels": {"a": "x" * 1_025}}, "labels.a"),
        ({"labels": {"a": "\0"}}, "labels.a"),
        ({"labels": {"a": "\udfff"}}, "labels.a"),
        ({"buckets": ()}, "buckets"),
        ({"buckets": (1.0, 1.0)}, "buckets"),
        ({"buckets": (2.0, 1.0)}, "buckets"),
        ({"buckets": (1.0, math.inf)}, "buckets"),
        ({"buckets": (math.nan,)}, "buckets"),
        ({"buckets": tuple(map(float, range(101)))}, "buckets"),
    ],
)
def test_a_registration_beyond_the_limits_names_its_field(more: dict[str, Any], field: str) -> None:
    refusal = refused(MetricSet(), register("h", "histogram", **more))
    assert (type(refusal), refusal.field) == (Invalid, field)


def test_only_a_histogram_has_buckets_and_reserves_the_label_le() -> None:
    assert refused(MetricSet(), register("g", buckets=(1.0,))).field == "buckets"
    assert len(set_of(register("g", labels={"le": "1"}))) == 1


def test_the_thousand_and_first_metric_is_refused_until_one_is_deleted() -> None:
    metrics = set_of(*(register(f"m{number}") for number in range(1_000)))
    refusal = refused(metrics, register("one_more"))
    assert isinstance(refusal, Conflict)
    assert metrics.apply(DeleteMetric(name="m7", at=AT)).defined == {"m7": None}
    metrics.apply(register("one_more"))
    assert len(metrics) == 1_000


def test_a_reset_deletes_all_and_names_each() -> None:
    metrics = set_of(register("a"), register("b", "counter"))
    applied = metrics.apply(ResetMetrics(at=AT))
    assert (applied.defined, len(metrics), metrics.views()) == ({"a": None, "b": None}, 0, {})
    assert metrics.apply(ResetMetrics(at=AT)).defined == {}


def test_the_report_counts_by_type_or_shows_one() -> None:
    metrics = set_of(
        register("a"), register("b", "counter"), register("c", "counter"), register("d", "histogram")
    )
    report = metrics.report()
    assert isinstance(report, CustomMetricsReport)
    assert (report.total_metrics, report.counter_metrics, report.gauge_metrics, report.histogram_metrics) == (
        *(4, 2, 1, 1),
    )
    assert list(report.metrics) == ["a", "b", "c", "d"]
    with pytest.raises(NotFound) as caught:
        metrics.view("x")
    assert caught.value.field == "name"


def test_what_encode_did_not_make_is_refused_and_changes_nothing() -> None:
    metrics = set_of(register("a"))
    with pytest.raises(msgspec.DecodeError):
        metrics.restore(b'{"a":')
    assert list(metrics.views()) == ["a"]
    metrics.restore(b"")
    assert len(metrics) == 0


NAMES = st.sampled_from(["a", "b", "a_sum", "a_count", "b_total", "_", "raft_x", "1", ":", "\ud800"])
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
NUMBERS = st.none() | st.floats() | st.sampled_from([0.0, 1.0, 1.7e308])
COMMANDS: st.SearchStrategy[MetricCommand] = st.one_of(
    st.builds(
        RegisterMetric,
        name=NAMES,
        type=st.sampled_from(["counter", "gauge", "histogram"]),
        help=TEXT,
        labels=st.dictionaries(st.sampled_from(["x", "le", "__y", "é"]), TEXT, max_size=2),
        buckets=st.none() | st.lists(st.floats(), max_size=4).map(tuple),
        at=st.floats(0, 4e9),
    ),
    st.builds(UpdateMetric, name=NAMES, value=NUMBERS, delta=NUMBERS, at=st.floats(0, 4e9)),
    st.builds(DeleteMetric, name=NAMES, at=st.floats(0, 4e9)),
    st.builds(ResetMetrics, at=st.floats(0, 4e9)),
)


@given(st.lists(COMMANDS, max_size=30))
def test_members_that_apply_the_same_commands_agree_and_refusals_change_nothing(
    commands: list[MetricCommand],
) -> None:
    one, other = MetricSet(), MetricSet()
    for command in commands:
        before = one.encode()
        try:
            applied = carry_out(one, command)
        except RequestRefused:
            assert one.encode() == before
            continue
        # What is accepted is replicated, and a member may have been restored from a snapshot at any time.
        restored = MetricSet()
        restored.restore(other.encode())
        other = restored
        replicated = decode_command(encode_command(command))
        assert not isinstance(replicated, KeyedCommand)
        assert other.apply(replicated) == applied
        assert other.encode() == one.encode()
        assert other.views() == one.views()
        for name, view in {**applied.defined, **applied.moved}.items():
            assert one.views().get(name) == view


def test_a_copy_and_its_original_change_independently() -> None:
    metrics = MetricSet()
    for name, kind in (("c", "counter"), ("g", "gauge"), ("h", "histogram")):
        metrics.apply(RegisterMetric(name=name, type=kind, at=1.0))  # type: ignore[arg-type]
    before = metrics.views()
    other = metrics.copy()
    other.apply(UpdateMetric(name="c", at=2.0))
    other.apply(UpdateMetric(name="g", value=2.0, at=2.0))
    other.apply(UpdateMetric(name="h", value=2.0, at=2.0))
    other.apply(RegisterMetric(name="new", type="gauge", at=2.0))
    assert metrics.views() == before
    metrics.apply(DeleteMetric(name="c", at=3.0))
    assert "c" in other
    assert other.view("h").count == 1


def test_one_metric_is_stored_and_taken_back_by_itself() -> None:
    metrics, other = MetricSet(), MetricSet()
    metrics.apply(RegisterMetric(name="h", type="histogram", at=1.0))
    metrics.apply(UpdateMetric(name="h", value=2.0, at=2.0))
    other.put("h", metrics.encode_one("h"))
    assert other.views() == metrics.views()
    for name, data in (("other", metrics.encode_one("h")), ("h", b"{}"), ("h", b"")):
        with pytest.raises(msgspec.DecodeError):
            other.put(name, data)
    assert other.views() == metrics.views()
    other.remove("h")
    other.remove("h")
    assert len(other) == 0
    with pytest.raises(NotFound):
        other.encode_one("h")
