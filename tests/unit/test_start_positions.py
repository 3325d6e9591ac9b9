"""Where partitions start: what a real broker shows seldom."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
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
from consumer.ports import Clock
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


def positions(
    budget_s: float, waits: list[float], metrics: Metrics | None = None, start: str | datetime = "earliest",
    clock: Clock | None = None,
) -> StartPositions:  # fmt: skip
    nowhere: dict[str, Any] = {}
    return StartPositions(
        group_id="kochava", source_topics=["in-app-events"], our_topics=OURS, start=start, budget_s=budget_s,
        clock=clock or SystemClock(), pause=waits.append, admin_conf=nowhere, max_span_records=1000,
        metrics=metrics or Metrics(),
    )  # fmt: skip


def test_a_stop_ends_the_wait_for_committed_offsets() -> None:
    """Else a process that joins while the coordinator is away is ended by force."""
    consumer, waits = Unanswering(), list[float]()
    answer = positions(60, waits).resolve(cast("Consumer", consumer), HERE, is_stopping=lambda: consumer.asked == 3)
    assert answer is None
    assert len(waits) == 2


def test_a_stop_is_no_failure_even_when_the_budget_ends_with_it() -> None:
    """Seen by the chaos suite (one, 2003): an orderly end came out as code 4."""
    consumer = Unanswering()
    answer = positions(0, []).resolve(cast("Consumer", consumer), HERE, is_stopping=lambda: consumer.asked == 1)
    assert answer is None


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


ANSWER_S = 5.0


class Slow:
    """A broker that answers every request, `ANSWER_S` later, and is the clock of whoever waits.

    The group has a commit with metadata on each partition (`committed`), on none of ours but on others, so that we are
    a slower member of a new group (`slower`), or on none at all (`new`).
    """

    def __init__(self, state: str) -> None:
        self._state = state
        self.answers = 0

    def monotonic(self) -> float:
        return self.answers * ANSWER_S

    def wall_ms(self) -> int:
        return 10**12 + round(self.monotonic() * 1000)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.answers += 1
        has_commit = self._state == "committed" or (self._state == "slower" and len(partitions) > len(MANY))
        offset, metadata = (100, "node-17") if has_commit else (OFFSET_INVALID, "")
        return [TopicPartition(at.topic, at.partition, offset, metadata) for at in partitions]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        self.answers += 1
        return 0, 200 if at.topic == "in-app-events" else int(self._state == "slower")

    def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.answers += 1
        return [TopicPartition(at.topic, at.partition, 0 if at.offset <= 10**12 else -1) for at in asked]

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        self.answers += 1
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=range(len(MANY) + 1))})

    def resolve(
        self, monkeypatch: pytest.MonkeyPatch, budget_s: float, is_stopping: Callable[[], bool]
    ) -> kafka_positions.Starts | None:
        monkeypatch.setattr(kafka_positions, "AdminClient", lambda _conf: self)
        resolver = positions(budget_s, [], start="latest", clock=self)
        return resolver.resolve(cast("Consumer", self), MANY, is_stopping)


MANY = [TopicPartition("in-app-events", number) for number in range(6)]
STATES = ("committed", "slower", "new")
LAST = 2
"""What may still be asked, after the end has come: the second half of one question."""


@pytest.mark.parametrize("state", STATES)
def test_a_stop_ends_it_between_two_answers(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Excludes: it is looked at after errors alone, so that a slow broker holds up the end until it is forced."""
    whole = Slow(state)
    assert whole.resolve(monkeypatch, 10_000, lambda: False) is not None
    assert whole.answers > len(MANY)
    for moment in range(whole.answers - LAST):
        broker = Slow(state)
        assert broker.resolve(monkeypatch, 10_000, lambda: broker.answers >= moment) is None  # noqa: B023
        assert broker.answers <= moment + LAST


