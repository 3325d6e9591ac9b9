"""What was settled beyond the commit position is not sent again, whoever goes on and however the last one ended."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from consumer.core.offset_map import OffsetMap, decode
from tests.support.processes import (
    ConsumerProcess,
    SandboxProcess,
    Setup,
    command as run,
    events,
    feed_evenly,
    wait_until,
)

pytestmark = pytest.mark.kafka

BEHIND = 10_000
LOCKED = "com.example.locked"
PER_S = 1_500
IN_FLIGHT = 512
"""As `Setup` sets it."""
UNSAID_S = 1 + 1
"""The commit interval, and what may pass from settling to a look at the maps and to the broker's answer."""
UNAUTHORISED = {"match": {"id_prefix": "blocker-"}, "do": {"status": 401}}


def committed(setup: Setup) -> TopicPartition:
    group = ConsumerGroupTopicPartitions(setup.group, [TopicPartition(setup.topic, 0)])
    (found,) = setup.kafka.admin.list_consumer_group_offsets([group])[setup.group].result(30).topic_partitions
    return found


def show(setup: Setup, *options: str) -> list[dict[str, Any]]:
    shown = run(setup, "offsets", "show", "--json", *options)
    assert shown.returncode == 0, shown.stderr
    return [json.loads(line) for line in shown.stdout.splitlines()]


def map_of(setup: Setup) -> OffsetMap:
    at = committed(setup)
    return decode(at.metadata or "", max(at.offset, 0), setup.kafka.ends(setup.topic)[0][1])


@pytest.fixture
def blocked(setup: Setup, kochava: SandboxProcess) -> Iterator[tuple[Setup, SandboxProcess, ConsumerProcess]]:
    """One event whose app's key is refused, and ten thousand behind it that are delivered; the position stands at 0."""
    setup.create_topics(partitions=1)
    setup.apps[LOCKED] = {"guid": "kolocked-1"}
    setup.environment["KOCHAVA_CONSUMER_LANE__WAITING_S"] = "600"  # it waits in memory, not on the held topic
    kochava.set_rules(UNAUTHORISED)
    made = events(1, "blocker-", app_id=LOCKED) + events(BEHIND)
    setup.kafka.produce(setup.topic, [value for _, value in made])
    with setup.consumer() as consumer:
        wait_until(lambda: consumer.metric("kochava_events_delivered_total") == BEHIND, "all others are delivered")
        yield setup, kochava, consumer


def test_a_kill_sends_only_the_blocking_event_again(
    blocked: tuple[Setup, SandboxProcess, ConsumerProcess], group_protocol: str
) -> None:
    setup, kochava, consumer = blocked
    wait_until(lambda: map_of(setup).runs == ((1, BEHIND + 1),), "the map has all of them, within an interval")
    assert committed(setup).offset == 0, "I1: the blocking one is not passed"
    (shown,) = [line for line in show(setup) if line["topic"] == setup.topic]
    assert (shown["committed"], shown["end"], shown["lag"]) == (0, BEHIND + 1, 1)
    assert (shown["settled"], shown["blocking"], shown["metadata_ignored"]) == (BEHIND, 0, None)
    assert 0 <= shown["blocking_s"] < 120
    consumer.kill()
    kochava.set_rules()
    consumer.start()
    wait_until(lambda: committed(setup).offset == BEHIND + 1, "the blocking one is delivered, the others are passed")
    assert consumer.metric("kochava_settled_before_skipped_total") == BEHIND
    assert consumer.terminate() == 0
    assert kochava.duplicates() == 0
    assert len(kochava.accepted()) == BEHIND + 1
    assert committed(setup).metadata in {None, ""}


def test_a_kill_amid_the_flow_repeats_what_two_commits_are_apart(
    setup: Setup, kochava: SandboxProcess, group_protocol: str
) -> None:
    """One request hangs, thousands behind it are settled, and more come all the time: before, at and after the kill."""
    setup.create_topics(partitions=1)
    setup.environment |= {  # the one that hangs stays on the wire
        "KOCHAVA_CONSUMER_DELIVERY__REQUEST_TIMEOUT_S": "100",
        "KOCHAVA_CONSUMER_DELIVERY__RETRY_BUDGET_S": "110",
        "KOCHAVA_CONSUMER_DELIVERY__DRAIN_TIMEOUT_S": "120",
    }
    kochava.set_rules({"match": {"id_prefix": "blocker-"}, "do": {"action": "hang"}})
    made = events(1, "blocker-") + events(PER_S * 9)
    feeding = threading.Thread(target=feed_evenly, args=(setup, [value for _, value in made], PER_S))
    with setup.consumer() as consumer:
        feeding.start()
        wait_until(lambda: consumer.metric("kochava_events_delivered_total") > PER_S * 4, "thousands are delivered")
        assert feeding.is_alive(), "it is killed amid the flow"
        consumer.kill()
        assert committed(setup).offset <= 0, "I1: the one that hangs is not passed"
        settled = sum(one.end - one.first for one in map_of(setup).runs)
        kochava.set_rules()
        consumer.start()
        feeding.join()
        wait_until(lambda: kochava.accepted() == {event_id for event_id, _ in made}, "nothing is lost")
        wait_until(lambda: committed(setup).offset == len(made), "all is passed")
        assert consumer.metric("kochava_settled_before_skipped_total") == settled
        assert consumer.terminate() == 0
    assert settled >= PER_S * 2
    assert kochava.duplicates() <= IN_FLIGHT + PER_S * UNSAID_S


