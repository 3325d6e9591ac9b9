"""Paused partitions where a broker answers only half of what it is asked."""

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.clock import SystemClock
from consumer.adapters.kafka_pauses import Pauses
from consumer.core.assignment import Assignment
from consumer.core.parking import Parking
from consumer.core.record import Partition
from consumer.core.retry import RetryPlan

PLAN = RetryPlan.of("e", ("30s",))
HELD = [Partition(PLAN.held_topic, number) for number in range(3)]


class Client:
    """Has two records on each held partition, and no answer for one of them."""

    def __init__(self) -> None:
        self.silent: Partition | None = None
        self.running: set[Partition] = set()

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        if Partition(at.topic, at.partition) == self.silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 0, 2

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.running -= {Partition(at.topic, at.partition) for at in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.running |= {Partition(at.topic, at.partition) for at in partitions}


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_a_sweep_that_gets_no_answer_for_one_partition_reads_those_that_it_began(is_asked_for: bool) -> None:
    """They were counted as being read but stayed paused, for ever. Found by the simulation (seed 129729)."""
    client, failures = Client(), []
    owned = {partition: Assignment(partition, 1, 0) for partition in HELD}
    pauses = Pauses(cast("Consumer", client), owned, parking=Parking(PLAN), sweep_s=60, sweep_max_s=60,
                    clock=SystemClock(), failed=failures.append)  # fmt: skip
    for assignment in owned.values():
        pauses.begin(assignment)

    def sweep() -> None:
        if is_asked_for:
            pauses.sweep_asked_for(None)
        else:
            pauses._next_sweep = 0.0
            pauses.look(may_sweep=True)

    client.silent = HELD[1]
    sweep()
    assert client.running == {HELD[0]}
    assert len(failures) == 1
    client.silent = None
    sweep()
    assert client.running == {*HELD}, "the others at the next sweep"