@pytest.mark.parametrize("state", STATES)
def test_the_budget_counts_answers_too(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Excludes: it is looked at after errors alone; a thread that waits for longer looks stuck, and is killed."""
    whole = Slow(state)
    whole.resolve(monkeypatch, 10_000, lambda: False)
    for moment in range(1, whole.answers - LAST):
        broker = Slow(state)
        with pytest.raises(KafkaFatalError, match="_TIMED_OUT"):
            broker.resolve(monkeypatch, (moment - 0.5) * ANSWER_S, lambda: False)
        assert broker.answers <= moment + LAST


DAY_MS = 86_400_000


class Group:
    """A group of two members, of which the other one was quicker: its commit is there, and its mark is or will be.

    The partition that is asked for has a record a minute since two days ago.
    """

    def __init__(self, mark_age_s: float | None, *, marked_after: int = 0) -> None:
        self._now_ms = SystemClock().wall_ms()
        self._mark_ms = None if mark_age_s is None else self._now_ms - round(mark_age_s * 1000)
        self._looks_left = marked_after
        self.has_failed = True

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(at.topic, at.partition, 5 if at.partition == 1 else OFFSET_INVALID) for at in partitions]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        if at.topic == "in-app-events":
            if not self.has_failed:
                self.has_failed = True
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            return 7, 2880
        if at.topic == "held" and at.partition == 0:
            self._looks_left -= 1
            return 0, int(self._mark_ms is not None and self._looks_left < 0)
        return 0, 0

    def offsets_for_times(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(at.topic, at.partition, self._since(at.topic, at.offset)) for at in asked]

    def _since(self, topic: str, moment_ms: int) -> int:
        if topic == "held":
            assert self._mark_ms is not None
            return 0 if moment_ms <= self._mark_ms else -1
        minutes = -(-(moment_ms - self._now_ms + 2 * DAY_MS) // 60_000)
        return minutes if minutes < 2880 else -1

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=[0, 1])})

    def moment(self, ago: timedelta) -> datetime:
        return datetime.fromtimestamp(self._now_ms / 1000, UTC) - ago

    def start(self, monkeypatch: pytest.MonkeyPatch, start: str | datetime) -> int:
        monkeypatch.setattr(kafka_positions, "AdminClient", lambda _conf: self)
        starts = positions(60, [], start=start).resolve(cast("Consumer", self), HERE, lambda: False)
        assert starts is not None
        return starts.partitions[0].offset


YESTERDAY = timedelta(days=1)
"""Ago, when a test runs: that may be long after this was imported."""


@pytest.mark.parametrize(
    ("start", "mark_age_s", "offset"),
    [
        ("latest", 150.0, 2878),  # as of two and a half minutes ago
        ("latest", 0.0, 2880),
        ("latest", 3600.0, 7),  # it came later
        ("latest", None, 7),  # nobody knows since when: rather all of it
        (YESTERDAY, 150.0, 1440),
        (YESTERDAY, 3600.0, 7),
        ("earliest", 150.0, 7),
    ],
)
def test_a_slower_member_of_a_new_group_starts_where_the_first_one_did(
    start: str | timedelta, mark_age_s: float | None, offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excludes: the other's first commit makes its partitions look like later ones, and all that is old is sent."""
    group = Group(mark_age_s)
    found = group.start(monkeypatch, group.moment(start) if isinstance(start, timedelta) else start)
    assert found in ({7} if offset == 7 else range(offset - 2, offset + 1)), "known to a second"


def test_the_mark_of_the_first_member_may_come_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Group(0.0, marked_after=3).start(monkeypatch, "latest") >= 2879


def test_a_commit_that_comes_after_an_error_changes_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Group):
        def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
            has_commit = self.has_failed and self.was_asked
            self.was_asked = True
            return (
                super().committed(partitions, timeout)
                if has_commit
                else [TopicPartition(at.topic, at.partition, OFFSET_INVALID) for at in partitions]
            )

        was_asked = False

    group = Later(None)
    group.has_failed = False
    assert group.start(monkeypatch, "latest") == 2880


def test_a_commit_that_another_member_made_meanwhile_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our fresh start would be stored, and could undo it."""

    class Moved(Group):
        asked = 0

        def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
            if len(partitions) > 1:
                return super().committed(partitions, timeout)
            self.asked += 1
            offset = 1251 if self.asked >= 2 else OFFSET_INVALID
            return [TopicPartition(at.topic, at.partition, offset) for at in partitions]

    assert Moved(3600.0).start(monkeypatch, "latest") == 1251
