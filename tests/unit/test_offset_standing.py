"""What `offsets show` makes of a commit's metadata, whoever wrote it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, KafkaError, TopicPartition

from consumer.adapters import kafka_ages, kafka_offsets
from consumer.adapters.kafka_ages import Ages
from consumer.adapters.kafka_offsets import KafkaOffsets
from consumer.core.offset_map import Run, encode
from consumer.core.record import Partition
from consumer.core.standing import Commit, Standing

TOPIC = "in-app-events"
MAP, _ = encode(100, [Run(101, 150)])


class Committed:
    """A client whose group stands at 100 of 200; an exception for *metadata* is raised when somebody looks at it."""

    def __init__(self, metadata: object) -> None:
        self._metadata = metadata

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> Sequence[Any]:
        metadata = self._metadata

        class Answer(SimpleNamespace):
            @property
            def metadata(self) -> object:
                if isinstance(metadata, Exception):
                    raise metadata
                return metadata

        return [Answer(topic=at.topic, partition=at.partition, offset=100, error=None) for at in partitions]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        return 0, 200

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("metadata", "settled", "problem"),
    [
        (None, 0, None),
        (MAP, 49, None),
        (f"{MAP}and what lies behind it in memory", 49, None),
        ("node-17", 0, "foreign"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 0, "unreadable"),
        (SystemError("bad argument to internal function"), 0, "unreadable"),
        (MemoryError(), 0, "unreadable"),
    ],
)
def test_metadata_is_a_map_or_is_ignored_and_said(
    metadata: object, settled: int, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_offsets, "make_client", lambda _kind, _conf: Committed(metadata))
    with KafkaOffsets({"bootstrap.servers": "nowhere"}, "group") as offsets:
        (shown,) = offsets.standing([TOPIC])
    assert (shown.committed, shown.settled, shown.map_problem) == (100, settled, problem)
    assert shown.commit == Commit(100, MAP if settled else "", problem is not None), "what others wrote is not kept"
    assert shown.lag == 100 - settled


class Record:
    """What the client returns for a record, or for the end of a partition."""

    def __init__(self, number: int, time_ms: int | None = None, error: int | None = None) -> None:
        self._number, self._time_ms, self._error = number, time_ms, error

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self._number

    def timestamp(self) -> tuple[int, int]:
        return (TIMESTAMP_NOT_AVAILABLE, -1) if self._time_ms is None else (TIMESTAMP_CREATE_TIME, self._time_ms)

    def error(self) -> KafkaError | None:
        return None if self._error is None else KafkaError(self._error)


class Reading:
    """A client that returns these, and then nothing."""

    def __init__(self, *records: Record | None) -> None:
        self.left = list(records)
        self.assigned: list[tuple[int, int]] = []

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned += [(at.partition, at.offset) for at in partitions]

    def poll(self, seconds: float) -> Record | None:
        return self.left.pop(0) if self.left else None

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        pass

    def unassign(self) -> None:
        pass


def at(number: int, committed: int | None, low: int = 0, high: int = 200) -> Standing:
    return Standing(Partition(TOPIC, number), low, committed, high)


def ages_of(reading: Reading, *found: Standing) -> dict[int, float]:
    return {partition.number: age for partition, age in Ages(reading, lambda: 1_000.0).of(found).items()}


def test_the_lag_in_time_is_the_age_of_the_first_record_from_the_commit_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_ages, "BUDGET_S", 0.2)
    reading = Reading(
        None,
        Record(0, 400_000),
        Record(0, 900_000),  # its second one was on its way already
        Record(1, 1_000_500),  # a clock that is ahead
        Record(2, error=KafkaError._PARTITION_EOF),  # only markers of a transaction are left
        Record(3),
        Record(4, error=KafkaError._AUTO_OFFSET_RESET),
    )
    found = [*(at(number, 100) for number in range(6)), at(6, 200), at(7, None), at(8, 5, low=9, high=9)]
    assert ages_of(reading, *found) == {0: 600.0, 1: 0.0, 2: 0.0, 6: 0.0, 8: 0.0}, "no record of 5 came in time"
    assert reading.assigned == [(number, 100) for number in range(6)], "where nothing can be, nothing is read"


def test_a_commit_before_the_log_is_read_from_where_the_log_begins() -> None:
    reading = Reading(Record(0, 400_000))
    assert ages_of(reading, at(0, 5, low=50)) == {0: 600.0}
    assert reading.assigned == [(0, 50)]


def test_a_record_is_read_once_while_it_is_the_next() -> None:
    reading = Reading(Record(0, 400_000), Record(0, 700_000))
    ages = Ages(reading, lambda: 1_000.0)
    partition = Partition(TOPIC, 0)
    assert [ages.of([at(0, 100)]), ages.of([at(0, 100)])] == [{partition: 600.0}] * 2
    assert ages.of([at(0, 101)]) == {partition: 300.0}
    assert reading.assigned == [(0, 100), (0, 101)]
