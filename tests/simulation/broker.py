"""A small Kafka in memory: logs with gaps. tests/contract/test_consumer_semantics.py holds it against a real one."""

from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError

from consumer.core.record import Headers, Partition
from tests.simulation.coordinator import Group
from tests.simulation.world import World


class Message:
    """A record, or an error in its place, as the client hands it out."""

    __slots__ = ("_error", "_headers", "_key", "_offset", "_partition", "_timestamp_ms", "_topic", "_value")

    def __init__(
        self,
        partition: Partition,
        offset: int,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int = -1,
        error: KafkaError | None = None,
    ) -> None:
        self._topic, self._partition = partition
        self._offset = offset
        self._key = key
        self._value = value
        self._headers = [*headers] or None
        self._timestamp_ms = timestamp_ms
        self._error = error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp_ms

    def error(self) -> KafkaError | None:
        return self._error


@dataclass
class Log:
    """One partition. Offsets that hold no record (compacted, control markers) are gaps."""

    partition: Partition
    low: int = 0
    high: int = 0
    records: dict[int, Message] = field(default_factory=dict)
    readers: list[Callable[[], None]] = field(default_factory=list)
    """Called once when there is something new."""

    def append(self, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int) -> int:
        offset = self.high
        self.high += 1
        self.records[offset] = Message(
            self.partition, offset, key=key, value=value, headers=headers, timestamp_ms=timestamp_ms
        )
        self._tell()
        return offset

    def skip(self, offsets: int) -> None:
        """Leave a gap."""
        self.high += offsets
        self._tell()

    def delete_before(self, low: int) -> None:
        """Let retention take what lies before *low*."""
        self.low = low
        for offset in [offset for offset in self.records if offset < low]:
            del self.records[offset]

    def read(self, offset: int, most: int) -> tuple[list[Message], int]:
        """Return up to *most* records from *offset* on, and where to read next."""
        found: list[Message] = []
        while offset < self.high and len(found) < most:
            record = self.records.get(offset)
            if record is not None:
                found.append(record)
            offset += 1
        return found, offset

    def _tell(self) -> None:
        readers, self.readers = self.readers, []
        for reader in readers:
            reader()


class Broker:
    """All logs and groups. While it `is_away`, nothing reaches it and no session runs out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.logs: dict[Partition, Log] = {}
        self.is_away = False
        self.on_append: list[Callable[[Message, object], None]] = []
        self.refused_topics: set[str] = set()
        self.max_record_bytes: dict[str, int] = {}
        """By topic."""
        self._groups: dict[str, Group] = {}

    def create_topic(self, topic: str, partitions: int) -> None:
        for number in range(partitions):
            self.logs[Partition(topic, number)] = Log(Partition(topic, number))

    def partitions_of(self, topic: str) -> list[Partition]:
        return [partition for partition in self.logs if partition.topic == topic]

    def group(self, name: str) -> Group:
        if name not in self._groups:
            self._groups[name] = Group(self.world, self.logs.keys())
        return self._groups[name]

    def append(
        self,
        partition: Partition,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        carries: object = None,
    ) -> int:
        """Append a record; who watches gets what it *carries*, too."""
        log = self.logs[partition]
        offset = log.append(key, value, headers, self.world.wall_ms())
        for watch in self.on_append:
            watch(log.records[offset], carries)
        return offset