def test_a_stop_hands_the_map_over_at_once(blocked: tuple[Setup, SandboxProcess, ConsumerProcess]) -> None:
    """The client would not: the position didn't move."""
    setup, kochava, consumer = blocked
    assert consumer.terminate() == 0
    assert map_of(setup).runs == ((1, BEHIND + 1),)
    kochava.set_rules()
    consumer.start()
    wait_until(lambda: committed(setup).offset == BEHIND + 1, "the next one goes on")
    assert consumer.terminate() == 0
    assert kochava.duplicates() == 0


def test_a_member_that_joins_takes_the_map_over(blocked: tuple[Setup, SandboxProcess, ConsumerProcess]) -> None:
    setup, kochava, consumer = blocked
    wait_until(lambda: map_of(setup).runs == ((1, BEHIND + 1),), "the map is committed")
    kochava.set_rules()
    with setup.consumer("second") as second:
        wait_until(lambda: second.probe("/readyz")[0] == 200, "it has joined")
        assert consumer.terminate() == 0
        wait_until(lambda: committed(setup).offset == BEHIND + 1, "it goes on")
        assert second.terminate() == 0
    assert kochava.duplicates() == 0


def test_a_reset_drops_the_map_and_sends_again_what_was_asked_for(
    blocked: tuple[Setup, SandboxProcess, ConsumerProcess],
) -> None:
    setup, kochava, consumer = blocked
    assert consumer.terminate() == 0
    kochava.set_rules()
    setup.kafka.alter_offsets(setup.group, [TopicPartition(setup.topic, 0, 0)])  # the same position, on purpose
    consumer.start()
    wait_until(lambda: committed(setup).offset == BEHIND + 1, "everything from 0 on")
    assert consumer.terminate() == 0
    assert kochava.duplicates() == BEHIND


@pytest.mark.parametrize("metadata", ["node-17/thread-3", "10006AAAAAA", "1" * 3000])
def test_metadata_of_others_is_ignored(setup: Setup, kochava: SandboxProcess, metadata: str) -> None:
    setup.create_topics(partitions=1)
    setup.kafka.produce(setup.topic, [value for _, value in events(20)])
    setup.kafka.alter_offsets(setup.group, [TopicPartition(setup.topic, 0, 5, metadata)])
    assert "metadata ignored" in run(setup, "offsets", "show").stdout
    with setup.consumer() as consumer:
        wait_until(lambda: len(kochava.accepted()) == 15, "all from the position on")
        assert consumer.metric("kochava_offset_maps_ignored_total") == 1
        assert consumer.terminate() == 0


SPAN = 2_000
"""Offsets beyond the blocking one, in the next test."""


def test_what_blocks_is_parked_on_the_retry_topic_before_its_partition_stops(
    setup: Setup, kochava: SandboxProcess
) -> None:
    """An event waits a minute for its next try while two spans pass behind it."""
    setup.create_topics(partitions=1)
    setup.environment |= {
        "KOCHAVA_CONSUMER_DELIVERY__MAX_SPAN_RECORDS": str(SPAN),
        "KOCHAVA_CONSUMER_DELIVERY__RETRY_BUDGET_S": "100",
        "KOCHAVA_CONSUMER_DELIVERY__DRAIN_TIMEOUT_S": "110",
    }
    busy = {"status": 503, "headers": {"Retry-After": "60"}}
    kochava.set_rules({"match": {"id_prefix": "blocker-", "first_tries": 1}, "do": busy})
    made = events(1, "blocker-") + events(SPAN * 2)
    with setup.consumer() as consumer:
        setup.kafka.produce(setup.topic, [made[0][1]])
        wait_until(lambda: kochava.requests == 1, "its first try is answered")
        feed_evenly(setup, [value for _, value in made[1:]], SPAN // 4)
        wait_until(lambda: kochava.accepted() == {event_id for event_id, _ in made}, "all are delivered, it too")
        wait_until(lambda: committed(setup).offset == len(made), "and passed")
        assert consumer.logged("consumer.stalled") == [], "its partition was read all the time"
        assert consumer.terminate() == 0
    (parked,) = setup.kafka.read_all(setup.tier(setup.tiers[0]))
    assert (parked.value, parked.headers["kochava-reason"]) == (made[0][1], "blocking")
    assert parked.headers["kochava-attempts"] == "1"
    assert kochava.duplicates() == 0
