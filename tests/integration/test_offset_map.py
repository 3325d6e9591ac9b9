"""What was settled beyond the commit position is not sent again, whoever goes on and however the last one ended."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from consumer.core.offset_map import OffsetMap, decode
from tests.support.processes import ConsumerProcess, SandboxProcess, Setup, command as run, events, wait_until

pytestmark = pytest.mark.kafka

BEHIND = 10_000
LOCKED = "com.example.locked"
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
    return decode(at.metadata or "", max(at.offset, 0), BEHIND + 1)


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
