"""Alerts: each one that is due arrives, whatever is killed or down; what heals in time does not."""

from __future__ import annotations

import random

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from heliosd.alerts.deliveries import WAITING
from heliosd.cluster.metric_commands import DeleteMetric, RegisterMetric, UpdateMetric
from heliosd.config.loader import parse
from tests.support.alert_harness import AlertHarness, lost
from tests.support.rest_server import now

HOOK = 'url = "http://127.0.0.1:9/hook"\n'


def alert(name: str, when: str, hold: str = "0s") -> str:
    return f'[[alert]]\nname = "{name}"\nwhen = "{when}"\nfor = "{hold}"\n{HOOK}'


@pytest.fixture(name="house")
async def alert_harness(autojump_clock: MockClock) -> AlertHarness:
    return AlertHarness(alert("no-leader", "leader_lost", "10s"))


async def test_a_leader_that_is_lost_for_long_is_reported_once(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    async with house.running():
        house.elect()
        await trio.sleep(20)
        loss = house.lose()
        await trio.sleep(9.9)
        assert house.got == []
        await trio.sleep(1)
        (got,) = house.got
        await trio.sleep(60)
        assert house.got == [got]
        house.elect("node-3")
        await trio.sleep(60)
        assert house.got == [got]
    assert got["id"] == f"no-leader/leader_lost/{loss}"
    assert (got["alert"], got["when"], got["for_seconds"]) == ("no-leader", "leader_lost", 10.0)
    assert (got["node"], got["repeated"]) == ("node-1", False)
    assert f"{house.epoch}:{got['event']['seq']}" == loss


async def test_what_heals_in_time_is_not_reported(autojump_clock: MockClock, house: AlertHarness) -> None:
    async with house.running():
        house.elect()
        for held in (0.0, 0.05, 5, 9.9, 9.999):
            house.lose()
            await trio.sleep(held)
            house.elect()
            await trio.sleep(30)
    assert house.got == []


async def test_500_losses_with_kills_and_a_receiver_that_is_down_a_third_of_the_time(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("no-leader", "leader_lost", "1s")
    rng = random.Random(15)
    due: list[str] = []
    over = trio.Event()

    async def lose_and_elect() -> None:
        house.elect()
        for number in range(500):
            await trio.sleep(rng.uniform(0.1, 0.5))
            ref = house.lose()
            held = rng.uniform(0, 0.95) if number % 2 else rng.uniform(1.05, 2)
            if held >= 1:
                due.append(f"no-leader/leader_lost/{ref}")
            await trio.sleep(held)
            house.elect()
        over.set()

    async def receiver() -> None:
        while True:
            await trio.sleep(rng.uniform(2, 20))
            house.down = True
            await trio.sleep(rng.uniform(1, 10))
            house.down = False

    kills = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver)
        async with trio.open_nursery() as cluster:
            cluster.start_soon(lose_and_elect)
            while kills < 20:
                async with house.running():
                    await trio.sleep(rng.uniform(0.1, 50))
                kills += 1
                await trio.sleep(rng.uniform(0, 5))
            async with house.running():
                await over.wait()
                await trio.sleep(300)
        nursery.cancel_scope.cancel()
    assert len(due) == 250
    assert sorted(house.ids) == sorted(due)
    doubled = [got for index, got in enumerate(house.got) if got["id"] in house.ids_before(index)]
    assert doubled, "the receiver's lost answers and the kills make some"
    assert all(got["repeated"] for got in doubled)


async def test_the_state_of_before_a_kill_goes_on(autojump_clock: MockClock, house: AlertHarness) -> None:
    async with house.running():
        house.elect()
        house.lose()
        await trio.sleep(6)
    await trio.sleep(1)
    async with house.running():
        await trio.sleep(2)
        assert house.got == []
        await trio.sleep(2)
        assert len(house.got) == 1
    async with house.running():
        await trio.sleep(60)
        assert len(house.got) == 1


async def test_what_began_and_ended_while_heliosd_was_down_is_judged_by_the_log(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    async with house.running():
        house.elect()
        await trio.sleep(1)
    first = house.lose()
    await trio.sleep(11)
    house.elect()
    house.lose()
    await trio.sleep(9)
    house.elect()
    async with house.running():
        await trio.sleep(60)
    assert house.ids == [f"no-leader/leader_lost/{first}"]


async def test_two_daemons_send_the_same_ids(autojump_clock: MockClock, house: AlertHarness) -> None:
    house.config = alert("no-leader", "leader_lost") + alert("peer", "peer_unhealthy", "1s")
    other = AlertHarness(
        house.config, cluster=house.cluster, events=house.events, got=[], disk={"unrelated": b"{}"}
    )
    house.elect()
    async with house.running(), other.running():
        await trio.sleep(20)
        house.lose()
        house.peer("unhealthy")
        other.hear(house)
        await trio.sleep(20)
    assert len(house.ids) == 2
    assert sorted(house.ids) == sorted(other.ids)


async def test_a_loss_that_cannot_be_logged_is_reported_all_the_same(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    async with house.running():
        elected = house.elect()
        await trio.sleep(20)
        house.cluster.leader = ""  # as with etcd without a quorum: the log says nothing
        await trio.sleep(12)
        (got,) = house.got
        assert (got["id"], got["event"]) == (f"no-leader/leader_lost/{elected}", None)
        house.lose()
        house.elect("node-3")
        await trio.sleep(60)
        assert house.ids == [got["id"]]


async def test_two_peers_that_fall_silent_at_once_without_a_log_are_two_alerts(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("peer", "peer_unhealthy", "1s")
    async with house.running():
        house.elect()
        await trio.sleep(20)
        for peer in ("node-2", "node-3"):
            house.cluster.fall_silent(peer)
        await trio.sleep(20)
        assert sorted(got["subject"] for got in house.got) == ["node-2", "node-3"]
    assert len(house.ids) == 2


async def test_a_loss_that_only_one_daemon_saw_does_not_change_the_id_of_the_next_one(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("no-leader", "leader_lost")
    other = AlertHarness(house.config, events=house.events, got=[])
    async with house.running(), other.running():
        elected = house.elect()
        other.hear(house)
        other.cluster.leader = "node-2"
        await trio.sleep(20)
        house.cluster.leader = ""  # cut off from etcd, alone
        await trio.sleep(10)
        house.cluster.leader = "node-2"
        await trio.sleep(60)
        assert (house.ids, other.ids) == ([f"no-leader/leader_lost/{elected}"], [])
        loss = house.lose()
        other.hear(house)
        await trio.sleep(1)
    assert house.ids[1:] == other.ids == [f"no-leader/leader_lost/{loss}"]


async def test_a_loss_that_is_logged_when_another_leader_has_been_seen_for_long_is_reported_once(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("no-leader", "leader_lost") + alert("elected", "leader_elected")
    async with house.running():
        first = house.elect()
        await trio.sleep(20)
        house.cluster.leader = ""  # and etcd takes no writes
        await trio.sleep(10)
        house.cluster.leader = "node-3"
        await trio.sleep(60)
        house.publish(lost("node-2"))
        await trio.sleep(1)
        second = house.elect("node-3")
        await trio.sleep(60)
        assert sorted(house.ids) == [
            f"elected/leader_elected/{second}",
            f"no-leader/leader_lost/{first}",
        ]
        again = house.lose()
        await trio.sleep(60)
        assert house.ids[2:] == [f"no-leader/leader_lost/{again}"]


async def test_a_new_alert_reports_what_holds_and_not_what_happened(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = (
        alert("lost", "leader_lost") + alert("elected", "leader_elected") + alert("gone", "peer_removed")
    )
    house.elect()
    house.peer("removed", "node-3")
    house.lose()
    async with house.running():
        await trio.sleep(10)
        assert [got["alert"] for got in house.got] == ["lost"]
        elected = house.elect("node-3")
        removed = house.peer("removed", "node-2")
        await trio.sleep(1)
    assert {got["id"] for got in house.got[1:]} == {
        f"elected/leader_elected/{elected}",
        f"gone/peer_removed/{removed}",
    }


@pytest.mark.parametrize("readable", [True, False])
async def test_an_alert_that_is_new_at_a_start_reports_nothing_from_while_heliosd_was_down(
    autojump_clock: MockClock, house: AlertHarness, readable: bool
) -> None:
    house.config = alert("lost", "leader_lost", "10s")
    async with house.running():
        house.elect()
        await trio.sleep(20)
    loss = house.lose()
    await trio.sleep(30)
    house.elect("node-3")
    house.peer("removed", "node-1")
    await trio.sleep(1)
    house.config += (
        alert("lost-2", "leader_lost", "10s")
        + alert("elected", "leader_elected")
        + alert("gone", "peer_removed", "5s")
    )
    house.cluster.reason = None if readable else "etcd has not been read yet"
    async with house.running(readable=readable):
        await trio.sleep(20)
        if not readable:
            house.begin_log()
            house.cluster.reason = None
            await trio.sleep(1)
        assert house.ids == [f"lost/leader_lost/{loss}"]
        elected = house.elect("node-1")
        await trio.sleep(5)
    assert house.ids[1:] == [f"elected/leader_elected/{elected}"]


async def test_snapshots_that_go_on_failing_are_one_condition_until_one_succeeds(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("backup", "snapshot_failed", "90s")
    async with house.running():
        await trio.sleep(5)
        first = house.snapshot(success=False)
        for _ in range(3):
            await trio.sleep(60)
            house.snapshot(success=False)
        assert house.ids == [f"backup/snapshot_failed/{first}"]
        house.snapshot(success=True)
        again = house.snapshot(success=False)
        await trio.sleep(100)
    assert house.ids[1:] == [f"backup/snapshot_failed/{again}"]


async def test_a_quorum_at_risk_and_a_failed_snapshot_are_reported(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("quorum", "quorum_at_risk", "2s") + alert("backup", "snapshot_failed")
    async with house.running():
        await trio.sleep(5)
        risk = house.peer("unhealthy", "node-3")
        failed = house.snapshot(success=False)
        await trio.sleep(1.9)
        assert house.ids == [f"backup/snapshot_failed/{failed}"]
        await trio.sleep(1)
        assert house.ids[1:] == [f"quorum/quorum_at_risk/{risk}"]
        house.peer("healthy", "node-3")
        house.snapshot(success=True)
        await trio.sleep(5)
        house.peer("unhealthy", "node-2")
        await trio.sleep(1)
        house.peer("healthy", "node-2")
        await trio.sleep(5)
    assert len(house.ids) == 2


async def test_an_own_member_that_falls_silent_is_reported_as_any_other(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("peer", "peer_unhealthy", "15s") + alert("quorum", "quorum_at_risk", "15s")
    async with house.running():
        house.elect()
        await trio.sleep(20)
        unhealthy = house.peer("unhealthy", "node-1")
        await trio.sleep(20)
    assert set(house.ids) == {f"peer/peer_unhealthy/{unhealthy}", f"quorum/quorum_at_risk/{unhealthy}"}


async def test_what_a_start_does_not_know_yet_is_not_taken_for_ended(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = (
        alert("peer", "peer_unhealthy") + alert("quorum", "quorum_at_risk") + alert("hot", "metric:jobs > 5")
    )
    house.cluster.metrics.apply(RegisterMetric(name="jobs", type="gauge", at=1.0))
    house.cluster.metrics.apply(UpdateMetric(name="jobs", value=10, at=now().wall))
    async with house.running():
        house.elect()
        unhealthy = house.peer("unhealthy", "node-3")
        await trio.sleep(10)
    sent = {f"peer/peer_unhealthy/{unhealthy}", f"quorum/quorum_at_risk/{unhealthy}"}
    assert len(house.ids) == 3
    assert sent < set(house.ids)
    with house.cluster.unread():
        async with house.running(readable=False):
            await trio.sleep(20)
    async with house.running():
        await trio.sleep(20)
        assert len(house.ids) == 3
        house.peer("healthy", "node-3")
        await trio.sleep(5)
        again = house.peer("unhealthy", "node-3")
        await trio.sleep(5)
    assert set(house.ids[3:]) == {f"peer/peer_unhealthy/{again}", f"quorum/quorum_at_risk/{again}"}


async def test_a_quorum_that_was_at_risk_before_the_first_alert_has_the_id_of_its_event(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("quorum", "quorum_at_risk")
    house.elect()
    risk = house.peer("unhealthy", "node-3")
    with house.cluster.unread():
        async with house.running():
            await trio.sleep(1)
            house.cluster.read()
            await trio.sleep(1)
    (got,) = house.got
    assert got["id"] == f"quorum/quorum_at_risk/{risk}"
    assert got["event"]["data"]["peer_id"] == "node-3"


async def test_a_quorum_that_came_at_risk_while_heliosd_was_down_has_the_id_of_its_event(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("quorum", "quorum_at_risk")
    async with house.running():
        house.elect()
        await trio.sleep(5)
    risk = house.peer("unhealthy", "node-3")
    with house.cluster.unread():
        async with house.running():
            await trio.sleep(1)
            house.cluster.read()
            await trio.sleep(5)
    assert house.ids == [f"quorum/quorum_at_risk/{risk}"]


async def test_a_metric_above_its_limit_is_reported_once_each_time(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("hot", "metric:temperature > 80.5", "1s")
    house.cluster.metrics.apply(RegisterMetric(name="temperature", type="gauge", at=1.0))

    def become(value: float) -> None:
        house.cluster.metrics.apply(UpdateMetric(name="temperature", value=value, at=now().wall))

    async with house.running():
        for value, seconds in ((80.5, 5), (81, 0.5), (80, 1), (90, 5), (95, 5)):
            become(value)
            await trio.sleep(seconds)
        assert len(house.ids) == 1
        assert house.got[0]["event"]["data"]["temperature"]["value"] == 90
    async with house.running():
        await trio.sleep(30)
        assert len(house.ids) == 1
        house.cluster.metrics.apply(DeleteMetric(name="temperature", at=now().wall))
        await trio.sleep(1)
        house.cluster.metrics.apply(RegisterMetric(name="temperature", type="gauge", at=now().wall))
        become(100)
        await trio.sleep(5)
        assert len(house.ids) == 2


@pytest.mark.parametrize("seconds", [0.0, 1.5])
async def test_a_full_disk_does_not_silence_alerts(
    autojump_clock: MockClock, house: AlertHarness, seconds: float
) -> None:
    async with house.running():
        house.elect()
        await trio.sleep(10)
        house.disk_full, house.disk_seconds = True, seconds
        house.lose()
        await trio.sleep(12 + 2 * seconds)
        assert len(house.ids) == 1
        house.elect()
        await trio.sleep(1 + 2 * seconds)
        house.disk_full = False
        await trio.sleep(5)
    async with house.running():
        await trio.sleep(60)
        assert len(house.ids) == 1


async def test_an_alert_that_is_sent_while_a_full_slow_disk_is_tried_again_is_not_stored_later(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = "".join(alert(f"no-leader-{number}", "leader_lost", "10s") for number in range(8))
    async with house.running():
        house.elect()
        await trio.sleep(10)
        house.disk_full, house.disk_seconds, house.down = True, 2.0, True
        house.lose()
        await trio.sleep(20)
        house.down = False  # each is tried at a time of its own, while the disk refuses what is older
        await trio.sleep(60)
        assert len(house.ids) == 8
        house.disk_full = False
        await trio.sleep(10)
        assert [name for name in house.disk if name.startswith(WAITING)] == []


async def test_events_of_one_moment_in_a_new_numbering_are_all_news(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("gone", "peer_removed") + alert("elected", "leader_elected")
    async with house.running():
        house.elect()
        await trio.sleep(20)
    house.epoch, house.events = "e2", []
    before = set(house.ids)
    elected = house.elect("node-3")
    gone = house.peer("removed", "node-1")
    async with house.running():
        await trio.sleep(20)
    assert set(house.ids) - before == {f"elected/leader_elected/{elected}", f"gone/peer_removed/{gone}"}


async def test_events_that_are_kept_no_more_are_counted(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    async with house.running():
        house.elect()
        await trio.sleep(1)
    house.lose()
    for _ in range(1100):
        house.peer("renamed")
    async with house.running() as watcher:
        await trio.sleep(15)
        assert watcher.counters.missed_events == 101
        assert len(house.ids) == 1, "the status says that there is no leader"


async def test_an_alert_that_is_taken_out_is_not_sent(autojump_clock: MockClock, house: AlertHarness) -> None:
    house.down = True
    async with house.running() as watcher:
        house.elect()
        house.lose()
        await trio.sleep(30)
        assert watcher.counters.waiting == {"no-leader": 1}
        assert house.settings is not None
        house.settings.replace(replace(house.settings.current, alert=()))
        house.down = False
        await trio.sleep(60)
        assert watcher.counters.dropped == {"not_configured": 1}
    assert house.got == []
    assert house.disk == {}


async def test_one_receiver_that_is_down_does_not_hold_up_another(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config += alert("also", "leader_lost")
    house.deaf = {"no-leader"}
    async with house.running() as watcher:
        house.elect()
        house.lose()
        await trio.sleep(100)
        assert [got["alert"] for got in house.got] == ["also"]
        assert watcher.counters.failures["no-leader"] >= 3


async def test_alerts_come_and_go_with_the_configuration(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    config, house.config = house.config, ""
    async with house.running():
        house.elect()
        house.lose()
        await trio.sleep(60)
        assert house.disk == {}, "without an alert nothing is stored"
        assert house.settings is not None
        house.settings.replace(replace(house.settings.current, alert=parse(config).alert))
        await trio.sleep(1)
        assert [got["alert"] for got in house.got] == ["no-leader"], "it has held for long"
        more = parse(config + alert("at-once", "leader_lost")).alert
        house.settings.replace(replace(house.settings.current, alert=more))
        await trio.sleep(1)
        assert [got["alert"] for got in house.got] == ["no-leader", "at-once"]


async def test_alerts_that_are_taken_out_and_put_back_at_once_come_back(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    async with house.running():
        house.elect()
        await trio.sleep(5)
        assert house.settings is not None
        before = house.settings.current
        settings = house.settings
        house.on_save = lambda: settings.replace(before)
        settings.replace(replace(before, alert=()))
        await trio.sleep(5)
        house.on_save = lambda: None
        house.lose()
        await trio.sleep(60)
        assert len(house.got) == 1


async def test_an_alert_that_was_out_of_the_configuration_for_a_moment_is_sent_all_the_same(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("elected", "leader_elected")
    taken_out: list[bool] = []
    async with house.running() as watcher, trio.open_nursery() as nursery:
        await trio.sleep(1)
        assert house.settings is not None
        settings, before = house.settings, house.settings.current
        refs = [house.elect(), house.elect("node-3")]

        async def put_back() -> None:
            await trio.sleep(0.01)
            settings.replace(before)

        def take_out() -> None:
            """While the first one is noted as sent: the sender looks into the configuration next."""
            if house.got and settings.current is before and not taken_out:
                taken_out.append(True)
                settings.replace(replace(before, alert=()))
                nursery.start_soon(put_back)

        house.on_save = take_out
        await trio.sleep(60)
        assert taken_out
        assert watcher.counters.dropped == {}, "the watcher has not seen that it was out"
        assert set(house.ids) == {f"elected/leader_elected/{ref}" for ref in refs}


@pytest.mark.parametrize("leap_seconds", [365 * 86_400.0, -365 * 86_400.0])
async def test_a_leap_of_the_wall_clock_neither_makes_an_alert_due_nor_holds_it_back(
    autojump_clock: MockClock, house: AlertHarness, leap_seconds: float
) -> None:
    async with house.running():
        house.elect()
        await trio.sleep(5)
        house.lose()
        await trio.sleep(3)
        house.leap_seconds = leap_seconds
        await trio.sleep(1)
        assert house.settings is not None
        before = house.settings.current
        more = parse(house.config + alert("other", "snapshot_failed")).alert
        house.settings.replace(replace(before, alert=more))
        await trio.sleep(2)
        house.elect()
        await trio.sleep(30)
        assert house.got == []
        house.lose()
        await trio.sleep(3)
        house.leap_seconds = 0.0
        await trio.sleep(8)
        assert len(house.ids) == 1
    house.leap_seconds = leap_seconds
    async with house.running():
        await trio.sleep(30)
        assert len(house.ids) == 1


async def test_what_ended_in_time_while_heliosd_did_not_run_is_not_sent_after_the_pause(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config += alert("hot", "metric:jobs > 5", "10s")
    house.cluster.metrics.apply(RegisterMetric(name="jobs", type="gauge", at=1.0))
    async with house.running():
        house.elect()
        await trio.sleep(20)
        house.lose()
        house.cluster.metrics.apply(UpdateMetric(name="jobs", value=10, at=now().wall))
        await trio.sleep(1)
        autojump_clock.jump(60)
        await trio.sleep(1)  # by now the daemon hears of it
        house.elect(ago=60)
        house.cluster.metrics.apply(UpdateMetric(name="jobs", value=1, at=now().wall - 60))
        await trio.sleep(60)
        assert house.got == []


async def test_what_still_holds_after_a_pause_is_sent(autojump_clock: MockClock, house: AlertHarness) -> None:
    async with house.running():
        house.elect()
        await trio.sleep(20)
        loss = house.lose()
        await trio.sleep(1)
        autojump_clock.jump(60)
        await trio.sleep(5)
        assert house.ids == [f"no-leader/leader_lost/{loss}"]


async def test_no_leader_before_a_pause_and_after_it_is_no_loss_that_lasted(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("lost", "leader_lost")
    async with house.running():
        house.elect()
        await trio.sleep(20)
        house.cluster.leader = ""
        await trio.sleep(1)
        autojump_clock.jump(60)
        await trio.sleep(2)
        house.cluster.leader = "node-2"
        await trio.sleep(60)
        assert house.got == []


async def test_a_first_start_without_a_readable_log_reports_nothing_of_before(
    autojump_clock: MockClock, house: AlertHarness
) -> None:
    house.config = alert("lost", "leader_lost") + alert("elected", "leader_elected")
    for _ in range(3):
        house.elect("node-2")
        await trio.sleep(60)
        house.lose()
        await trio.sleep(60)
    house.elect("node-3")
    await trio.sleep(60)
    house.cluster.reason = "etcd has not been read yet"
    async with house.running(readable=False):
        await trio.sleep(20)
        house.cluster.reason = None
        house.begin_log()
        await trio.sleep(20)
        assert house.got == []
        loss = house.lose()
        elected = house.elect("node-2")
        await trio.sleep(1)
    assert sorted(house.ids) == [f"elected/leader_elected/{elected}", f"lost/leader_lost/{loss}"]
