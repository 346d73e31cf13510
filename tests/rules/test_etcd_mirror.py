"""What a node makes of the keys under the prefix: state, and news of what changed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.cluster.etcd import metric_transactions
from heliosd.cluster.etcd.client.responses import WatchBatch
from heliosd.cluster.etcd.event_log import Append, LogItem, SeenHead, begin, compose, read_head
from heliosd.cluster.etcd.members import KnownMember
from heliosd.cluster.etcd.mirror import (
    KnownState,
    Mirror,
    PendingLearner,
    PresentObserver,
    Revoked,
    SeenLearner,
)
from heliosd.cluster.etcd.updates import MirrorUpdate
from heliosd.cluster.metric_commands import DeleteMetric, MetricCommand, RegisterMetric, UpdateMetric
from heliosd.protocol.events import LogReset, MetricValuesChanged, PeerChanged
from heliosd.store.changes import LoggedEvent
from tests.support.etcd_model import CLUSTER, LAYOUT, Etcd

EPOCH = f"{CLUSTER}-{'0' * 12}"
ANNA = KnownMember("a1", "anna", "a:1", learner=False)


def seen(etcd: Etcd) -> SeenHead:
    return read_head([kv for kv in [etcd.kvs.get(LAYOUT.head)] if kv])


def beget(etcd: Etcd, birth: str = "0" * 12, term: int = 0) -> None:
    draft = begin(LAYOUT, seen(etcd), cluster_id=etcd.cluster_id, birth=birth, members=(ANNA,), term=term)
    assert etcd.txn(draft.compares, draft.then, draft.otherwise).succeeded


def log_events(etcd: Etcd, *, times: int = 1, max_events: int = 100) -> None:
    """Log some events."""
    for _ in range(times):
        change = PeerChanged(event_type="healthy", peer_id="a1", peer_address="a:1")
        append = Append(items=(LogItem(f"h{etcd.revision}", change),))
        draft = compose(LAYOUT, append, seen(etcd), lease="7", now_wall=1e9, max_events=max_events)
        assert etcd.txn(draft.compares, draft.then, draft.otherwise).succeeded


def write(etcd: Etcd, *commands: MetricCommand) -> None:
    """Carry out metric commands, each in a transaction of its own."""
    mirror = Mirror(LAYOUT, 100)
    for command in commands:
        mirror.load(etcd.read())
        batch = metric_transactions.compose(
            LAYOUT, [command], mirror.seen_metrics(), lease="7", now_wall=1e9, max_events=100
        )
        assert batch.answers == (None,)
        assert etcd.txn(batch.compares, batch.then, batch.otherwise).succeeded


def loaded(etcd: Etcd, max_events: int = 100, before: KnownState | None = None) -> Mirror:
    mirror = Mirror(LAYOUT, max_events, before)
    mirror.load(etcd.read())
    return mirror


def follow(mirror: Mirror, etcd: Etcd) -> MirrorUpdate:
    return mirror.apply(etcd.watch(mirror.revision + 1))


def reread(mirror: Mirror, etcd: Etcd) -> MirrorUpdate:
    return mirror.load(etcd.read())


Way = Callable[[Mirror, Etcd], MirrorUpdate]
either_way = pytest.mark.parametrize("way", [follow, reread])


def numbers(news: MirrorUpdate) -> list[int]:
    assert all(isinstance(item, LoggedEvent) for item in news.emitted)
    return [item.seq for item in news.emitted if isinstance(item, LoggedEvent)]


@pytest.fixture
def etcd() -> Etcd:
    etcd = Etcd()
    beget(etcd)
    return etcd


HITS = RegisterMetric(name="hits", type="counter", at=1.0)
HIT = UpdateMetric(name="hits", at=2.0)

# The log


def test_the_first_reading_tells_the_numbering_and_what_is_kept(etcd: Etcd) -> None:
    log_events(etcd, times=3)
    (item,) = Mirror(LAYOUT, 2).load(etcd.read()).emitted
    assert isinstance(item, LogReset)
    assert (item.epoch, item.seq, item.lost) == (EPOCH, 3, None)
    assert [event.seq for event in item.kept] == [2, 3]
    event = item.kept[-1]
    assert event == LoggedEvent(3, 1e9, "peer_change", etcd.value(LAYOUT.event(3)))


def test_events_with_a_hole_before_them_are_not_kept(etcd: Etcd) -> None:
    log_events(etcd, times=4)
    etcd.delete(LAYOUT.event(2))
    (item,) = Mirror(LAYOUT, 100).load(etcd.read()).emitted
    assert isinstance(item, LogReset)
    assert [event.seq for event in item.kept] == [3, 4]


def test_the_number_stands_when_every_event_has_expired(etcd: Etcd) -> None:
    log_events(etcd, times=2)
    etcd.delete(LAYOUT.folder("events"), LAYOUT.folder_end("events"))
    (item,) = Mirror(LAYOUT, 100).load(etcd.read()).emitted
    assert item == LogReset(epoch=EPOCH, seq=2)


@either_way
def test_each_event_is_published_once_and_in_order(etcd: Etcd, way: Way) -> None:
    mirror = loaded(etcd)
    log_events(etcd, times=3)
    news = way(mirror, etcd)
    assert numbers(news) == [1, 2, 3]
    assert "head" in news.changed
    assert way(mirror, etcd) == MirrorUpdate()


def test_what_the_watch_delivers_twice_counts_once(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    start = mirror.revision + 1
    log_events(etcd, times=3)
    batch = etcd.watch(start)
    twice = WatchBatch(batch.header, batch.events + batch.events, False, False, 0, "")
    assert numbers(mirror.apply(twice)) == [1, 2, 3]
    assert mirror.apply(batch) == MirrorUpdate()
    assert mirror.apply(etcd.watch(1)) == MirrorUpdate()


def test_a_deleted_key_does_not_come_back_with_an_old_change(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    write(etcd, HITS, DeleteMetric(name="hits", at=2.0))
    batch = etcd.watch(mirror.revision + 1)
    mirror.apply(batch)
    mirror.apply(WatchBatch(batch.header, batch.events[:1], False, False, 0, ""))
    assert "hits" not in mirror.metrics


def test_signs_of_progress_move_nothing(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    revision = mirror.revision
    log_events(etcd)
    assert mirror.apply(WatchBatch(etcd.header, (), False, False, 0, "")) == MirrorUpdate()
    assert mirror.revision == revision
    assert numbers(follow(mirror, etcd)) == [1]


def test_a_hole_is_named_and_what_lies_beyond_is_published(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    log_events(etcd, times=5, max_events=2)
    lost, *rest = reread(mirror, etcd).emitted
    assert lost == LogReset(epoch=EPOCH, seq=3, lost=(1, 3))
    assert [item.seq for item in rest if isinstance(item, LoggedEvent)] == [4, 5]
    log_events(etcd)
    assert numbers(follow(mirror, etcd)) == [6]


def test_an_event_that_cannot_be_read_is_a_hole(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    log_events(etcd, times=3)
    etcd.put(LAYOUT.event(2), b"not ours")
    etcd.put(LAYOUT.event(3), etcd.value(LAYOUT.event(1)))
    news = reread(mirror, etcd)
    assert [item for item in news.emitted if isinstance(item, LogReset)] == [
        LogReset(epoch=EPOCH, seq=3, lost=(2, 3))
    ]
    assert news.unreadable == (LAYOUT.event(2),)


@either_way
def test_events_whose_leases_run_out_are_not_published(etcd: Etcd, way: Way) -> None:
    log_events(etcd, times=3)
    mirror = loaded(etcd)
    etcd.delete(LAYOUT.event(1))
    etcd.delete(LAYOUT.folder("dedupe"), LAYOUT.folder_end("dedupe"))
    assert way(mirror, etcd).emitted == ()
    log_events(etcd)
    assert numbers(way(mirror, etcd)) == [4]


# Another numbering


@either_way
def test_nothing_is_published_before_a_log_begins(way: Way) -> None:
    etcd = Etcd()
    mirror = loaded(etcd)
    assert mirror.needs_birth
    assert mirror.head == SeenHead()
    beget(etcd)
    assert way(mirror, etcd).emitted == (LogReset(epoch=EPOCH, seq=0),)
    assert not mirror.needs_birth


@either_way
def test_a_log_that_begins_anew_is_another_numbering(etcd: Etcd, way: Way) -> None:
    log_events(etcd, times=2)
    mirror = loaded(etcd)
    beget(etcd, "1" * 12)
    assert way(mirror, etcd).emitted == (LogReset(epoch=f"{CLUSTER}-{'1' * 12}", seq=0),)


@either_way
def test_a_head_that_was_deleted_or_spoilt_has_to_be_born_again(etcd: Etcd, way: Way) -> None:
    mirror = loaded(etcd)
    etcd.put(LAYOUT.head, b"spoilt")
    assert way(mirror, etcd).emitted == ()
    assert mirror.needs_birth
    etcd.delete(LAYOUT.head)
    assert way(mirror, etcd).emitted == ()
    assert mirror.needs_birth
    beget(etcd, "1" * 12)
    assert len(way(mirror, etcd).emitted) == 1


def test_a_cluster_with_another_id_needs_a_log_of_its_own(etcd: Etcd) -> None:
    log_events(etcd, times=2)
    mirror = loaded(etcd)
    restored = etcd.backup()
    restored.cluster_id = "beef"
    assert mirror.apply(restored.watch(restored.revision + 1)) == MirrorUpdate()
    assert reread(mirror, restored).emitted == ()
    assert mirror.needs_birth
    beget(restored, "1" * 12)
    assert follow(mirror, restored).emitted == (LogReset(epoch=f"beef-{'1' * 12}", seq=0),)


def set_back(etcd: Etcd) -> tuple[Mirror, Etcd]:
    """A mirror that heard of two events more than there are in the restored cluster."""
    log_events(etcd)
    backup = etcd.backup()
    log_events(etcd, times=2)
    return loaded(etcd), backup


def test_a_cluster_that_was_set_back_does_not_use_numbers_twice(etcd: Etcd) -> None:
    mirror, restored = set_back(etcd)
    assert reread(mirror, restored).emitted == ()
    assert mirror.needs_birth
    # Somebody who knows nothing of it goes on with the old numbers: they are not published.
    log_events(restored)
    assert follow(mirror, restored).emitted == ()
    beget(restored, "1" * 12)
    assert follow(mirror, restored).emitted == (LogReset(epoch=f"{CLUSTER}-{'1' * 12}", seq=0),)
    assert not mirror.needs_birth
    log_events(restored)
    assert numbers(follow(mirror, restored)) == [1]


def test_numbers_that_came_twice_already_are_not_published(etcd: Etcd) -> None:
    mirror, restored = set_back(etcd)
    for _ in range(5):
        etcd.put(LAYOUT.observer, b"n")
    follow(mirror, etcd)
    log_events(restored, times=4)
    assert restored.revision < mirror.revision
    assert reread(mirror, restored).emitted == ()
    assert mirror.needs_birth


def test_a_start_knows_what_was_published_before_it(etcd: Etcd) -> None:
    mirror, restored = set_back(etcd)
    assert loaded(restored, before=mirror.known).needs_birth
    assert not loaded(etcd, before=mirror.known).needs_birth
    # Even when as much was written since.
    for _ in range(5):
        restored.put(LAYOUT.observer, b"n")
    assert loaded(restored, before=mirror.known).needs_birth


def test_a_cluster_whose_terms_began_anew_was_rebuilt(etcd: Etcd) -> None:
    beget(etcd, "1" * 12, term=7)
    etcd.raft_term = 7
    mirror = loaded(etcd)
    assert not mirror.needs_birth
    etcd.raft_term = 2
    assert loaded(etcd).needs_birth


def test_a_node_that_finds_the_log_begun_anew_by_another_goes_on_with_it(etcd: Etcd) -> None:
    mirror, restored = set_back(etcd)
    beget(restored, "1" * 12)
    log_events(restored)
    (item,) = reread(mirror, restored).emitted
    assert isinstance(item, LogReset)
    assert (item.epoch, [event.seq for event in item.kept]) == (f"{CLUSTER}-{'1' * 12}", [1])
    assert not mirror.needs_birth


def test_a_batch_that_begins_another_log_shows_that_all_has_to_be_read_again(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    start = mirror.revision + 1
    assert not Mirror(LAYOUT, 100).is_outdated_by(etcd.watch(1))
    log_events(etcd)
    write(etcd, HITS)
    assert not mirror.is_outdated_by(etcd.watch(start))
    beget(etcd, "1" * 12)
    assert mirror.is_outdated_by(etcd.watch(start))
    etcd.put(LAYOUT.head, b"spoilt")
    assert not mirror.is_outdated_by(etcd.watch(etcd.revision))


# The metrics


def moved(news: MirrorUpdate) -> list[dict[str, float]]:
    return [
        {name: view.value for name, view in item.metrics.items()}
        for item in news.emitted
        if isinstance(item, MetricValuesChanged)
    ]


@either_way
def test_a_new_metric_is_an_event_and_no_value(etcd: Etcd, way: Way) -> None:
    mirror = loaded(etcd)
    write(etcd, HITS)
    news = way(mirror, etcd)
    assert numbers(news) == [1]
    assert mirror.metrics.view("hits").value == 0


@either_way
def test_a_value_is_published_after_the_event_of_its_metric(etcd: Etcd, way: Way) -> None:
    mirror = loaded(etcd)
    write(etcd, HITS, HIT)
    news = way(mirror, etcd)
    assert [type(item) for item in news.emitted] == [LoggedEvent, MetricValuesChanged]
    assert moved(news) == [{"hits": 1.0}]


@either_way
def test_only_values_that_changed_are_published(etcd: Etcd, way: Way) -> None:
    write(etcd, HITS, RegisterMetric(name="other", type="gauge", at=1.0), HIT)
    mirror = loaded(etcd)
    write(etcd, HIT)
    assert moved(way(mirror, etcd)) == [{"hits": 2.0}]
    assert way(mirror, etcd) == MirrorUpdate()


def test_values_of_another_cluster_or_of_the_past_are_no_changes(etcd: Etcd) -> None:
    write(etcd, HITS, HIT)
    mirror, restored = set_back(etcd)
    assert reread(mirror, restored).emitted == ()
    restored.cluster_id = "beef"
    write(restored, HIT)
    assert reread(mirror, restored).emitted == ()
    assert mirror.metrics.view("hits").value == 2


@either_way
def test_a_metric_registered_anew_is_the_newest_and_starts_from_nothing(etcd: Etcd, way: Way) -> None:
    write(etcd, HITS, RegisterMetric(name="other", type="gauge", at=1.0), HIT)
    mirror = loaded(etcd)
    write(etcd, DeleteMetric(name="hits", at=3.0), HITS)
    news = way(mirror, etcd)
    assert numbers(news) == [3, 4]
    assert list(mirror.metrics.views()) == ["other", "hits"]
    assert loaded(etcd).metrics.views() == mirror.metrics.views()


def test_the_metrics_are_one_object_for_good(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    metrics = mirror.metrics
    write(etcd, HITS)
    reread(mirror, etcd)
    assert mirror.metrics is metrics
    assert "hits" in metrics


def test_what_commands_are_composed_on_does_not_change(etcd: Etcd) -> None:
    write(etcd, HITS)
    mirror = loaded(etcd)
    before = mirror.seen_metrics()
    write(etcd, HIT)
    follow(mirror, etcd)
    assert before.metrics.view("hits").value == 0
    assert before.revisions != mirror.seen_metrics().revisions


@either_way
def test_a_metric_that_cannot_be_read_is_none(etcd: Etcd, way: Way) -> None:
    write(etcd, HITS)
    mirror = loaded(etcd)
    etcd.put(LAYOUT.metric("hits"), b"{}")
    news = way(mirror, etcd)
    assert news.unreadable == (LAYOUT.metric("hits"),)
    assert "hits" not in mirror.metrics


NOT_UTF8 = b'{"type":"\xff","id":"\xff","address":"\xff","birth":"\xff","key":{"id":"\xff"},"members":"\xff"}'
TOO_DEEP = b'{"type":' + b"[" * 100_000


@either_way
@pytest.mark.parametrize("value", [NOT_UTF8, TOO_DEEP])
def test_bytes_of_any_kind_below_the_prefix_end_nothing(etcd: Etcd, way: Way, value: bytes) -> None:
    write(etcd, HITS)
    log_events(etcd, times=2)
    mirror = loaded(etcd)
    keys = {
        LAYOUT.metric("hits"),
        LAYOUT.event(2),
        LAYOUT.present("n"),
        LAYOUT.learner("a:1"),
        LAYOUT.answer("k"),
    }
    for key in keys | {LAYOUT.revoked("jti")}:
        etcd.put(key, value)
    news = way(mirror, etcd)
    assert keys <= set(news.unreadable)
    assert "hits" not in mirror.metrics
    etcd.put(LAYOUT.members, value)
    etcd.put(LAYOUT.head, value)
    way(mirror, etcd)
    assert mirror.needs_birth


def test_an_event_with_text_that_is_not_utf8_is_passed_on_to_nobody(etcd: Etcd) -> None:
    mirror = loaded(etcd)
    log_events(etcd)
    etcd.put(LAYOUT.event(1), etcd.value(LAYOUT.event(1)).replace(b"a:1", b"a:\xff"))
    assert reread(mirror, etcd).unreadable == (LAYOUT.event(1),)


# Everything else


@either_way
def test_a_revoked_token_is_news_once(etcd: Etcd, way: Way) -> None:
    mirror = loaded(etcd)
    etcd.put(LAYOUT.revoked("a/b"), msgspec.json.encode(Revoked(expires_at=5.0)))
    news = way(mirror, etcd)
    assert news.revoked == {"a/b": 5.0}
    assert news.changed == {"revoked"}
    assert way(mirror, etcd) == MirrorUpdate()
    etcd.delete(LAYOUT.revoked("a/b"))
    assert way(mirror, etcd).revoked == {}
    assert mirror.revoked == {}


def test_the_first_reading_tells_all_revoked_tokens(etcd: Etcd) -> None:
    etcd.put(LAYOUT.revoked("j"), msgspec.json.encode(Revoked(expires_at=5.0)))
    assert Mirror(LAYOUT, 1).load(etcd.read()).revoked == {"j": 5.0}


@either_way
def test_who_is_present_is_known(etcd: Etcd, way: Way) -> None:
    mirror = loaded(etcd)
    observer = PresentObserver(id="n1", version="1", since="2023-01-01T00:00:00Z", url="https://n1/")
    etcd.put(LAYOUT.present("n1"), msgspec.json.encode(observer))
    etcd.put(LAYOUT.observer, b"n1")
    etcd.put(LAYOUT.learner("c:1"), msgspec.json.encode(PendingLearner("c:1")))
    assert way(mirror, etcd).changed == {"observers", "observer", "learners"}
    learners = {"c:1": SeenLearner("c:1", etcd.revision)}
    assert (mirror.observers, mirror.observer, mirror.learners) == ({"n1": observer}, "n1", learners)
    for key in (LAYOUT.present("n1"), LAYOUT.observer, LAYOUT.learner("c:1"), LAYOUT.members):
        etcd.delete(key)
    assert way(mirror, etcd).changed == {"observers", "observer", "learners", "members"}
    assert (mirror.observers, mirror.observer, mirror.learners) == ({}, "", {})
    assert mirror.members.record is None


@either_way
@given(junk=st.binary(max_size=40))
def test_no_value_that_somebody_else_wrote_is_a_fault(junk: bytes, way: Way) -> None:
    etcd = Etcd()
    beget(etcd)
    mirror = loaded(etcd)
    for key in [
        LAYOUT.event(1),
        LAYOUT.dedupe("x"),
        LAYOUT.metric("hits"),
        LAYOUT.present("n1"),
        LAYOUT.observer,
        LAYOUT.learner("c:1"),
        LAYOUT.revoked("j"),
        LAYOUT.members,
        LAYOUT.prefix + b"strange",
        LAYOUT.folder("events") + b"zz",
        LAYOUT.folder("observers") + b"\xff",
    ]:
        etcd.put(key, junk)
    assert way(mirror, etcd).emitted == ()
    assert len(Mirror(LAYOUT, 10).load(etcd.read()).emitted) == 1


@given(st.lists(st.sampled_from(["log", "hit", "define", "delete"]), max_size=12), st.data())
def test_a_reading_publishes_what_the_watch_would_have_published(
    steps: list[str], data: st.DataObject
) -> None:
    """The same events; and of the values, the last ones."""
    etcd = Etcd()
    beget(etcd)
    watching, reading = loaded(etcd), loaded(etcd)
    watched: list[MirrorUpdate] = []
    read: list[MirrorUpdate] = []
    defined = False
    for step in steps:
        match step:
            case "log":
                log_events(etcd)
            case "define" if not defined:
                write(etcd, HITS)
                defined = True
            case "hit" if defined:
                write(etcd, HIT)
            case "delete" if defined:
                write(etcd, DeleteMetric(name="hits", at=1.0))
                defined = False
            case _:
                pass
        watched.append(follow(watching, etcd))
        if data.draw(st.booleans()):
            read.append(reread(reading, etcd))
    read.append(reread(reading, etcd))

    def events(all_news: list[MirrorUpdate]) -> list[object]:
        return [item for news in all_news for item in news.emitted if isinstance(item, LoggedEvent)]

    assert events(read) == events(watched)
    assert reading.metrics.views() == watching.metrics.views()
    assert reading.seen_metrics().revisions == watching.seen_metrics().revisions
    if defined and any(map(moved, watched)):
        last = [values for news in watched for values in moved(news)][-1]
        value = watching.metrics.view("hits").value
        assert value == 0 or last == {"hits": value}
        assert value == 0 or [values for news in read for values in moved(news)][-1] == {"hits": value}
