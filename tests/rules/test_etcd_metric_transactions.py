"""Metric commands as transactions: what is answered, what is stored, and what is composed again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.custom_metrics import MAX_METRICS, MetricSet
from heliosd.cluster.etcd import metric_transactions
from heliosd.cluster.etcd.client.requests import MAX_REQUEST_BYTES, Delete, Put
from heliosd.cluster.etcd.client.responses import TxnResult
from heliosd.cluster.etcd.event_log import MAX_OPS, SeenHead, begin
from heliosd.cluster.etcd.metric_transactions import (
    MetricTransaction,
    Outrun,
    SeenMetrics,
    Settled,
    compose,
    settle,
)
from heliosd.cluster.etcd.mirror import Mirror
from heliosd.cluster.idempotency import WriteKey
from heliosd.cluster.metric_commands import (
    DeleteMetric,
    ExpireMetric,
    MetricCommand,
    RegisterMetric,
    ResetMetrics,
    UpdateMetric,
)
from heliosd.errors import Conflict, Invalid, KeyReused, NotFound, RequestRefused
from tests.support.etcd_model import CLUSTER, LAYOUT, Etcd

HITS = RegisterMetric(name="hits", type="counter", at=1.0)
HIT = UpdateMetric(name="hits", at=2.0)
DEPTH = RegisterMetric(name="depth", type="gauge", at=1.0)


@pytest.fixture
def etcd() -> Etcd:
    return fresh()


def fresh() -> Etcd:
    etcd = Etcd()
    draft = begin(LAYOUT, SeenHead(), cluster_id=CLUSTER, birth="0" * 12)
    etcd.txn(draft.compares, draft.then, draft.otherwise)
    return etcd


def seen(etcd: Etcd) -> SeenMetrics:
    mirror = Mirror(LAYOUT, 1000)
    mirror.load(etcd.read())
    return mirror.seen_metrics()


def stored(etcd: Etcd) -> MetricSet:
    return seen(etcd).metrics


def draft(commands: list[MetricCommand], on: SeenMetrics) -> MetricTransaction:
    return compose(LAYOUT, commands, on, lease="7", now_wall=1e9, max_events=10_000)


def send(etcd: Etcd, batch: MetricTransaction) -> TxnResult:
    return etcd.txn(batch.compares, batch.then, batch.otherwise)


def carry_out(etcd: Etcd, *commands: MetricCommand) -> list[RequestRefused | None]:
    """All of them, in as many transactions as it takes."""
    answers: list[RequestRefused | None] = []
    on = seen(etcd)
    while len(answers) < len(commands):
        batch = draft(list(commands[len(answers) :]), on)
        settled = settle(LAYOUT, batch, send(etcd, batch))
        assert isinstance(settled, Settled)
        answers += batch.answers
        on = settled.seen
    return answers


def events(etcd: Etcd) -> list[Any]:
    """The data of each event about metrics in the log."""
    kvs = etcd.under(LAYOUT.folder("events"), LAYOUT.folder_end("events"))
    return [json.loads(kv.value)["data"] for kv in kvs]


def kinds(answers: list[RequestRefused | None]) -> list[type | None]:
    return [None if answer is None else type(answer) for answer in answers]


def test_values_are_added_up_in_one_transaction(etcd: Etcd) -> None:
    carry_out(etcd, HITS, DEPTH)
    before, log = etcd.revision, events(etcd)
    batch = draft([HIT, HIT, UpdateMetric(name="depth", value=3.0, at=4.0), HIT], seen(etcd))
    assert batch.answers == (None,) * 4
    assert send(etcd, batch).succeeded
    assert etcd.revision == before + 1
    assert stored(etcd).view("hits").value == 3
    assert stored(etcd).view("depth").value == 3.0
    assert events(etcd) == log


def test_what_defines_metrics_is_logged_one_event_each(etcd: Etcd) -> None:
    batch = draft([HITS, DEPTH], seen(etcd))
    assert send(etcd, batch).succeeded
    first, second = events(etcd)
    assert first["hits"]["value"] == 0
    assert list(second) == ["depth"]
    carry_out(etcd, DeleteMetric(name="hits", at=3.0))
    assert events(etcd)[2:] == [{"hits": None}]
    assert list(stored(etcd).views()) == ["depth"]


def test_a_reset_is_one_event_that_names_all(etcd: Etcd) -> None:
    commands = [RegisterMetric(name=f"m{each}", type="gauge", at=1.0) for each in range(MAX_METRICS)]
    assert set(kinds(carry_out(etcd, *commands))) == {None}
    batch = draft([ResetMetrics(at=2.0)], seen(etcd))
    assert len(batch.then) == 3
    assert send(etcd, batch).succeeded
    assert len(stored(etcd)) == 0
    assert events(etcd)[-1] == {f"m{each}": None for each in range(MAX_METRICS)}


def test_a_reset_of_nothing_is_no_event(etcd: Etcd) -> None:
    assert carry_out(etcd, ResetMetrics(at=2.0)) == [None]
    assert events(etcd) == []
    assert draft([ResetMetrics(at=2.0)], seen(etcd)).then == (), "the revision is none of ours"


def test_a_reset_and_what_defines_the_same_name_do_not_share_a_transaction(etcd: Etcd) -> None:
    carry_out(etcd, DEPTH)
    reset, gone = ResetMetrics(at=2.0), DeleteMetric(name="hits", at=2.0)
    cases: list[tuple[list[MetricCommand], int]] = [
        ([HITS, HIT], 1),
        ([HITS, gone], 1),
        ([HITS, DEPTH, reset], 2),
        ([reset, HITS], 1),
        ([HITS, RegisterMetric(name="other", type="gauge", at=1.0)], 2),
    ]
    for asked, taken in cases:
        assert len(draft(asked, seen(etcd)).answers) == taken
    carry_out(etcd, HITS)
    assert len(draft([HIT, gone, HITS], seen(etcd)).answers) == 2
    carry_out(etcd, HIT, gone, HITS, HIT, reset, HITS, HIT, HIT)
    assert stored(etcd).view("hits").value == 2


def test_the_limit_of_metrics_and_of_names_holds(etcd: Etcd) -> None:
    carry_out(
        etcd, *[RegisterMetric(name=f"m{each}", type="gauge", at=1.0) for each in range(MAX_METRICS - 1)]
    )
    took = RegisterMetric(name="took", type="histogram", at=1.0)
    answers = carry_out(etcd, took, RegisterMetric(name="took_sum", type="gauge", at=1.0), HITS, took)
    assert kinds(answers) == [None, Invalid, Conflict, Conflict]


def test_what_is_refused_says_why(etcd: Etcd) -> None:
    carry_out(etcd, HITS)
    answers = carry_out(
        etcd,
        HITS,
        UpdateMetric(name="none", at=1.0),
        DeleteMetric(name="none", at=1.0),
        UpdateMetric(name="hits", value=1.0, at=1.0),
        HIT,
    )
    assert kinds(answers) == [Conflict, NotFound, NotFound, Invalid, None]


def test_a_refusal_is_not_given_from_an_old_sight(etcd: Etcd) -> None:
    """A metric that another node has registered is not unknown here."""
    old = seen(etcd)
    carry_out(etcd, HITS)
    batch = draft([HIT], old)
    assert kinds(list(batch.answers)) == [NotFound]
    outrun = settle(LAYOUT, batch, send(etcd, batch))
    assert isinstance(outrun, Outrun)
    again = draft([HIT], outrun.seen)
    assert again.answers == (None,)
    assert send(etcd, again).succeeded


def test_nor_is_an_existing_name_refused_that_is_gone(etcd: Etcd) -> None:
    carry_out(etcd, HITS)
    old = seen(etcd)
    carry_out(etcd, DeleteMetric(name="hits", at=1.0))
    batch = draft([HITS], old)
    assert kinds(list(batch.answers)) == [Conflict]
    outrun = settle(LAYOUT, batch, send(etcd, batch))
    assert isinstance(outrun, Outrun)
    assert draft([HITS], outrun.seen).answers == (None,)


def test_of_two_increments_from_the_same_sight_none_is_lost(etcd: Etcd) -> None:
    carry_out(etcd, HITS, DEPTH)
    mine, theirs = (draft([HIT], seen(etcd)) for _ in range(2))
    assert send(etcd, mine).succeeded
    outrun = settle(LAYOUT, theirs, send(etcd, theirs))
    assert isinstance(outrun, Outrun)
    assert outrun.seen.metrics.view("hits").value == 1
    assert "depth" in outrun.seen.metrics
    assert send(etcd, draft([HIT], outrun.seen)).succeeded
    assert stored(etcd).view("hits").value == 2


def test_a_value_of_a_metric_that_was_deleted_meanwhile_is_refused(etcd: Etcd) -> None:
    carry_out(etcd, HITS)
    batch = draft([HIT], seen(etcd))
    carry_out(etcd, ResetMetrics(at=1.0))
    outrun = settle(LAYOUT, batch, send(etcd, batch))
    assert isinstance(outrun, Outrun)
    assert kinds(list(draft([HIT], outrun.seen).answers)) == [NotFound]


def test_of_two_registrations_of_one_name_one_is_a_conflict(etcd: Etcd) -> None:
    mine, theirs = (draft([HITS, DEPTH], seen(etcd)) for _ in range(2))
    assert send(etcd, mine).succeeded
    outrun = settle(LAYOUT, theirs, send(etcd, theirs))
    assert isinstance(outrun, Outrun)
    assert kinds(list(draft([HITS, DEPTH], outrun.seen).answers)) == [Conflict, Conflict]
    assert len(events(etcd)) == 2


def test_values_do_not_hang_on_what_others_define(etcd: Etcd) -> None:
    carry_out(etcd, HITS)
    batch = draft([HIT], seen(etcd))
    carry_out(etcd, DEPTH)
    assert send(etcd, batch).succeeded


def test_a_metric_that_cannot_be_read_is_unknown_and_can_be_registered_over(etcd: Etcd) -> None:
    etcd.put(LAYOUT.metric("hits"), b"spoilt")
    assert kinds(carry_out(etcd, HIT, HITS, HIT)) == [NotFound, None, None]
    # The same when it is found so on the way.
    batch = draft([HIT], seen(etcd))
    etcd.put(LAYOUT.metric("hits"), b"spoilt")
    outrun = settle(LAYOUT, batch, send(etcd, batch))
    assert isinstance(outrun, Outrun)
    again = draft([HIT], outrun.seen)
    assert kinds(list(again.answers)) == [NotFound] or send(etcd, again).succeeded


def test_many_commands_stay_within_what_etcd_takes(etcd: Etcd) -> None:
    commands = [RegisterMetric(name=f"m{each}", type="gauge", at=1.0) for each in range(300)]
    batch = draft(list(commands), seen(etcd))
    assert 40 <= len(batch.answers) <= MAX_OPS // 2
    carry_out(etcd, *commands)
    values = [UpdateMetric(name=f"m{each}", value=1.0, at=1.0) for each in range(300)]
    batch = draft(list(values), seen(etcd))
    assert 90 <= len(batch.answers) <= MAX_OPS
    # One metric may be written as often as one likes.
    assert len(draft([values[0]] * 1000, seen(etcd)).answers) == 1000


def test_the_largest_metrics_stay_within_a_request(etcd: Etcd) -> None:
    largest = [
        RegisterMetric(
            name=f"m{each}" + "x" * 190,
            type="histogram",
            help="\x01" * 4096,
            labels={f"l{label}": "\x01" * 1024 for label in range(16)},
            buckets=tuple(bound + 1 / 3 for bound in range(100)),
            at=1.0,
        )
        for each in range(20)
    ]
    batch = draft(list(largest), seen(etcd))
    size = sum(len(op.value) + len(op.key) for op in batch.then if isinstance(op, Put))
    assert len(batch.answers) >= 2
    assert size < MAX_REQUEST_BYTES * 0.9
    assert set(kinds(carry_out(etcd, *largest))) == {None}


def test_nothing_is_defined_before_the_log_has_begun() -> None:
    with pytest.raises(ValueError, match="begin"):
        draft([HITS], SeenMetrics())


def test_the_log_is_trimmed_by_metrics_too(etcd: Etcd) -> None:
    on = seen(etcd)
    for each in range(5):
        register = RegisterMetric(name=f"m{each}", type="gauge", at=1.0)
        batch = compose(LAYOUT, [register], on, lease="7", now_wall=1e9, max_events=2)
        settled = settle(LAYOUT, batch, send(etcd, batch))
        on = settled.seen
    assert [list(event) for event in events(etcd)] == [["m3"], ["m4"]]
    assert any(isinstance(op, Delete) for op in batch.then)


names = st.sampled_from(["a", "b", "took", "took_sum"])
commands = st.one_of(
    st.builds(
        RegisterMetric,
        name=names,
        type=st.sampled_from(["counter", "gauge", "histogram"]),
        at=st.just(1.0),
    ),
    st.builds(
        UpdateMetric,
        name=names,
        value=st.none() | st.integers(0, 9).map(float),
        delta=st.none() | st.integers(0, 9).map(float),
        at=st.integers(2, 9).map(float),
    ),
    st.builds(DeleteMetric, name=names, at=st.just(1.0)),
    st.builds(ResetMetrics, at=st.just(1.0)),
)


@given(st.lists(commands, max_size=40))
def test_batches_answer_and_store_as_the_commands_one_by_one_do(asked: list[MetricCommand]) -> None:
    etcd = fresh()
    one_by_one = MetricSet()
    expected: list[RequestRefused | None] = []
    defined_in_order: list[Any] = []
    for command in asked:
        try:
            applied = one_by_one.apply(command)
        except RequestRefused as refused:
            expected.append(refused)
        else:
            expected.append(None)
            defined_in_order += [applied.defined] if applied.defined else []
    answers = carry_out(etcd, *asked)
    assert [(type(each), str(each)) for each in answers] == [(type(each), str(each)) for each in expected]
    assert [list(event) for event in events(etcd)] == [list(defined) for defined in defined_in_order]
    views = stored(etcd).views()
    assert views == one_by_one.views()


@given(st.lists(commands, max_size=25), st.lists(commands, max_size=25), st.data())
def test_what_a_batch_leaves_behind_is_what_is_there(
    mine: list[MetricCommand], theirs: list[MetricCommand], data: st.DataObject
) -> None:
    """Two nodes that go on from their own answers, without any watch between them."""
    etcd = fresh()
    on = {"mine": seen(etcd), "theirs": seen(etcd)}
    left = {"mine": mine, "theirs": theirs}
    tries = 0
    while left["mine"] or left["theirs"]:
        who = data.draw(st.sampled_from([who for who in left if left[who]]))
        batch = draft(left[who], on[who])
        settled = settle(LAYOUT, batch, send(etcd, batch))
        on[who] = settled.seen
        if isinstance(settled, Settled):
            left[who] = left[who][len(batch.answers) :]
            for name in batch.written:
                assert settled.seen.revisions.get(name) == seen(etcd).revisions.get(name)
        tries += 1
        assert tries <= 4 * (len(mine) + len(theirs))


KEY = WriteKey("k", "r")


def keyed(command: MetricCommand, on: SeenMetrics, key: WriteKey = KEY) -> MetricTransaction:
    return compose(LAYOUT, [command], on, keys=[key], lease="7", now_wall=1e9, max_events=10_000)


def test_a_key_and_what_it_names_are_written_together_or_not_at_all(etcd: Etcd) -> None:
    carry_out(etcd, HITS)
    before = seen(etcd)
    lost = keyed(HIT, before)
    assert isinstance(settle(LAYOUT, lost, send(etcd, lost)), Settled)  # its answer is lost
    repeated = keyed(HIT, before)  # by a node that has not seen it
    outrun = settle(LAYOUT, repeated, send(etcd, repeated))
    assert isinstance(outrun, Outrun)
    again = keyed(HIT, outrun.seen)
    assert again.answers == (None,)
    assert not again.then
    assert stored(etcd).view("hits").value == 1
    assert keyed(HIT, seen(etcd)).answers == (None,), "a node that reads it finds the key"
    (refused,) = keyed(HIT, seen(etcd), WriteKey("k", "other")).answers
    assert isinstance(refused, KeyReused)


def test_a_refusal_is_kept_with_its_key(etcd: Etcd) -> None:
    first = keyed(HIT, seen(etcd))
    assert kinds(list(first.answers)) == [NotFound]
    assert send(etcd, first).succeeded
    carry_out(etcd, HITS)
    again = keyed(HIT, seen(etcd))
    assert kinds(list(again.answers)) == [NotFound]
    assert stored(etcd).view("hits").value == 0


def test_the_same_key_twice_in_one_batch_is_done_once(etcd: Etcd) -> None:
    carry_out(etcd, HITS)
    batch = compose(
        LAYOUT, [HIT, HIT], seen(etcd), keys=[KEY, KEY], lease="7", now_wall=1e9, max_events=10_000
    )
    assert len(batch.answers) == 1
    settled = settle(LAYOUT, batch, send(etcd, batch))
    assert keyed(HIT, settled.seen).answers == (None,)
    assert not keyed(HIT, settled.seen).then


def test_a_definition_with_a_key_that_another_node_has_done_is_not_done_again(etcd: Etcd) -> None:
    before = seen(etcd)
    assert send(etcd, keyed(HITS, before)).succeeded
    late = keyed(HITS, before)
    outrun = settle(LAYOUT, late, send(etcd, late))
    assert isinstance(outrun, Outrun)
    assert keyed(HITS, outrun.seen).answers == (None,), "not a conflict with itself"


def test_of_too_many_keys_the_oldest_are_deleted(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_transactions, "MAX_KEPT", 3)
    carry_out(etcd, HITS)
    for serial in range(8):
        assert send(etcd, keyed(HIT, seen(etcd), WriteKey(f"k{serial}", "r"))).succeeded
    assert list(seen(etcd).answers) == ["k5", "k6", "k7"]
    assert stored(etcd).view("hits").value == 8


def test_a_refusal_does_not_wait_for_a_revision_at_which_only_others_wrote(etcd: Etcd) -> None:
    on = seen(etcd)
    etcd.revision += 5
    refused = draft([HIT], on)
    settled = settle(LAYOUT, refused, send(etcd, refused))
    assert isinstance(settled, Settled)
    assert settled.seen.revision == on.revision


def expire(etcd: Etcd) -> ExpireMetric:
    (metric,) = stored(etcd).with_ttl()
    return ExpireMetric(name=metric.name, created_at=metric.created_at, writes=metric.writes, at=9.0)


def test_a_metric_that_another_node_writes_to_is_not_expired(etcd: Etcd) -> None:
    carry_out(etcd, RegisterMetric(name="pushed", type="gauge", ttl=5.0, at=1.0))
    late = draft([expire(etcd)], seen(etcd))
    assert late.answers == (None,)
    carry_out(etcd, UpdateMetric(name="pushed", value=1.0, at=2.0))
    outrun = settle(LAYOUT, late, send(etcd, late))
    assert isinstance(outrun, Outrun)
    again = draft([ExpireMetric(name="pushed", created_at=1.0, writes=0, at=9.0)], outrun.seen)
    assert kinds(list(again.answers)) == [Conflict]
    assert "pushed" in stored(etcd)


def test_of_two_nodes_that_expire_a_metric_one_does(etcd: Etcd) -> None:
    carry_out(etcd, RegisterMetric(name="pushed", type="gauge", ttl=5.0, at=1.0))
    first, second = draft([expire(etcd)], seen(etcd)), draft([expire(etcd)], seen(etcd))
    assert isinstance(settle(LAYOUT, first, send(etcd, first)), Settled)
    assert isinstance(settle(LAYOUT, second, send(etcd, second)), Outrun)
    assert events(etcd)[1:] == [{"pushed": None}]
    assert "pushed" not in stored(etcd)
