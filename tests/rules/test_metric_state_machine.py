"""What a restored snapshot changes, in terms of commands."""

from __future__ import annotations

from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.metric_commands import DeleteMetric, RegisterMetric, UpdateMetric, encode_command
from heliosd.cluster.simulated.emitted_metrics import difference
from heliosd.cluster.simulated.state_machine import MetricStateMachine


def with_applied(*commands: RegisterMetric | DeleteMetric | UpdateMetric) -> MetricStateMachine:
    made = MetricStateMachine()
    for command in commands:
        made.apply(encode_command(command))
    return made


def registered(name: str, at: float) -> RegisterMetric:
    return RegisterMetric(name=name, type="gauge", help="", labels={}, at=at)


def test_a_metric_that_was_registered_anew_is_deleted_and_defined_and_no_value() -> None:
    before = with_applied(registered("app_a", 1.0), registered("app_b", 1.0), registered("app_c", 1.0))
    after = with_applied(
        registered("app_a", 1.0),
        registered("app_c", 1.0),
        DeleteMetric(name="app_a", at=2.0),
        registered("app_a", 3.0),
        registered("app_d", 3.0),
    )
    deleted, defined = difference(before.metrics.views(), after.metrics.views())
    assert deleted.defined == {"app_a": None, "app_b": None}
    assert {name: view is not None for name, view in defined.defined.items()} == {
        "app_a": True,
        "app_d": True,
    }
    assert deleted.moved == defined.moved == {}


def test_a_write_that_is_repeated_after_a_leap_of_the_clock_counts_once() -> None:
    years = 10 * 365 * 86_400.0
    machine = with_applied(RegisterMetric(name="app_jobs", type="counter", at=1.0))

    def add(key: str, at: float) -> None:
        command = UpdateMetric(name="app_jobs", delta=1.0, at=at)
        machine.apply(encode_command(command, WriteKey(key, "add one")))

    add("first", 2.0)
    add("second", 3.0 + years)
    add("first", 4.0 + years)
    assert machine.metrics.view("app_jobs").value == 2.0
