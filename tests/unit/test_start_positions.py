"""Where partitions start: what a real broker shows seldom."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters import kafka_positions
from consumer.adapters.clock import SystemClock
from consumer.adapters.kafka_positions import StartPositions
from consumer.core.offset_map import OffsetMap, Run, encode
from consumer.core.record import Partition
from consumer.errors import KafkaFatalError, OffsetsLostError
from consumer.telemetry import Metrics

HERE = [TopicPartition("in-app-events", 0)]
OURS = ["retry", "held", "dead-letter"]
NEVER = 1_000


class Cluster:
    """A broker and its group: a commit appears at one call, and a record on a topic of ours at another."""

    def __init__(self, commit_at: int, record_at: int) -> None:
        self.calls = 0
        self._commit_at = commit_at
        self._record_at = record_at

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.calls += 1
        # another partition's: the one that is asked for has none
        offset = 5 if self.calls >= self._commit_at and len(partitions) > 1 else OFFSET_INVALID
        return [TopicPartition(at.topic, at.partition, offset) for at in partitions]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        self.calls += 1
        return (0, 1) if at.topic == "dead-letter" and self.calls >= self._record_at else (0, 0)

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        self.calls += 1
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=[0, 1])})

    def resolve(self, monkeypatch: pytest.MonkeyPatch) -> kafka_positions.Starts | None:
        monkeypatch.setattr(kafka_positions, "AdminClient", lambda _conf: self)
        return positions(60, []).resolve(cast("Consumer", self), HERE, is_stopping=lambda: False)


class Unanswering:
    """A consumer whose coordinator is away."""

    asked = 0

    def committed(self, *_: object, **__: object) -> list[TopicPartition]:
        self.asked += 1
        raise KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS))


def positions(budget_s: float, waits: list[float], metrics: Metrics | None = None) -> StartPositions:
    nowhere: dict[str, Any] = {}
    return StartPositions(
        group_id="kochava", source_topics=["in-app-events"], our_topics=OURS, start="earliest", budget_s=budget_s,
        clock=SystemClock(), pause=waits.append, admin_conf=nowhere, max_span_records=1000,
        metrics=metrics or Metrics(),
    )  # fmt: skip


def test_a_stop_ends_the_wait_for_committed_offsets() -> None:
    """Else a process that joins while the coordinator is away is ended by force."""
    consumer, waits = Unanswering(), list[float]()
    answer = positions(60, waits).resolve(cast("Consumer", consumer), HERE, is_stopping=lambda: consumer.asked == 3)
    assert answer is None
    assert len(waits) == 2


def test_what_was_committed_is_asked_again_after_any_error() -> None:
    """Seen by the chaos suite: while an end of a log was waited for, another member had committed 1251."""

    class Recovering(Committed):
        ends = iter([KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION)), (0, 200)])

        def committed(self, partitions: list[TopicPartition], timeout: float) -> list[object]:
            answer = super().committed(partitions, timeout)
            self.offset += 51
            return answer

        def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
            end = next(self.ends)
            if isinstance(end, Exception):
                raise end
            return cast("tuple[int, int]", end)

    consumer = Recovering("map")
    starts = positions(60, []).resolve(cast("Consumer", consumer), HERE, is_stopping=lambda: False)
    assert starts is not None
    assert starts.partitions[0].offset == 151


def test_an_error_is_never_read_as_no_offset() -> None:
    with pytest.raises(KafkaFatalError, match="COORDINATOR_LOAD_IN_PROGRESS"):
        positions(0, []).resolve(cast("Consumer", Unanswering()), HERE, is_stopping=lambda: False)


@pytest.mark.parametrize("moment", range(30))
def test_a_first_commit_and_record_of_the_other_reader_are_no_forgotten_group(
    moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excludes looking for commits first and for records then: both may come in between."""
    starts = Cluster(commit_at=moment, record_at=moment + 1).resolve(monkeypatch)
    assert starts is not None
    assert starts.partitions[0].offset == 0


def test_records_of_ours_and_no_commit_are_a_forgotten_group(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OffsetsLostError, match="forgotten"):
        Cluster(commit_at=NEVER, record_at=0).resolve(monkeypatch)


def test_a_group_without_any_trace_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Cluster(commit_at=NEVER, record_at=NEVER).resolve(monkeypatch)
    assert starts is not None
    assert starts.is_new_group
    assert starts.fresh == {Partition("in-app-events", 0)}


class Committed:
    """A broker with one commit at 100, the end of the log at 200, and any metadata."""

    offset = 100

    def __init__(self, metadata: object) -> None:
        self._metadata = metadata

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[object]:
        class Answer(SimpleNamespace):
            @property
            def metadata(answer: Any) -> str | None:
                if isinstance(self._metadata, Exception):
                    raise self._metadata
                return cast("str | None", self._metadata)

        return [Answer(topic=at.topic, partition=at.partition, offset=self.offset, error=None) for at in partitions]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        return 0, 200


@pytest.mark.parametrize(
    ("metadata", "runs", "ignored"),
    [
        (None, (), {}),
        ("", (), {}),
        (encode(100, [Run(101, 200)])[0], (Run(101, 200),), {}),
        (encode(100, [Run(101, 150)])[0] + "V\x7f foreign memory", (Run(101, 150),), {}),
        (encode(99, [Run(101, 150)])[0], (), {("checksum",): 1}),
        (encode(100, [Run(101, 201)])[0], (), {("span",): 1}),
        ("node-17", (), {("foreign",): 1}),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), (), {("unreadable",): 1}),
    ],
)
def test_metadata_is_a_map_or_is_ignored_and_counted(
    metadata: object, runs: tuple[Run, ...], ignored: dict[tuple[str], int]
) -> None:
    metrics = Metrics()
    found = positions(60, [], metrics).resolve(cast("Consumer", Committed(metadata)), HERE, lambda: False)
    assert found is not None
    assert [at.offset for at in found.partitions] == [100]
    assert found.maps.get(Partition("in-app-events", 0), OffsetMap()).runs == runs
    assert {labels: count for labels, count in metrics.offset_maps_ignored.values.items() if count} == ignored


class LongLog(Committed):
    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        return 0, 2**40


def test_a_map_that_passes_the_span_by_what_one_tick_reads_is_believed() -> None:
    """The span is looked at four times a second: a fast reader passes a short one many times over before it stops.

    Found by the simulation (seed 750): the map was ignored, and all that it covered was sent again.
    """
    text, _ = encode(100, [Run(101, 20_000)])
    found = positions(60, []).resolve(cast("Consumer", LongLog(text)), HERE, lambda: False)
    assert found is not None
    assert found.maps[Partition("in-app-events", 0)].runs == (Run(101, 20_000),)


def test_a_map_beyond_what_we_ever_keep_open_is_ignored() -> None:
    text, _ = encode(100, [Run(101, 2**31)])
    metrics = Metrics()
    found = positions(60, [], metrics).resolve(cast("Consumer", LongLog(text)), HERE, lambda: False)
    assert found is not None
    assert found.maps[Partition("in-app-events", 0)] == OffsetMap()
    assert metrics.offset_maps_ignored.values[("span",)] == 1
