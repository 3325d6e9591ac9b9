"""Where a group stands on its topics, looked at from outside: it joins nothing and changes nothing."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.kafka_client import make_client
from consumer.core.offset_map import OffsetMap, UnreadableMapError, decode
from consumer.core.record import Partition
from consumer.errors import KafkaFatalError

TIMEOUT_S = 10.0


class Standing(NamedTuple):
    """A group on one partition. Offsets; `committed` is None where the group has no commit."""

    partition: Partition
    low: int
    committed: int | None
    high: int
    map: OffsetMap
    map_problem: str | None
    """Why the commit's metadata is no map of ours, if it has some."""

    @property
    def lag(self) -> int | None:
        """Records from the commit to the end, those that are settled already not counted; gaps of the log are."""
        return None if self.committed is None else max(0, self.high - max(self.low, self.committed) - self.settled)

    @property
    def settled(self) -> int:
        """Offsets beyond the commit that are settled."""
        return sum(run.end - run.first for run in self.map.runs)

    @property
    def blocking(self) -> int | None:
        """The offset that holds the commit while others beyond it are settled."""
        return self.committed if self.map.runs else None


def standing(conf: dict[str, Any], group_id: str, topics: Sequence[str]) -> list[Standing]:
    """Look at *group_id* on each partition of those *topics* that exist.

    Raises:
        KafkaFatalError: no broker answered, or it refused.
    """
    consumer = make_client(Consumer, {**conf, "group.id": group_id, "enable.auto.commit": False, "log_level": 0})
    try:
        partitions = [at for topic in topics for at in _partitions(consumer, topic)]
        return [_look(consumer, at) for at in consumer.committed(partitions, timeout=TIMEOUT_S)] if partitions else []
    except KafkaException as error:
        raise KafkaFatalError(
            f"cannot look at group {group_id!r} on {conf['bootstrap.servers']}: {error.args[0].name()}. "
            "`kochava-consumer check` says more."
        ) from None
    finally:
        consumer.close()


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    metadata = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaException(metadata.error)
    return [TopicPartition(topic, number) for number in sorted(metadata.partitions)]


def _look(consumer: Consumer, at: TopicPartition) -> Standing:
    if at.error is not None:
        raise KafkaException(at.error)
    partition = Partition(at.topic, at.partition)
    low, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout=TIMEOUT_S, cached=False)
    if at.offset < 0:
        return Standing(partition, low, None, high, OffsetMap(), None)
    return Standing(partition, low, at.offset, high, *_read_map(at, high))


def _read_map(at: TopicPartition, high: int) -> tuple[OffsetMap, str | None]:
    """Read what was committed with *at*, and say why it is no map of ours, if it isn't."""
    try:
        text = at.metadata or ""
    except Exception:  # noqa: BLE001 - the client reads the text of others into foreign memory: seen, UnicodeDecodeError
        return OffsetMap(), "unreadable"
    try:
        return decode(text, at.offset, high), None
    except UnreadableMapError as error:
        return OffsetMap(), str(error)
