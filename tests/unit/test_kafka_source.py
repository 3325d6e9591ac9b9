"""The Kafka thread where a broker answers only half of what it is asked."""

from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.adapters.clock import SystemClock
from consumer.adapters.kafka_source import KafkaSource, SourcePolicy
from consumer.core.assignment import Assignment
from consumer.core.budget import InFlightBudget
from consumer.core.parking import Parked, Parking
from consumer.core.record import Partition
from consumer.core.retry import RetryPlan
from consumer.telemetry import Metrics

if TYPE_CHECKING:
    from consumer.adapters.kafka_positions import StartPositions

PLAN = RetryPlan.of("e", ("30s",))
HELD = [Partition(PLAN.held_topic, number) for number in range(3)]


class Client:
    """Has two records on each held partition, and no answer for one of them."""

    def __init__(self, silent: Partition) -> None:
        self.silent = silent
        self.resumed: list[Partition] = []

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        if Partition(at.topic, at.partition) == self.silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 0, 2

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.resumed += [Partition(at.topic, at.partition) for at in partitions]


def source_of(client: Client, parking: Parking) -> KafkaSource:
    made = KafkaSource(
        conf={}, policy=SourcePolicy(PLAN.read_topics, 10, 0.1, 5.0, held_sweep_s=60.0),
        positions=cast("StartPositions", None), parking=parking, budget=InFlightBudget(10, 1000), metrics=Metrics(),
        clock=SystemClock(), ending=lambda: None, first_start=lambda: None,
    )  # fmt: skip
    loosely: Any = made
    loosely._consumer = client
    for partition in HELD:
        loosely._owned[partition] = Assignment(partition, 1, 0)
        parking.park(partition, Parked(0, None))
    return made


def test_a_sweep_that_gets_no_answer_for_one_partition_reads_those_that_it_began() -> None:
    """They were counted as being read but stayed paused, for ever. Found by the simulation (seed 129729)."""
    client, parking = Client(silent=HELD[1]), Parking(PLAN)
    source = source_of(client, parking)
    assert source._sweep(None)
    assert client.resumed == [HELD[0]]
    client.silent = Partition("none", 0)
    assert source._sweep(None), "the others at the next sweep"
    assert client.resumed == HELD
