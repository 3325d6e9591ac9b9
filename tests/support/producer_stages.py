"""Where a test of the producer's ways is played: the simulation's fake, or the real client on a real Apache Kafka."""

import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from consumer.core.record import Partition
from tests.simulation.broker import Broker, Message
from tests.simulation.network import Connection
from tests.simulation.producer import QUEUE_RECORDS, FakeProducer
from tests.simulation.world import World
from tests.support.kafka import RealKafka, free_port

WAIT_S = 30.0
PARTITIONS = 2
GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Settings of a broker that can refuse a topic."""
CONF = {
    "enable.idempotence": True,
    "linger.ms": 5,
    "delivery.timeout.ms": 20_000,
    "message.max.bytes": 50_000,
    "queue.buffering.max.messages": QUEUE_RECORDS,
    "topic.metadata.propagation.max.ms": 500,  # for so long an unknown topic may be one that is just made
    "log_level": 0,
}
_NUMBERS = itertools.count(1)

Found = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]] | None]
"""One stored record: partition, key, value and headers."""


class Stage(Protocol):
    """One topic of two partitions."""

    topic: str

    def make_client(self, *, is_away: bool = False, **conf: Any) -> Any:
        """Return a producer; for one that *is_away* there are no brokers."""

    def limit(self, size: int) -> None:
        """Let the topic take no record of more bytes."""

    def refuse(self) -> None:
        """Take from clients the right to write to the topic."""

    def stored(self) -> list[Found]:
        """Return all records of the topic, by partition in order."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...
    def end(self) -> None: ...


class FakeStage:
    topic = "events"

    def __init__(self, seed: int) -> None:
        self._world = World(seed)
        self._broker = Broker(self._world)
        self._broker.create_topic(self.topic, PARTITIONS)

    def make_client(self, *, is_away: bool = False, **conf: Any) -> FakeProducer:
        self._broker.is_away = is_away
        return FakeProducer(self._broker, {**CONF, **conf}, Connection(self._broker, lambda: 0.0))

    def limit(self, size: int) -> None:
        self._broker.max_record_bytes[self.topic] = size

    def refuse(self) -> None:
        self._broker.refused_topics.add(self.topic)

    def stored(self) -> list[Found]:
        logs = [self._broker.logs[Partition(self.topic, number)] for number in range(PARTITIONS)]
        return [_found(record) for log in logs for record in log.records.values()]

    def now(self) -> float:
        return self._world.now

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)

    def end(self) -> None:
        self._world.end()


def _found(record: Message) -> Found:
    return record.partition(), record.key(), record.value(), record.headers()


class RealStage:
    """The real client on a real broker, whose settings are GUARDED."""

    def __init__(self, kafka: RealKafka) -> None:
        self.topic = f"producer-semantics-{next(_NUMBERS)}"
        self._kafka = kafka
        kafka.create_topic(self.topic, PARTITIONS)

    def make_client(self, *, is_away: bool = False, **conf: Any) -> Producer:
        servers = f"127.0.0.1:{free_port()}" if is_away else self._kafka.bootstrap_servers
        return Producer({"bootstrap.servers": servers, **CONF, **conf})

    def limit(self, size: int) -> None:
        self._kafka.configure_topic(self.topic, max_message_bytes=str(size))

    def refuse(self) -> None:
        self._set_right(AclOperation.WRITE, AclPermissionType.DENY)
        self._set_right(AclOperation.READ, AclPermissionType.ALLOW)  # or the test itself could not look

    def _set_right(self, operation: AclOperation, right: AclPermissionType) -> None:
        acl = AclBinding(
            ResourceType.TOPIC, self.topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, right
        )
        for future in self._kafka.admin.create_acls([acl]).values():
            future.result(30)

    def stored(self) -> list[Found]:
        found = sorted(self._kafka.read_all(self.topic), key=lambda each: (each.partition, each.offset))
        return [(each.partition, each.key, each.value, each.raw_headers) for each in found]

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def end(self) -> None:
        pass


class Writer:
    """A producer that is used as the product uses it, and what it reported."""

    def __init__(self, stage: Stage, *, is_away: bool = False, **conf: Any) -> None:
        self.stage = stage
        self.reports: list[str | None] = []
        """Names of errors, None where the broker has the record; in the order in which they came."""
        self.client = stage.make_client(is_away=is_away, **conf)

    def produce(
        self,
        value: bytes | None,
        *,
        key: bytes | None = b"key",
        headers: list[tuple[str, bytes | None]] | None = None,
        topic: str | None = None,
    ) -> None:
        self.client.produce(
            topic or self.stage.topic, value=value, key=key, headers=headers or [], on_delivery=self._reported
        )

    def _reported(self, error: KafkaError | None, _message: object) -> None:
        self.reports.append(error and error.name())

    def poll_until(self, holds: Callable[[], object]) -> None:
        deadline = self.stage.now() + WAIT_S
        while not holds():
            assert self.stage.now() < deadline, self.reports
            self.client.poll(0)
            self.stage.sleep(0.01)

    def poll_until_reported(self, count: int) -> list[str | None]:
        """Return what was reported as soon as there are *count* reports."""
        self.poll_until(lambda: len(self.reports) >= count)
        return self.reports
