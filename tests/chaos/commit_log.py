"""Every commit of a group, read from `__consumer_offsets` itself: asking for the committed offsets misses some.

Records of key version 0 or 1 are commits; see OffsetCommitKey.json and OffsetCommitValue.json in Apache Kafka. From
value version 4 on the format is the flexible one: the metadata has its length plus one as a varint before it.
"""

import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.support.kafka_client import KafkaClient

TOPIC = "__consumer_offsets"


class Commit(NamedTuple):
    """One commit of one partition, as the coordinator wrote it down. `at_ms` is the broker's clock."""

    at_ms: int
    topic: str
    partition: int
    offset: int
    metadata: str


def read_commits(kafka: KafkaClient, group: str) -> list[Commit]:
    """Return the commits of *group* in the order in which they were made; deletions are left out."""
    found = []
    for record in kafka.read_all(TOPIC):
        key = _key(record.key or b"")
        if key is not None and key[0] == group and record.value is not None:
            found.append(_value(record.value, key[1], key[2]))
    return found


class CommitWatch:
    """Where there is no log: the commits of *group* as somebody sees them who asks all the time. It misses some.

    A commit is noted with the time of the answer in which it was first seen.
    """

    LOOK_S = 0.05

    def __init__(self, bootstrap_servers: str, group: str, partitions: Sequence[tuple[str, int]]) -> None:
        self._conf = {"bootstrap.servers": bootstrap_servers, "group.id": group, "log_level": 0}
        self._partitions = partitions
        self._seen: dict[tuple[str, int], tuple[int, str]] = {}
        self._found: list[Commit] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> list[Commit]:
        """Stop looking."""
        self._is_over.set()
        self._thread.join(30)
        return self._found

    def _look(self) -> None:
        consumer = Consumer(self._conf)
        while not self._is_over.wait(self.LOOK_S):
            with suppress(KafkaException):
                asked = [TopicPartition(*at) for at in self._partitions]
                answer = consumer.committed(asked, timeout=5)
                now_ms = time.time_ns() // 1_000_000
                for at in answer:
                    if at.error is None and at.offset >= 0:
                        self._note(Commit(now_ms, at.topic, at.partition, at.offset, (at.metadata or "").rstrip("\0")))
        consumer.close()

    def _note(self, commit: Commit) -> None:
        at = (commit.topic, commit.partition)
        if self._seen.get(at) != (commit.offset, commit.metadata):
            self._seen[at] = (commit.offset, commit.metadata)
            self._found.append(commit)


def _key(raw: bytes) -> tuple[str, str, int] | None:
    (version,) = struct.unpack_from(">h", raw)
    if version > 1:
        return None
    group, at = _string(raw, 2)
    topic, at = _string(raw, at)
    return group, topic, struct.unpack_from(">i", raw, at)[0]


def _value(raw: bytes, topic: str, partition: int) -> Commit:
    (version,) = struct.unpack_from(">h", raw)
    assert 1 <= version <= 4, f"an unknown version of OffsetCommitValue: {version}"
    (offset,) = struct.unpack_from(">q", raw, 2)
    at = 10 + (4 if version >= 3 else 0)  # the leader epoch
    if version >= 4:
        length, at = _varint(raw, at)
        metadata, at = raw[at : at + length - 1].decode(), at + length - 1
    else:
        metadata, at = _string(raw, at)
    (at_ms,) = struct.unpack_from(">q", raw, at)
    return Commit(at_ms, topic, partition, offset, metadata.rstrip("\0"))


def _string(raw: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", raw, at)
    return raw[at + 2 : at + 2 + length].decode(), at + 2 + length


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
