"""How old the record is that a group reads next, on each partition: the lag in time. Reads a record, keeps its time."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, TopicPartition

from consumer.core.record import Partition
from consumer.core.standing import Standing

BUDGET_S = 5.0
"""For all partitions together; what has not come by then is not known."""
POLL_S = 0.1
CONF: dict[str, Any] = {
    "enable.partition.eof": True,
    "queued.min.messages": 1,
    "fetch.queue.backoff.ms": 50,
    "max.partition.fetch.bytes": 16_384,  # one record is wanted; a larger one comes all the same
}
"""What the consumer needs for this."""


class Ages:
    """Asks *consumer*, which has no other assignment. A record's time is remembered for as long as it is the next."""

    def __init__(self, consumer: Consumer, now_s: Callable[[], float] = time.time) -> None:
        self._consumer = consumer
        self._now_s = now_s
        self._times_ms: dict[tuple[Partition, int], int] = {}

    def of(self, found: Iterable[Standing]) -> dict[Partition, float]:
        """Return the seconds for each of *found* that has a commit; 0 where no record waits, nothing where unknown."""
        places = {one.partition: max(one.low, one.committed) for one in found if one.committed is not None}
        ends = {one.partition: one.high for one in found}
        known = {place: time_ms for place in places.items() if (time_ms := self._times_ms.get(place)) is not None}
        empty = {partition for partition, offset in places.items() if offset >= ends[partition]}
        wanted = [place for place in places.items() if place not in known and place[0] not in empty]
        read, at_end = self._read(wanted) if wanted else ({}, set())
        self._times_ms = {**known, **read}
        now_ms = self._now_s() * 1000
        ages = {partition: max(0.0, now_ms - time_ms) / 1000 for (partition, _), time_ms in self._times_ms.items()}
        return {**dict.fromkeys(empty | at_end, 0.0), **ages}

    def _read(self, wanted: list[tuple[Partition, int]]) -> tuple[dict[tuple[Partition, int], int], set[Partition]]:
        """Return the time of the first record at each place, and the partitions that have none up to their end."""
        starts = dict(wanted)
        times_ms: dict[tuple[Partition, int], int] = {}
        at_end: set[Partition] = set()
        self._consumer.assign([TopicPartition(*partition, offset) for partition, offset in wanted])
        try:
            missing = set(starts)
            deadline = time.monotonic() + BUDGET_S
            while missing and time.monotonic() < deadline:
                message = self._consumer.poll(POLL_S)
                topic, number = (None, None) if message is None else (message.topic(), message.partition())
                if message is None or topic is None or number is None:  # an error of the client, not of a partition
                    continue
                partition = Partition(topic, number)
                if partition not in missing:  # what was on its way already
                    continue
                missing.discard(partition)
                if (error := message.error()) is None:
                    kind, time_ms = message.timestamp()
                    if kind != TIMESTAMP_NOT_AVAILABLE:
                        times_ms[partition, starts[partition]] = time_ms
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name for it
                    at_end.add(partition)
                self._consumer.incremental_unassign([TopicPartition(*partition)])
        finally:
            self._consumer.unassign()
        return times_ms, at_end
