"""When offsets and maps are committed: the client does it, but for maps whose position stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.kafka_commits import Commits
from consumer.core.assignment import Assignment, Position
from consumer.core.offset_map import OffsetMap, Run, encode
from consumer.core.record import Partition
from consumer.telemetry import Metrics

HERE = Partition("events", 0)
Said = tuple[int, str]


@dataclass
class Time:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return round(self.now * 1000)


class Client:
    """Keeps what it is given; commits of our own are answered when the test says so."""

    def __init__(self) -> None:
        self.stored: list[Said] = []
        self.committed_by_us: list[Said] = []
        self.refusal: KafkaError | None = None

    def store_offsets(self, offsets: Sequence[TopicPartition]) -> None:
        if self.refusal is not None:
            raise KafkaException(self.refusal)
        self.stored += [(at.offset, at.metadata) for at in offsets]

    def commit(self, offsets: Sequence[TopicPartition], *, asynchronous: bool) -> None:
        assert asynchronous, "the thread never waits for a map"
        if self.refusal is not None:
            raise KafkaException(self.refusal)
        self.committed_by_us += [(at.offset, at.metadata) for at in offsets]


class Bench:
    def __init__(self, before: OffsetMap = OffsetMap(), *, is_fresh: bool = False) -> None:  # noqa: B008 - immutable
        self.client = Client()
        self.time = Time()
        self.metrics = Metrics()
        self.commits = Commits(cast("Consumer", self.client), interval_s=1.0, metrics=self.metrics, clock=self.time)
        self.assignment = Assignment(HERE, 1, 10, before)
        self.commits.begin(self.assignment, is_fresh=is_fresh)

    def store(self, offset: int, metadata: str) -> None:
        self.commits.store([Position(self.assignment, offset, metadata)], {HERE: self.assignment})

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            self.time.now += 0.05
            self.commits.look()

    def answer(self, error: KafkaError | None = None, offset: int = 10) -> None:
        self.commits.answered(error, [TopicPartition(*HERE, offset)])


def test_a_start_that_the_broker_has_is_not_committed_again() -> None:
    """Seen by the chaos suite: a partition had gone to another member meanwhile, whose 1251 became 0 again."""
    bench = Bench(OffsetMap((Run(12, 20),), since_s=77))
    bench.wait(3)
    bench.commits.hand_over(lambda: pytest.fail("nothing to wait for"), bench.time.now + 3)
    assert bench.client.stored == bench.client.committed_by_us == []


def test_the_map_that_a_start_came_with_goes_on_with_what_settles() -> None:
    before = OffsetMap((Run(12, 20),), since_s=77)
    bench = Bench(before)
    for offset in (10, 11):
        bench.assignment.tracker.track(offset)
    bench.assignment.tracker.settle(11)
    bench.commits.store([bench.assignment.position(99)], {HERE: bench.assignment})
    assert bench.client.stored == [(10, encode(10, [Run(11, 20)], 77)[0])]


def test_a_start_that_was_resolved_is_left_to_the_client() -> None:
    """The broker has none: it is committed before anything is read."""
    assert Bench(is_fresh=True).client.stored == [(10, "")]


def test_progress_is_stored_and_left_to_the_client() -> None:
    bench = Bench()
    for offset in range(11, 41):
        bench.store(offset, f"map-{offset}")
        bench.wait(0.2)
    assert bench.client.stored == [(offset, f"map-{offset}") for offset in range(11, 41)]
    assert bench.client.committed_by_us == []


def test_a_position_that_stands_is_committed_with_its_map_once_per_interval() -> None:
    bench = Bench()
    for number in range(40):
        bench.store(10, f"map-{number}")
        bench.wait(0.1)
    said = bench.client.committed_by_us
    assert {offset for offset, _ in said} == {10}
    assert 3 <= len(said) <= 4
    bench.wait(2)
    assert bench.client.committed_by_us[-1] == (10, "map-39")
    done = len(bench.client.committed_by_us)
    bench.wait(5)
    assert len(bench.client.committed_by_us) == done, "nothing new, nothing to say"


def test_a_refused_map_is_said_again() -> None:
    bench = Bench()
    bench.store(10, "map")
    bench.wait(2)
    bench.answer(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
    bench.wait(2)
    assert bench.client.committed_by_us == [(10, "map")] * 2
    assert bench.metrics.offset_commits.values[("rebalance_in_progress",)] == 1


def test_a_map_that_the_client_would_not_take_is_said_again() -> None:
    bench = Bench()
    bench.store(10, "map")
    bench.client.refusal = KafkaError(KafkaError._STATE)
    bench.wait(2)
    bench.client.refusal = None
    bench.wait(2)
    assert bench.client.committed_by_us == [(10, "map")]


def test_nothing_moves_for_an_assignment_that_is_not_ours() -> None:
    bench = Bench()
    late = Assignment(HERE, 0, 10)
    bench.commits.store([Position(late, 50, "late")], {HERE: bench.assignment})
    bench.commits.store([Position(bench.assignment, 50, "gone")], {})
    assert bench.client.stored == []
    bench.store(12, "")
    bench.store(11, "back")
    assert bench.client.stored == [(12, "")], "never back"


def test_a_store_that_fails_is_tried_with_the_next_position() -> None:
    bench = Bench()
    bench.client.refusal = KafkaError(KafkaError._STATE)
    bench.store(11, "")
    bench.client.refusal = None
    bench.store(11, "")
    assert bench.client.stored == [(11, "")]


def test_an_old_commit_that_comes_last_is_made_good() -> None:
    """Seen by the chaos suite: commits that waited for a broker were repeated in another order, 66 after 678."""
    bench = Bench()
    for offset in (66, 678):
        bench.store(offset, f"map of {offset}")
    for offset in (66, 678):
        bench.answer(offset=offset)
    bench.answer(offset=OFFSET_INVALID)  # an answer names all that are ours
    bench.wait(3)
    assert bench.client.committed_by_us == [], "the client's own commits are in order"
    bench.answer(offset=66)
    bench.wait(3)
    assert bench.client.committed_by_us == [(678, "map of 678")], "once"
    bench.store(700, "")
    bench.answer(offset=678)
    bench.answer(offset=700)
    bench.answer(offset=678)
    bench.wait(3)
    assert bench.client.committed_by_us[1:] == [(700, "")]


def test_a_new_assignment_knows_nothing_of_commits_before_it() -> None:
    bench = Bench()
    bench.store(678, "")
    bench.answer(offset=678)
    bench.commits.forget(HERE)
    bench.commits.begin(Assignment(HERE, 2, 66), is_fresh=False)
    bench.answer(offset=66)
    bench.wait(3)
    assert bench.client.committed_by_us == []


@pytest.mark.parametrize("offset", [10, 11])
def test_what_is_stored_is_handed_over_before_the_group_is_left(offset: int) -> None:
    """Whether the position moved or only its map."""
    bench = Bench()
    bench.store(offset, "map")
    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        bench.time.now += 0.05
        if polls == 3:
            bench.answer(offset=offset)

    bench.commits.hand_over(poll, bench.time.now + 8)
    assert bench.client.committed_by_us == [(offset, "map")]
    assert 3 <= polls <= 4


def test_a_hand_over_that_is_refused_in_a_rebalance_is_made_again() -> None:
    """Seen in a rolling restart: it waited behind the request to join, and carried the generation before."""
    bench = Bench()
    bench.store(235, "")
    answers = iter([KafkaError(KafkaError.ILLEGAL_GENERATION), KafkaError(KafkaError.REBALANCE_IN_PROGRESS), None])

    def poll() -> None:
        bench.time.now += 0.05
        if bench.commits._unanswered:
            bench.answer(next(answers), offset=235)

    bench.commits.hand_over(poll, bench.time.now + 8)
    assert bench.client.committed_by_us == [(235, "")] * 3
    assert bench.time.now < 102


def test_a_hand_over_with_nothing_new_asks_nobody() -> None:
    bench = Bench()
    bench.store(12, "")
    bench.answer(offset=12)
    bench.commits.hand_over(lambda: pytest.fail("nothing to wait for"), bench.time.now + 8)
    assert bench.client.committed_by_us == []


def test_a_hand_over_without_an_answer_ends() -> None:
    bench = Bench()
    bench.store(10, "map")

    def poll() -> None:
        bench.time.now += 0.05

    bench.commits.hand_over(poll, bench.time.now + 3)
    assert 103 <= bench.time.now < 104
    assert bench.client.committed_by_us == [(10, "map")], "asked once: it is still on its way"


def test_a_hand_over_that_the_client_refuses_ends_at_once() -> None:
    bench = Bench()
    bench.store(10, "map")
    bench.client.refusal = KafkaError(KafkaError._FATAL)
    bench.commits.hand_over(lambda: pytest.fail("nothing to wait for"), bench.time.now + 3)


def test_a_forgotten_partition_is_not_committed() -> None:
    bench = Bench()
    bench.store(10, "map")
    bench.commits.forget(HERE)
    bench.wait(3)
    bench.commits.hand_over(lambda: pytest.fail("nothing to wait for"), bench.time.now + 3)
    assert bench.client.committed_by_us == []
