"""Where a test of the client's ways is played: the simulation's fake, or a real Apache Kafka with the real client."""

import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, Producer, TopicPartition

from consumer.core.record import Partition
from tests.simulation.broker import Broker
from tests.simulation.consumer import FakeConsumer
from tests.simulation.coordinator import Commit
from tests.simulation.world import World
from tests.support.kafka import RealKafka

INTERVAL_S = 0.3
"""How often the client commits, here."""
WAIT_S = 30.0
_NUMBERS = itertools.count(1)


class Stage(Protocol):
    """One topic of two partitions, and one group that reads it."""

    topic: str
    protocol: str

    def make_client(self, conf: dict[str, Any]) -> Any:
        """Return a consumer of the group."""

    def produce(self, number: int, count: int) -> None:
        """Append to partition *number*."""

    def leave_a_gap(self, number: int) -> None:
        """Let offsets follow that hold no record."""

    def delete_before(self, number: int, offset: int) -> None:
        """Let retention take what lies before *offset*."""

    def committed(self, number: int) -> tuple[int, str]:
        """Return what is committed, seen from outside."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...
    def make_fatal(self, reader: "Reader") -> None:
        """Bring the client of *reader* into a state that it cannot leave."""

    def end(self) -> None: ...


class FakeStage:
    topic = "events"

    def __init__(self, seed: int, protocol: str) -> None:
        self.protocol = protocol
        self._world = World(seed)
        self._broker = Broker(self._world)
        self._broker.create_topic(self.topic, 2)
        self._group = self._broker.group("group")

    def make_client(self, conf: dict[str, Any]) -> FakeConsumer:
        return FakeConsumer(self._broker, {"group.id": "group", **conf})

    def produce(self, number: int, count: int) -> None:
        for _ in range(count):
            self._broker.append(Partition(self.topic, number), b"key", b"value")

    def leave_a_gap(self, number: int) -> None:
        self._broker.logs[Partition(self.topic, number)].skip(1)

    def delete_before(self, number: int, offset: int) -> None:
        self._broker.logs[Partition(self.topic, number)].delete_before(offset)

    def committed(self, number: int) -> tuple[int, str]:
        return self._group.commits.get(Partition(self.topic, number), Commit(OFFSET_INVALID, ""))

    def now(self) -> float:
        return self._world.now

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)

    def make_fatal(self, reader: "Reader") -> None:
        reader.client.become_fatal()

    def end(self) -> None:
        self._world.end()


class RealStage:
    """The real client on a real broker."""

    def __init__(self, kafka: RealKafka, protocol: str) -> None:
        self.protocol = protocol
        self.topic = f"semantics-{protocol}-{next(_NUMBERS)}"
        self._kafka = kafka
        kafka.create_topic(self.topic, 2)
        self._looking = Consumer({**self._conf(), "enable.auto.commit": False})
        self._twins: list[Reader] = []

    def _conf(self) -> dict[str, Any]:
        return {"bootstrap.servers": self._kafka.bootstrap_servers, "group.id": self.topic, "log_level": 0}

    def make_client(self, conf: dict[str, Any]) -> Consumer:
        own: dict[str, Any] = {"allow.auto.create.topics": False}
        if self.protocol == "classic":
            own |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 2000,
                    "heartbeat.interval.ms": 200}  # fmt: skip
        return Consumer({**self._conf(), **own, **conf})

    def produce(self, number: int, count: int) -> None:
        producer = Producer(
            {"bootstrap.servers": self._kafka.bootstrap_servers, "linger.ms": 1, "enable.idempotence": True}
        )
        for _ in range(count):
            producer.produce(self.topic, b"value", key=b"key", partition=number)
        assert producer.flush(30) == 0

    def leave_a_gap(self, number: int) -> None:
        producer = Producer({"bootstrap.servers": self._kafka.bootstrap_servers, "transactional.id": self.topic})
        producer.init_transactions()
        producer.begin_transaction()
        producer.produce(self.topic, b"aborted", partition=number)
        producer.flush(30)
        producer.abort_transaction()

    def delete_before(self, number: int, offset: int) -> None:
        for future in self._kafka.admin.delete_records([TopicPartition(self.topic, number, offset)]).values():
            future.result(30)

    def committed(self, number: int) -> tuple[int, str]:
        (found,) = self._looking.committed([TopicPartition(self.topic, number)], timeout=30)
        return found.offset, found.metadata or ""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def make_fatal(self, reader: "Reader") -> None:
        """Let another member come with the same static name: the broker fences the first."""
        twin = Reader(self, **{"group.instance.id": reader.instance_id})
        deadline = self.now() + WAIT_S
        while not twin.assigned and self.now() < deadline:
            twin.client.poll(0.05)
        self._twins.append(twin)

    def end(self) -> None:
        for twin in self._twins:
            twin.close()
        self._looking.close()


class Reader:
    """A member that starts where the group committed, else at 0, and notes what it is told."""

    def __init__(self, stage: Stage, *, assigns: bool = True, declines: bool = False, **conf: Any) -> None:
        self.stage = stage
        self.assigned: set[int] = set()
        self.told: list[tuple[str, list[tuple[int, int]]]] = []
        """Which callback, with partitions and offsets."""
        self.commits: list[tuple[str | None, dict[int, int]]] = []
        """Answers to commits: the error's name, and offsets by partition."""
        self.found: list[tuple[int, int]] = []
        """Records read: partition and offset."""
        self.errors: list[tuple[int, int, int]] = []
        """Error messages: code, partition and offset."""
        self.when_revoked: Callable[[Any, list[TopicPartition]], None] = lambda _client, _partitions: None
        self._assigns = assigns
        self._declines = declines
        self.instance_id = conf.get("group.instance.id", "")
        self.client = stage.make_client({
            "group.protocol": stage.protocol, "enable.auto.commit": True, "enable.auto.offset.store": False,
            "auto.offset.reset": "error", "auto.commit.interval.ms": round(INTERVAL_S * 1000),
            "on_commit": self._on_commit, **conf,
        })  # fmt: skip
        self.client.subscribe(
            [stage.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def at(self, number: int, *offset_and_metadata: Any) -> TopicPartition:
        return TopicPartition(self.stage.topic, number, *offset_and_metadata)

    def store(self, number: int, offset: int, metadata: str = "") -> None:
        self.client.store_offsets(offsets=[self.at(number, offset, metadata)])

    def move(self, number: int, offset: int) -> None:
        """Assign *number* anew, at *offset*."""
        self.client.incremental_unassign([self.at(number)])
        self.client.incremental_assign([self.at(number, offset)])

    def poll(self, timeout_s: float = 0.02) -> Any:
        message = self.client.poll(timeout_s)
        if message is not None:
            self._note(message)
        return message

    def _note(self, message: Any) -> None:
        if message.error() is not None:
            self.errors.append((message.error().code(), message.partition(), message.offset()))
        else:
            self.found.append((message.partition(), message.offset()))

    def offsets(self, number: int) -> list[int]:
        return [offset for partition, offset in self.found if partition == number]

    def close(self) -> None:
        self.client.close()

    # -- callbacks

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        failed = error or next((at.error for at in partitions if at.error is not None), None)
        self.commits.append((failed and failed.name(), {at.partition: at.offset for at in partitions}))

    def _on_assign(self, client: Any, partitions: list[TopicPartition]) -> None:
        self.told.append(("assign", [(at.partition, at.offset) for at in partitions]))
        self.assigned |= {at.partition for at in partitions}
        if self._declines:
            client.incremental_assign([])
        elif self._assigns:
            asked = [self.at(at.partition) for at in partitions]
            found = client.committed(asked, timeout=30) if asked else []
            client.incremental_assign([self.at(at.partition, max(at.offset, 0)) for at in found])

    def _on_revoke(self, client: Any, partitions: list[TopicPartition]) -> None:
        self.told.append(("revoke", [(at.partition, at.offset) for at in partitions]))
        self.when_revoked(client, partitions)
        self.assigned -= {at.partition for at in partitions}

    def _on_lost(self, _client: Any, partitions: list[TopicPartition]) -> None:
        self.told.append(("lost", [(at.partition, at.offset) for at in partitions]))
        self.assigned -= {at.partition for at in partitions}


def poll_until(holds: Callable[[], object], *readers: Reader) -> None:
    """Let *readers* poll until something holds."""
    stage = readers[0].stage
    deadline = stage.now() + WAIT_S
    while not holds():
        assert stage.now() < deadline, [(reader.told, reader.commits[-3:], reader.found[-3:]) for reader in readers]
        for reader in readers:
            reader.poll()


def poll_for(seconds: float, *readers: Reader) -> None:
    """Let *readers* poll for a time in which something must not happen."""
    stage = readers[0].stage
    ends = stage.now() + seconds
    while stage.now() < ends:
        for reader in readers:
            reader.poll()
