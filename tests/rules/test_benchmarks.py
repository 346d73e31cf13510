"""The benchmark's own arithmetic: medians, ratios, verdicts, tables, the plot, and what it reads of /metrics."""

from __future__ import annotations

import itertools
from math import inf, isnan
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plan, plot, report, scrape, table, targets
from benchmarks.results import Case, Mode, Sample, changes, figure, ratio
from benchmarks.servers import SERVERS
from benchmarks.targets import TargetResult

OURS, C = Case("heliosd", 1000), Case("c", 1000)
RESULTS = {OURS: [Sample(paced_us=6.0, arrived=1.0)], C: [Sample(paced_us=5.0, arrived=1.0)]}


def test_each_figure_has_its_own_median() -> None:
    results = {C: [Sample(paced_us=float(n), accepts=-float(n * n)) for n in (3, 1, 2)]}
    assert figure(results, "paced_us", C) == 2.0
    assert figure(results, "accepts", C) == -4.0
    assert isnan(figure(results, "flood_us", C))


def test_a_round_that_did_not_measure_a_figure_has_no_say_in_its_median() -> None:
    results = {C: [Sample(paced_us=4.0), Sample(), Sample(paced_us=6.0)]}
    assert figure(results, "paced_us", C) == 5.0


def test_a_ratio_is_of_what_one_round_measured() -> None:
    # In the second and third round the machine was slower, each time for both.
    results = {
        OURS: [Sample(paced_us=6.0), Sample(paced_us=24.0), Sample(paced_us=12.0)],
        C: [Sample(paced_us=5.0), Sample(paced_us=20.0), Sample(paced_us=40.0)],
    }
    assert ratio(results, "paced_us", OURS, C) == 1.2


def test_a_change_is_within_one_sample() -> None:
    results = {OURS: [Sample(flood_us=2.0, blocked_us=3.0), Sample(flood_us=4.0, blocked_us=6.0)]}
    assert changes(results, OURS, "blocked_us", "flood_us") == [1.5, 1.5]


def test_a_ratio_to_what_was_not_measured_is_none() -> None:
    assert ratio(RESULTS, "paced_us", OURS, C) == 1.2
    assert isnan(ratio(RESULTS, "flood_us", OURS, C))
    assert isnan(ratio(RESULTS, "paced_us", OURS, Case("go", 1000)))


def test_a_target_holds_at_its_limit_is_missed_beyond_it_and_does_not_hold_unmeasured() -> None:
    assert str(TargetResult("x", [1.25], 1.25)) == "target: x ≤ 1.25: 1.250, holds"
    assert str(TargetResult("x", [1.251], 1.25)) == "target: x ≤ 1.25: 1.251, MISSED"
    assert str(TargetResult("x", [0.79], 0.8, at_least=True)) == "target: x ≥ 0.8: 0.790, MISSED"
    assert str(TargetResult("x", [], 0.8, at_least=True)) == "target: x ≥ 0.8: not measured"
    assert not TargetResult("x", [], 1.0).held


def test_a_target_shows_how_far_its_rounds_lie_apart() -> None:
    verdict = TargetResult("x", [1.1, 0.904, 1.0], 1.0)
    assert (verdict.measured, verdict.spread, verdict.held) == (1.0, "0.90–1.10", True)
    assert TargetResult("x", [1.0], 1.0).spread == ""


def test_each_engine_has_targets_of_its_own() -> None:
    direct = Case("heliosd-write", 1000)
    of = {result.what: result for result in targets.judged({**RESULTS, direct: RESULTS[OURS]})}
    by_ring = of["CPU a delivery, paced, 1,000 clients, × c"]
    assert (by_ring.measured, by_ring.limit, by_ring.held) == (1.2, 0.95, False)
    by_write = of["CPU a delivery by os.write, paced, 1,000 clients, × c"]
    assert (by_write.measured, by_write.limit, by_write.held) == (1.2, 1.35, True)


def test_every_target_is_judged_by_what_a_whole_run_measures() -> None:
    everything = Sample(**dict.fromkeys(Sample.__dataclass_fields__, 1.0))
    results = {case: [everything] for job in plan.whole(SERVERS) for case in job.cases}
    assert not [result.what for result in targets.judged(results) if isnan(result.measured)]


def test_who_drops_messages_is_named() -> None:
    (doubt,) = targets.too_few({C: [Sample(arrived=0.94)], OURS: [Sample(arrived=0.96)]})
    assert doubt.startswith("c delivered 94%")


def test_only_who_speaks_tls_is_measured_over_it() -> None:
    (job,) = plan.chosen(SERVERS, [10], frozenset({Mode.TLS}))
    ours = ["heliosd", "heliosd-write", "heliosd-uring"]
    assert [case.server for case in job.cases] == [*ours, "go-prepared", "go", "centrifugo"]


