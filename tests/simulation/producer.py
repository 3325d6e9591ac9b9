"""The client's `Producer` and `AdminClient`, as far as the product calls them.

tests/contract/test_producer_semantics.py holds the producer against the real one.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from zlib import crc32

from confluent_kafka import KafkaError, KafkaException

from consumer.core.record import Headers, Partition
from tests.simulation.broker import Broker
from tests.simulation.network import Connection

QUEUE_RECORDS = 100

Reported = Callable[[KafkaError | None, None], None]


class FakeProducer:
    """Idempotent: a record is appended once. What becomes of the report is another matter."""

    def __init__(self, broker: Broker, conf: dict[str, Any], connection: Connection) -> None:
        self._broker = broker
        self._world = broker.world
        self._timeout_s = conf["delivery.timeout.ms"] / 1000
        self._max_bytes: int = conf["message.max.bytes"]
        self._connection = connection
        self._reports: deque[Callable[[], None]] = deque()
        self._outstanding: dict[int, Reported] = {}
        self._number = 0
        self.is_full = False
        """The local queue takes nothing."""
        self.lost_reports = 0.0
        """The share of records whose report says that they timed out, although the broker has them."""
        self.fatal: KafkaError | None = None
        self.carries: object = None
        """Goes with the next record to whoever watches the broker."""

    def produce(
        self, topic: str, *, value: bytes | None, key: bytes | None, headers: list[Any], on_delivery: Reported
    ) -> None:
        if self.is_full or len(self._outstanding) + len(self._reports) >= QUEUE_RECORDS:
            raise BufferError("Local: Queue full")
        if len(key or b"") + len(value or b"") > self._max_bytes:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self._number += 1
        number = self._number
        self._outstanding[number] = on_delivery
        if self.fatal is not None:
            self._report(number, self.fatal)
            return
        partitions = self._broker.partitions_of(topic)
        if partitions:
            partition = partitions[crc32(key or b"") % len(partitions)]
            self._connection.send(partial(self._arrive, number, partition, key, value, tuple(headers), self.carries))
        else:
            unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            self._connection.send(lambda: self._connection.answer(partial(self._report, number, unknown)))
        self._world.after(self._timeout_s, partial(self._report, number, KafkaError(KafkaError._MSG_TIMED_OUT)))

    def _arrive(
        self,
        number: int,
        partition: Partition,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        carries: object,
    ) -> None:
        if number not in self._outstanding and not self._connection.is_dead:
            return  # given up before it could be sent
        if partition.topic in self._broker.refused_topics:
            error: KafkaError | None = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
        elif len(key or b"") + len(value or b"") > self._broker.max_record_bytes.get(partition.topic, self._max_bytes):
            error = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
        else:
            error = None
            self._broker.append(partition, key, value, headers, carries)
            if self._world.is_likely(self.lost_reports):
                error = KafkaError(KafkaError._MSG_TIMED_OUT)
        self._connection.answer(partial(self._report, number, error))

    def _report(self, number: int, error: KafkaError | None) -> None:
        reported = self._outstanding.pop(number, None)
        if reported is not None:
            self._reports.append(partial(reported, error, None))

    def poll(self, timeout: float) -> int:
        assert timeout == 0, "the event loop never waits"
        count = len(self._reports)
        while self._reports:
            self._reports.popleft()()
        return count

    def purge(self) -> None:
        for number in [*self._outstanding]:
            self._report(number, KafkaError(KafkaError._PURGE_QUEUE))


class FakeAdmin:
    """Knows which topics exist."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def list_topics(self, topic: str, timeout: float) -> Any:
        world = self._broker.world
        world.sleep(world.random.uniform(0.001, 0.01))
        partitions = {at.number: None for at in self._broker.partitions_of(topic)}
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=partitions)})
