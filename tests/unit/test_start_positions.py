"""Where partitions start: what a real broker shows seldom."""

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.clock import SystemClock
from consumer.adapters.kafka_positions import StartPositions
from consumer.errors import KafkaFatalError

HERE = [TopicPartition("in-app-events", 0)]


class Unanswering:
    """A consumer whose coordinator is away."""

    asked = 0

    def committed(self, *_: object, **__: object) -> list[TopicPartition]:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS))


def positions(budget_s: float, waits: list[float]) -> StartPositions:
    nowhere: dict[str, Any] = {}
    return StartPositions(
        group_id="kochava", source_topics=["in-app-events"], our_topics=[], start="earliest", budget_s=budget_s,
        clock=SystemClock(), pause=waits.append, admin_conf=nowhere,
    )  # fmt: skip


def test_a_stop_ends_the_wait_for_committed_offsets() -> None:
    """Else a process that joins while the coordinator is away is ended by force."""
    consumer, waits = Unanswering(), list[float]()
    answer = positions(60, waits).resolve(cast("Consumer", consumer), HERE, is_stopping=lambda: consumer.asked == 3)
    assert answer is None
    assert len(waits) == 2


def test_an_error_is_never_read_as_no_offset() -> None:
    with pytest.raises(KafkaFatalError, match="COORDINATOR_LOAD_IN_PROGRESS"):
        positions(0, []).resolve(cast("Consumer", Unanswering()), HERE, is_stopping=lambda: False)