def test_modes_that_can_share_their_clients_share_one_start() -> None:
    modes = frozenset({Mode.PACED, Mode.LOCKSTEP, Mode.BURSTS, Mode.BLOCKED})
    together, alone = plan.chosen(SERVERS[:1], [10], modes)
    assert together.cases == (Case("heliosd", 10),)
    assert together.modes == modes - {Mode.BLOCKED}
    assert alone.cases == (Case("heliosd", 10, Mode.BLOCKED),)
    assert alone.modes == {Mode.LOCKSTEP, Mode.BLOCKED}


def test_a_table_leaves_out_what_nobody_measured_and_ratios_to_oneself() -> None:
    (only,) = table.tables(RESULTS)
    assert only.title == "1,000 clients"
    assert only.head == ("server", "paced µs", "× C", "heliosd is ×", "arrived")
    assert only.rows == (("heliosd", "6.00", "1.20", "–", "100%"), ("c", "5.00", "–", "1.20", "100%"))


def test_a_plain_table_has_its_columns_under_each_other() -> None:
    _, *lines = table.plain(table.tables(RESULTS)[0]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_a_markdown_table_has_as_many_cells_in_each_row() -> None:
    lines = table.markdown(table.tables(RESULTS)[0]).splitlines()
    assert len({line.count("|") for line in lines}) == 1


def test_a_plot_is_well_formed_and_names_every_server_in_every_panel() -> None:
    lines = [plot.Series("c", "C & co", ((100, 2.0), (5000, 4.0))), plot.Series("go", "Go", ((100, 9.0),))]
    root = ET.fromstring(plot.plotted("µs", [("paced", lines), ("flood", lines)]))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("C & co") == texts.count("Go") == 2
    assert "µs, flood" in texts


def test_a_plot_has_the_numbers_of_ordinary_clients_only() -> None:
    results = {Case("go", 5000): [Sample(paced_us=2.0)], **RESULTS, Case("go", 1000): [Sample(paced_us=1.0)]}
    results[Case("go", 1000, Mode.TLS)] = [Sample(paced_us=9.0)]
    assert report.series(results, "paced_us")[0].points == ((1000, 1.0), (5000, 2.0))


@given(low=st.floats(0.01, 500), factor=st.floats(1.0, 1000.0))
def test_ticks_enclose_what_they_are_for(low: float, factor: float) -> None:
    found = plot.ticks(low, low * factor)
    assert found[0] <= low * (1 + 1e-9)
    assert found[-1] >= low * factor * (1 - 1e-9)
    assert found == sorted(found)


@given(st.lists(st.floats(0, 400), min_size=1, max_size=8))
def test_labels_never_overlap_and_keep_their_order(wanted: list[float]) -> None:
    places = plot.spread(wanted, 16.0)
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    for above, below in itertools.pairwise(order):
        assert places[below] - places[above] >= 16.0 - 1e-6


def test_labels_that_have_room_stay_where_they_are() -> None:
    assert plot.spread([100.0, 10.0, 50.0], 16.0) == [100.0, 10.0, 50.0]


METRICS = """\
# TYPE heliosd_loop_lag_seconds histogram
heliosd_loop_lag_seconds_bucket{le="0.001"} 90.0
heliosd_loop_lag_seconds_bucket{le="0.002"} 100.0
heliosd_loop_lag_seconds_bucket{le="+Inf"} 100.0
heliosd_ws_queue_depth 7.0
"""


def test_a_histogram_and_a_gauge_are_read_from_metrics() -> None:
    assert scrape.buckets(METRICS, scrape.LAG) == {0.001: 90.0, 0.002: 100.0, inf: 100.0}
    assert scrape.value(METRICS, scrape.QUEUED) == 7.0
    assert isnan(scrape.value(METRICS, "heliosd_no_such_thing"))


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.45, 0.0005), (0.9, 0.001), (0.95, 0.0015)],
)
def test_a_quantile_lies_evenly_in_its_bucket(share: float, expected: float) -> None:
    assert scrape.quantile({}, scrape.buckets(METRICS, scrape.LAG), share) == pytest.approx(expected)


def test_a_quantile_is_of_what_came_between_two_looks() -> None:
    before = {0.001: 90.0, 0.002: 100.0, inf: 100.0}
    after = {0.001: 90.0, 0.002: 110.0, inf: 111.0}
    assert 0.001 < scrape.quantile(before, after, 0.5) <= 0.002
    assert scrape.quantile(before, after, 0.99) == inf
    assert isnan(scrape.quantile(after, after, 0.5))
