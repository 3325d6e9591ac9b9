"""What tests do with any Kafka: make topics, produce, read it all, look at a group and move its offsets."""

import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

EMPTY_S = 60.0
"""How long a group may take to become empty."""


def _knows_no_better(error: BaseException) -> bool:
    """Say whether a broker that came back a moment ago isn't yet what the metadata says, or they are of before."""
    return isinstance(error, KafkaException) and error.args[0].code() in {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    }


def _is_not_empty(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.NON_EMPTY_GROUP


_when_it_knows = retry(
    retry=retry_if_exception(_knows_no_better), stop=stop_after_delay(30), wait=wait_fixed(0.2), reraise=True
)


class Stored(NamedTuple):
    """One record, as a test looks at it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, str]
    timestamp_ms: int = 0
    raw_headers: list[tuple[str, bytes | None]] | None = None
    """As they are stored."""


class KafkaClient:
    """A client of the brokers at *bootstrap_servers*; topics are made with so many *replicas*."""

    def __init__(self, bootstrap_servers: str, replicas: int = 1) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.replicas = replicas

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def create_topic(self, name: str, partitions: int, **config: str) -> None:
        """Make a topic; `cleanup_policy="compact"` stands for `cleanup.policy`."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        for future in self.admin.create_topics([NewTopic(name, partitions, self.replicas, config=settings)]).values():
            future.result(30)

    def configure_topic(self, name: str, *, seconds: float = 30, **config: str) -> None:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in settings.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(seconds)

    def delete_topic(self, name: str) -> None:
        for future in self.admin.delete_topics([name]).values():
            future.result(30)

    def produce(self, topic: str, values: Iterable[bytes | None], **conf: object) -> None:
        """Produce *values*, keyed by their position, spread over the partitions."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "linger.ms": 5, **conf})
        for index, value in enumerate(values):
            producer.produce(topic, value, key=str(index).encode())
            producer.poll(0)
        assert producer.flush(30) == 0

    @_when_it_knows
    def is_stable(self, group: str, members: int) -> bool:
        """Say whether *group* has so many members, and no rebalance is under way."""
        found = self.admin.describe_consumer_groups([group])[group].result(10)
        return len(found.members) == members and bool(found.state == ConsumerGroupState.STABLE)

    @_when_it_knows
    def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return the low and high watermark of each partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "looking", "log_level": 0})
        try:
            numbers = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            return {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30, cached=False)
                for number in numbers
            }
        finally:
            consumer.close()

    @_when_it_knows
    def read_all(self, topic: str, *, seconds: float = 60) -> list[Stored]:
        """Return all committed records of *topic*, of which there are no more than can be read in *seconds*."""
        ends = {number: bounds for number, bounds in self.ends(topic).items() if bounds[1] > bounds[0]}
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap_servers, "group.id": "reading", "enable.auto.commit": False,
             "enable.partition.eof": True, "isolation.level": "read_committed", "auto.offset.reset": "error",
             "log_level": 0}
        )  # fmt: skip
        found: list[Stored] = []
        try:
            consumer.assign([TopicPartition(topic, number, bounds[0]) for number, bounds in ends.items()])
            finished: set[int] = set()
            deadline = time.monotonic() + seconds
            while len(finished) < len(ends):
                assert time.monotonic() < deadline, f"{topic} was not read to its end within {seconds:g} s"
                for message in consumer.consume(500, 0.2):
                    if (error := message.error()) is not None:
                        if error.code() != KafkaError._PARTITION_EOF:
                            raise KafkaException(error)
                        finished.add(message.partition())
                        continue
                    headers = {name: (text or b"").decode("utf-8", "replace") for name, text in message.headers() or ()}
                    found.append(
                        Stored(
                            topic,
                            message.partition(),
                            message.offset(),
                            message.key(),
                            message.value(),
                            headers,
                            message.timestamp()[1],
                            message.headers(),
                        )
                    )
        finally:
            consumer.close()
        return found

    @_when_it_knows
    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return the group's committed offsets.

        Not by the admin client: where the coordinator has moved, its list_consumer_group_offsets ends the process (it
        asks a consumer group for another one that it doesn't have; confluent-kafka 2.16.1).
        """
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": group, "log_level": 0})
        try:
            topics = consumer.list_topics(timeout=10).topics
            asked = [TopicPartition(name, number) for name, topic in topics.items() for number in topic.partitions]
            return {
                (at.topic, at.partition): at.offset for at in consumer.committed(asked, timeout=10) if at.offset >= 0
            }
        finally:
            consumer.close()

    def alter_offsets(self, group: str, offsets: Sequence[TopicPartition]) -> None:
        """Move the offsets of *group*, as soon as it is empty: a member that left while joining stays for a session."""
        deadline = time.monotonic() + EMPTY_S
        while True:
            asked = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, list(offsets))])
            errors = [at.error for at in asked[group].result(30).topic_partitions if at.error is not None]
            if not errors:
                return
            # the others come from a broker whose first group this is
            soon = {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
            assert {error.code() for error in errors} <= soon, errors
            assert time.monotonic() < deadline, errors
            time.sleep(0.2)

    @retry(retry=retry_if_exception(_is_not_empty), stop=stop_after_delay(30), wait=wait_fixed(0.2), reraise=True)
    def delete_group(self, group: str) -> None:
        """Delete *group*, once it is empty: a reader that was joining when its process ended is still expected."""
        self.admin.delete_consumer_groups([group])[group].result(30)
