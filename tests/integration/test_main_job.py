"""The main job on a real Apache Kafka, with the real process: nothing lost, offsets where they must be."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from consumer.sandbox.events import guid
from tests.support.kafka import RealKafka, free_port
from tests.support.kafka_cluster import outer_listener
from tests.support.kafka_proxy import KafkaProxy
from tests.support.processes import SandboxProcess, Setup, events, feed_evenly, wait_until

pytestmark = pytest.mark.kafka

SESSION_S = 6.0
"""Of both protocols, as `Setup` and the test broker set it."""


def ids(made: list[tuple[str, bytes]]) -> set[str]:
    return {event_id for event_id, _ in made}


def values(made: list[tuple[str, bytes]]) -> list[bytes]:
    return [value for _, value in made]


def position(setup: Setup) -> int:
    """Return the sum of the group's committed offsets on the source topic."""
    return sum(offset for (topic, _), offset in setup.kafka.committed(setup.group).items() if topic == setup.topic)


def test_every_event_is_delivered_once_and_committed(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    setup.create_topics()
    made = events(2000)
    setup.kafka.produce(setup.topic, values(made))
    with setup.consumer() as consumer:
        wait_until(lambda: kochava.accepted() == ids(made), "all are delivered")
        wait_until(lambda: consumer.metric("kochava_events_in_flight") == 0, "all are settled")
        wait_until(lambda: consumer.probe("/readyz")[0] == 200, "it is ready")
        assert consumer.probe("/livez")[0] == consumer.probe("/startupz")[0] == 200
        assert consumer.metric("kochava_events_consumed_total", topic=setup.topic) == 2000
        assert consumer.metric("kochava_events_delivered_total") == 2000
        assert consumer.terminate() == 0
    assert kochava.duplicates() == 0
    assert kochava.get("summary")["findings"] == {}, "each payload fits the contract"
    assert position(setup) == 2000


def test_a_kill_loses_nothing(setup: Setup, kochava: SandboxProcess, group_protocol: str) -> None:
    setup.create_topics()
    made = events(6000)
    setup.kafka.produce(setup.topic, values(made))
    with setup.consumer() as consumer:
        wait_until(lambda: len(kochava.accepted()) > 1500, "a good part is delivered")
        consumer.kill()
        committed = position(setup)
        assert committed <= len(kochava.accepted()), "no commit passed what was not delivered"
        consumer.start()
        wait_until(lambda: kochava.accepted() == ids(made), "the rest is delivered")
        assert consumer.terminate() == 0
    assert position(setup) == 6000


def test_members_come_and_go_without_loss_and_without_duplicates(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    setup.create_topics(partitions=6)
    made = events(9000)
    producer = Producer({"bootstrap.servers": setup.kafka.bootstrap_servers})
    feed = iter(made)

    def feed_some(count: int) -> None:
        for index in range(count):
            producer.produce(setup.topic, next(feed)[1], partition=index % 6)
        producer.flush()

    with setup.consumer("first") as first:
        feed_some(3000)
        wait_until(lambda: len(kochava.accepted()) > 500, "the first member works")
        with setup.consumer("second") as second:
            feed_some(3000)
            wait_until(lambda: second.metric("kochava_assigned_partitions", topic=setup.topic) == 3, "it has half")
            feed_some(3000)
            wait_until(lambda: second.metric("kochava_events_delivered_total") > 100, "it works, too")
            assert first.terminate() == 0
            wait_until(lambda: kochava.accepted() == ids(made), "all are delivered")
            assert second.terminate() == 0
    assert kochava.duplicates() == 0
    assert position(setup) == 9000


def test_a_rolling_restart_sends_nothing_twice(setup: Setup, kochava: SandboxProcess, group_protocol: str) -> None:
    """As a Deployment does it: a new pod comes up, then an old one ends; and events come all the time."""
    setup.create_topics(partitions=6)
    made = events(4000)
    feeding = threading.Thread(target=feed_evenly, args=(setup, [value for _, value in made], 400))
    with ExitStack() as pods:
        old = [pods.enter_context(setup.consumer(f"old-{number}")) for number in range(2)]
        wait_until(lambda: all(pod.probe("/readyz")[0] == 200 for pod in old), "the old pods are ready")
        feeding.start()
        for number, pod in enumerate(old):
            new = pods.enter_context(setup.consumer(f"new-{number}"))
            wait_until(lambda new=new: new.metric("kochava_events_delivered_total") > 20, "the new pod works")
            assert pod.terminate() == 0
        feeding.join()
        wait_until(lambda: kochava.accepted() == ids(made), "all are delivered")
    assert kochava.duplicates() == 0


def test_a_killed_members_work_goes_on_within_a_session_and_five_seconds(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    setup.create_topics(partitions=6)
    first, second = events(600, "before-"), events(600, "after-")
    with setup.consumer("stays") as stays, setup.consumer("dies") as dies:
        wait_until(
            lambda: all(pod.metric("kochava_assigned_partitions", topic=setup.topic) == 3 for pod in (stays, dies)),
            "each has half",
        )
        setup.kafka.produce(setup.topic, values(first))
        wait_until(lambda: kochava.accepted() == ids(first), "both work")
        # one that dies in a rebalance is waited for much longer, by the classic protocol: for max.poll.interval
        wait_until(lambda: setup.kafka.is_stable(setup.group, members=4), "they have settled down")
        dies.kill()
        setup.kafka.produce(setup.topic, values(second))
        wait_until(lambda: kochava.accepted() == ids(first) | ids(second), "the other one has it all", SESSION_S + 5)


def test_a_spare_member_without_partitions_is_ready(setup: Setup, kochava: SandboxProcess, group_protocol: str) -> None:
    """Else its pod would be restarted for ever, and every restart is a rebalance."""
    setup.create_topics(partitions=1)
    with setup.consumer("first") as first, setup.consumer("second") as second, setup.consumer("third") as third:
        for member in (first, second, third):
            wait_until(lambda member=member: member.probe("/readyz")[0] == 200, "it is ready, with or without work")
        made = events(50)
        setup.kafka.produce(setup.topic, values(made))
        wait_until(lambda: kochava.accepted() == ids(made), "one of them does the work")


def test_one_slow_event_delays_nobody_and_holds_its_commit_position(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=1)
    made = events(1, "slow-") + events(500)
    kochava.set_rules({"match": {"id_prefix": "slow-", "first_tries": 1}, "do": {"latency_ms": 2500}})
    setup.kafka.produce(setup.topic, values(made))
    with setup.consumer() as consumer:
        wait_until(lambda: consumer.metric("kochava_events_delivered_total") == 500, "the fast ones are delivered")
        assert position(setup) <= 0, "I1: the slow one is not passed"
        assert consumer.metric("kochava_settled_beyond_commit") == 500
        wait_until(lambda: kochava.accepted() == ids(made), "the slow one, too")
        wait_until(lambda: position(setup) == 501, "and then the commit")
    assert kochava.duplicates() == 0


def test_gaps_of_transactions_and_of_compaction_are_passed(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics(
        partitions=1, cleanup_policy="compact", segment_ms="200", min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="200",
    )  # fmt: skip
    old, kept, aborted, last = events(50, "old-"), events(1, "kept-"), events(5, "aborted-"), events(3, "last-")
    servers = {"bootstrap.servers": setup.kafka.bootstrap_servers}
    plain = Producer(servers)
    for _, value in old + kept:
        plain.produce(setup.topic, value, key=b"same")
        plain.flush()
    producer = Producer({**servers, "transactional.id": "t"})
    producer.init_transactions()
    for batch, ends in ((aborted, producer.abort_transaction), (last, producer.commit_transaction)):
        producer.begin_transaction()
        for event_id, value in batch:
            producer.produce(setup.topic, value, key=event_id.encode())
        producer.flush()
        ends()

    def compacted() -> bool:
        plain.produce(setup.topic, None, key=b"nudge")  # a new segment begins, the old one can be cleaned
        plain.flush()
        time.sleep(0.3)
        return "old-48" not in {str(record.value) for record in setup.kafka.read_all(setup.topic)} and (
            len([record for record in setup.kafka.read_all(setup.topic) if record.key == b"same"]) == 1
        )

    wait_until(compacted, "the log is compacted", 90)
    with setup.consumer() as consumer:
        wait_until(lambda: kochava.accepted() == ids(kept + last), "what the log still holds is delivered")
        wait_until(lambda: consumer.metric("kochava_events_in_flight") == 0, "all are settled")
        assert consumer.metric("kochava_events_filtered_total", reason="tombstone") > 0
        assert consumer.terminate() == 0
    (_, high) = setup.kafka.ends(setup.topic)[0]
    assert high - position(setup) <= 1, "at most a control marker is left"
    assert kochava.duplicates() == 0


def test_replay_by_offset_reset_sends_exactly_the_records_from_there(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=2)
    made = events(1000)
    setup.kafka.produce(setup.topic, values(made))
    with setup.consumer() as consumer:
        wait_until(lambda: kochava.accepted() == ids(made), "all are delivered")
        assert consumer.terminate() == 0
        ends = setup.kafka.ends(setup.topic)
        back = [TopicPartition(setup.topic, number, high - 100) for number, (_, high) in ends.items()]
        setup.kafka.alter_offsets(setup.group, back)
        consumer.start()
        wait_until(lambda: kochava.requests == 1200, "the last hundred of both are sent again")
        assert consumer.terminate() == 0
    assert sorted(kochava.ledger().values()) == [1] * 800 + [2] * 200
    again = {event_id for event_id, times in kochava.ledger().items() if times == 2}
    from_there = {
        record.value for record in setup.kafka.read_all(setup.topic) if record.offset >= back[record.partition].offset
    }
    assert again == {event_id for event_id, value in made if value in from_there}


def test_replay_with_kafkas_own_tool_as_the_readme_shows(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=1)
    first, second = events(20, "first-"), events(30, "second-")
    setup.kafka.produce(setup.topic, values(first))
    time.sleep(1.1)
    moment = datetime.now(UTC)
    setup.kafka.produce(setup.topic, values(second))
    with setup.consumer() as consumer:
        wait_until(lambda: kochava.accepted() == ids(first + second), "all are delivered")
        assert consumer.terminate() == 0
        setup.kafka.tool(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--group", setup.group,
            "--topic", setup.topic, "--reset-offsets",
            "--to-datetime", moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z", "--execute",
        )  # fmt: skip
        consumer.start()
        wait_until(lambda: kochava.requests == 80, "the second ones are sent again")
        assert consumer.terminate() == 0
    assert {event_id for event_id, times in kochava.ledger().items() if times == 2} == ids(second)


# -- where to start


def test_members_that_begin_at_once_all_skip_what_was_there(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    """Excludes: the first one's commit makes the partitions of the others look as if they had come later."""
    setup.start = "latest"
    setup.create_topics(partitions=6)
    setup.kafka.produce(setup.topic, values(events(300, "old-")))
    with ExitStack() as stack:
        members = [stack.enter_context(setup.consumer(f"member-{number}")) for number in range(3)]
        wait_until(lambda: position(setup) >= 300, "all partitions have a start")
        new = events(120, "new-")
        setup.kafka.produce(setup.topic, values(new))
        wait_until(lambda: kochava.accepted() >= ids(new), "what is new is delivered")
        assert kochava.accepted() == ids(new)
        wait_until(lambda: all(member.logged("consumer.started") for member in members), "they can be told to stop")
        assert [member.terminate() for member in members] == [0, 0, 0]


def test_latest_skips_what_was_there_and_the_start_is_stored_at_once(setup: Setup, kochava: SandboxProcess) -> None:
    setup.start = "latest"
    setup.create_topics(partitions=2)
    setup.kafka.produce(setup.topic, values(events(10, "before-")))
    with setup.consumer() as consumer:
        wait_until(lambda: position(setup) == 10, "the resolved start is committed")
        consumer.kill()
        after = events(10, "after-")
        setup.kafka.produce(setup.topic, values(after))  # while nobody reads: not to be skipped
        consumer.start()
        wait_until(lambda: kochava.accepted() == ids(after), "what came later is delivered")
    assert kochava.duplicates() == 0


def test_a_moment_as_start(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics(partitions=2)
    setup.kafka.produce(setup.topic, values(events(10, "before-")))
    time.sleep(0.1)
    setup.start = datetime.now(UTC).isoformat()
    time.sleep(0.1)
    after = events(10, "after-")
    setup.kafka.produce(setup.topic, values(after))
    with setup.consumer():
        wait_until(lambda: kochava.accepted() == ids(after), "what came later is delivered")


def test_a_group_that_the_broker_forgot_is_refused(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics()
    setup.kafka.produce(setup.topic, [b"not an event", *values(events(5))])
    with setup.consumer() as consumer:
        wait_until(lambda: len(setup.kafka.read_all(setup.dead_letter)) == 1, "a dead letter is written")
        wait_until(lambda: position(setup) == 6, "all is committed")
        assert consumer.terminate() == 0
    setup.kafka.delete_group(setup.group)
    with setup.consumer("again") as again:
        assert again.wait() == 4
        assert "kochava-consumer offsets reset" in again.text()
    assert kochava.requests == 5


def test_a_forgotten_group_that_never_failed_is_refused_too(setup: Setup, kochava: SandboxProcess) -> None:
    """With start = "latest" it would skip everything of the meantime."""
    setup.start = "latest"
    setup.create_topics()
    with setup.consumer() as consumer:
        wait_until(lambda: setup.kafka.read_all(setup.held), "a new group leaves its mark")
        wait_until(lambda: consumer.probe("/readyz")[0] == 200, "it is ready")
        assert consumer.terminate() == 0
    setup.kafka.delete_group(setup.group)
    setup.kafka.produce(setup.topic, values(events(5)))
    with setup.consumer("again") as again:
        assert again.wait() == 4
        assert "kochava-consumer offsets reset" in again.text()
    assert kochava.requests == 0


def test_out_of_range_stops_and_explains(setup: Setup, kochava: SandboxProcess, group_protocol: str) -> None:
    setup.create_topics(partitions=1, retention_ms="3600000")
    setup.kafka.produce(setup.topic, values(events(10)))
    with setup.consumer() as consumer:
        wait_until(lambda: position(setup) == 10, "all is committed")
        assert consumer.terminate() == 0
    setup.kafka.alter_offsets(setup.group, [TopicPartition(setup.topic, 0, 500)])
    with setup.consumer("again") as again:
        assert again.wait(60) == 4
        assert "outside the log" in again.text()
    assert kochava.requests == 10
    assert position(setup) == 500, "nothing was moved"


def test_callbacks_that_are_due_during_an_assignment_do_not_abort_the_process(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    """Excludes `list_topics` on the consumer inside on_assign: the next callback of that poll ends the process."""
    setup.create_topics()
    made = events(50)
    setup.kafka.produce(setup.topic, values(made))
    with setup.consumer(KOCHAVA_CONSUMER_KAFKA__STATISTICS_INTERVAL_MS="1") as consumer:
        wait_until(lambda: kochava.accepted() == ids(made), "all are delivered")
        assert consumer.terminate() == 0


# -- the end of the process


def test_sigterm_lets_what_is_on_its_way_end(setup: Setup, kochava: SandboxProcess, group_protocol: str) -> None:
    kochava.set_rules({"match": {}, "do": {"latency_ms": 800}})
    setup.create_topics(partitions=1)
    setup.kafka.produce(setup.topic, values(events(300)))
    with setup.consumer() as consumer:
        wait_until(lambda: consumer.metric("kochava_in_flight_events") >= 64, "requests are on their way")
        assert consumer.terminate() == 0
        delivered = len(kochava.accepted())
        assert 0 < delivered < 300
        assert position(setup) == delivered, "what ended is committed, what waited is left"
        consumer.start()
        wait_until(lambda: len(kochava.accepted()) == 300, "the rest is delivered later")
    assert kochava.duplicates() == 0


def test_a_second_sigterm_ends_it_at_once(setup: Setup, kochava: SandboxProcess) -> None:
    kochava.set_rules({"match": {}, "do": {"action": "hang"}})
    setup.create_topics(partitions=1)
    setup.kafka.produce(setup.topic, values(events(10)))
    with setup.consumer() as consumer:
        wait_until(lambda: consumer.metric("kochava_in_flight_events") == 10, "requests hang")
        consumer.signal(signal.SIGTERM)
        wait_until(lambda: consumer.logged("shutdown.started"), "it drains")
        assert consumer.terminate(5) == 6
    assert position(setup) <= 0


def test_a_sigterm_after_all_is_done_changes_nothing(setup: Setup) -> None:
    setup.create_topics(partitions=1)
    with setup.consumer() as consumer:
        consumer.kill()
        consumer.module = ("tests.support.told_late",)
        consumer.start()
        wait_until(lambda: consumer.logged("consumer.started"), "it runs")
        assert consumer.terminate() == 0


def test_a_stop_at_any_moment_of_joining_is_orderly(setup: Setup, group_protocol: str) -> None:
    """Excludes: an assignment that comes while the end has begun, and waits for offsets or finds none."""
    setup.create_topics(partitions=1)
    for moment in range(7):
        with setup.consumer(f"member-{moment}") as consumer:
            wait_until(lambda consumer=consumer: consumer.logged("consumer.started"), "it joins")
            time.sleep(moment * 0.06)
            assert consumer.terminate() == 0, f"stopped {moment * 60} ms after its start"


# -- others are away


def test_the_broker_dies_and_comes_back(kafka: RealKafka, setup: Setup, kochava: SandboxProcess, tmp_path) -> None:
    own = RealKafka(tmp_path / "own-broker").start()
    try:
        setup.kafka = own
        setup.create_topics()
        made = events(3000)
        own.produce(setup.topic, values(made))
        kochava.set_rules({"match": {}, "do": {"latency_ms": 20}})
        with setup.consumer() as consumer:
            wait_until(lambda: len(kochava.accepted()) > 300, "it works")
            own.kill()
            wait_until(lambda: consumer.logged("kafka.error"), "it notices, and says so")
            assert consumer.probe("/livez")[0] == 200
            own.start()
            wait_until(lambda: kochava.accepted() == ids(made), "all are delivered", 90)
            wait_until(lambda: position(setup) == 3000, "and committed")
            assert consumer.terminate() == 0
    finally:
        own.kill()


@pytest.fixture
def proxy(setup: Setup, tmp_path: Path) -> Iterator[KafkaProxy]:
    """Stands before a broker of the test's own, which *setup* uses then."""
    port, outer, controller = free_port(), free_port(), free_port()
    with KafkaProxy(outer) as proxy:
        own = RealKafka(tmp_path / "own-broker", port, {
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            **outer_listener(port, outer, controller, proxy.port),
        })  # fmt: skip
        try:
            setup.kafka, setup.bootstrap_servers = own.start(), f"127.0.0.1:{proxy.port}"
            setup.create_topics()
            yield proxy
        finally:
            own.kill()


def test_a_client_that_forgets_all_brokers_ends_the_process(
    setup: Setup, kochava: SandboxProcess, proxy: KafkaProxy
) -> None:
    """Excludes: a member that runs, is healthy, and never joins again (librdkafka issue 5301)."""
    made = events(600)
    setup.kafka.produce(setup.topic, values(made[:300]))
    often = json.dumps({"topic.metadata.refresh.interval.ms": 300})
    with setup.consumer(KOCHAVA_CONSUMER_KAFKA__CLIENT=often) as consumer:
        wait_until(lambda: len(kochava.accepted()) == 300, "it works")
        proxy.set_mode("no_brokers")
        wait_until(lambda: consumer.logged("kafka.brokers_forgotten"), "it notices", 60)
        consumer.signal(signal.SIGTERM)  # a first one: it ends in order all the same
        assert consumer.wait(60) == 4
        assert "restart the process" in consumer.text()
        proxy.set_mode("pass")
        setup.kafka.produce(setup.topic, values(made[300:]))
        consumer.start()
        wait_until(lambda: kochava.accepted() == ids(made), "a new process delivers the rest", 60)
        assert consumer.terminate() == 0
    assert kochava.duplicates() == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_an_answer_that_comes_after_the_coordinator_fenced_the_member_settles_nothing(
    setup: Setup, kochava: SandboxProcess, proxy: KafkaProxy, protocol: str
) -> None:
    setup.group_protocol = protocol
    made = events(200)
    feeding = threading.Thread(target=feed_evenly, args=(setup, values(made), 20))  # some are under way at any time
    with setup.consumer() as consumer:
        wait_until(lambda: consumer.metric("kochava_assigned_partitions", topic=setup.topic) == 3, "it has them")
        kochava.set_rules({"do": {"latency_ms": 2000}})
        feeding.start()
        wait_until(lambda: kochava.requests > 0, "events are under way")
        proxy.set_mode("fenced")

        def has_lost_them() -> bool:
            return any(line["partitions"] == 3 for line in consumer.logged("consumer.lost"))

        wait_until(has_lost_them, "it hears that it is no member any more")
        proxy.set_mode("pass")
        feeding.join()
        wait_until(lambda: kochava.accepted() == ids(made), "all are delivered")
        wait_until(lambda: position(setup) == len(made), "and committed")
        assert consumer.metric("kochava_stale_answers_total") > 0
        assert consumer.terminate() == 0


def test_everything_is_away_at_the_start(setup: Setup, kochava: SandboxProcess, tmp_path) -> None:
    own = RealKafka(tmp_path / "own-broker").start()
    try:
        setup.kafka = own
        setup.create_topics()
        made = events(200)
        own.produce(setup.topic, values(made))
        own.kill()
        with setup.consumer() as consumer:
            wait_until(lambda: consumer.logged("kafka.error"), "it waits, and says so")
            assert consumer.probe("/readyz")[0] == 503
            own.start()
            wait_until(lambda: kochava.accepted() == ids(made), "all are delivered", 90)
            assert consumer.terminate() == 0
    finally:
        own.kill()


def test_a_dead_endpoint_stops_reading_and_nothing_else(setup: Setup, kochava: SandboxProcess) -> None:
    kochava.set_rules({"match": {}, "do": {"status": 503}})
    setup.create_topics()
    made = events(2000)
    setup.kafka.produce(setup.topic, values(made))
    with setup.consumer() as consumer:
        wait_until(lambda: consumer.logged("breaker.opened"), "the breaker opens")
        wait_until(lambda: "breaker" in consumer.probe("/readyz")[1], "it is not ready, and says why")
        assert consumer.probe("/readyz")[0] == 503
        assert consumer.probe("/livez")[0] == 200
        kochava.set_rules()
        wait_until(lambda: kochava.accepted() == ids(made), "all are delivered once it answers")
        wait_until(lambda: consumer.probe("/readyz")[0] == 200, "it is ready again")
        assert consumer.terminate() == 0
    assert setup.kafka.read_all(setup.dead_letter) == []
    assert kochava.duplicates() == 0


# -- modes


@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_both_transports(setup: Setup, kochava: SandboxProcess, transport: str) -> None:
    setup.create_topics()
    made = events(300)
    setup.kafka.produce(setup.topic, values(made))
    # few connections: httpx looks at all of them for each request
    environment = {"KOCHAVA_CONSUMER_DELIVERY__TRANSPORT": transport, "KOCHAVA_CONSUMER_DELIVERY__CONNECTIONS": "8"}
    with setup.consumer(**environment) as consumer:
        wait_until(lambda: kochava.accepted() == ids(made), "all are delivered")
        assert consumer.terminate() == 0
    assert kochava.duplicates() == 0


def test_a_shadow_reads_and_maps_and_leaves_no_trace(setup: Setup, kochava: SandboxProcess) -> None:
    setup.create_topics()
    setup.kafka.produce(setup.topic, [b"junk", *values(events(100))])
    with setup.consumer("shadow", "--shadow") as consumer:
        wait_until(lambda: consumer.metric("kochava_events_delivered_total") == 100, "all are mapped")
        assert consumer.terminate() == 0
    assert kochava.requests == 0
    assert setup.kafka.read_all(setup.dead_letter) == []
    assert position(setup) <= 0


def test_an_unlisted_platform_beats_nothing_and_an_app_alone_is_enough(setup: Setup, kochava: SandboxProcess) -> None:
    setup.apps = {"com.example.puzzle/ios": {"guid": "ios-guid"}, "com.example.puzzle": {"guid": "any-guid"}}
    setup.create_topics()
    setup.kafka.produce(setup.topic, values(events(4)))
    with setup.consumer():
        wait_until(lambda: kochava.requests == 4, "all are delivered")
    by_app = kochava.get("summary")["by_app"]
    assert {app: count["accepted"] for app, count in by_app.items()} == {"ios-guid": 1, "any-guid": 3}
    assert guid("com.example.puzzle", "ios") not in by_app
