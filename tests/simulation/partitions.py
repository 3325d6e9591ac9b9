"""What the client knows of its partitions, and how records come: fetched ahead, thrown away by whatever moves them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from confluent_kafka import OFFSET_INVALID, KafkaError

from consumer.core.record import Partition
from tests.simulation.broker import Broker, Message
from tests.simulation.coordinator import Commit
from tests.simulation.network import Connection

PREFETCH_RECORDS = 20
FETCH_RECORDS = 8


@dataclass(eq=False)
class Toppar:
    """What the client knows of one partition. It outlives the assignment, and with it the pause does."""

    partition: Partition
    is_assigned: bool = False
    is_paused: bool = False
    version: int = 0
    """Grows with each assign, seek, pause and resume: what was fetched before is thrown away."""
    fetched: int = 0
    """The next offset to fetch."""
    position: int = 0
    """The next offset for the application."""
    queued: int = 0
    is_fetching: bool = False
    stored: Commit | None = None
    committed: int = OFFSET_INVALID


class Partitions:
    """The partitions of one client, and the queue of what was fetched of them.

    Args of the constructor:
        arrived: called when there is something new in the queue.
    """

    def __init__(self, broker: Broker, connection: Connection, arrived: Callable[[], None]) -> None:
        self._broker = broker
        self._world = broker.world
        self._connection = connection
        self._arrived = arrived
        self._queue: deque[tuple[Toppar, int, Message]] = deque()
        self.known: dict[Partition, Toppar] = {}

    @property
    def assigned(self) -> list[Partition]:
        return [at for at, toppar in self.known.items() if toppar.is_assigned]

    @property
    def has_records(self) -> bool:
        """Something is in the queue, if perhaps only what no longer counts."""
        return bool(self._queue)

    def __getitem__(self, partition: Partition) -> Toppar:
        if partition not in self.known:
            self.known[partition] = Toppar(partition)
        return self.known[partition]

    def assign(self, partition: Partition, offset: int) -> None:
        """Begin to read *partition* at *offset*, unless it is paused."""
        toppar = self[partition]
        toppar.is_assigned = True
        self.go_to(toppar, offset)

    def go_to(self, toppar: Toppar, offset: int) -> None:
        """Fetch from *offset* on; what was fetched before is thrown away."""
        toppar.version += 1
        toppar.fetched = toppar.position = offset
        toppar.queued = 0
        toppar.is_fetching = False
        self._fetch(toppar)

    def _fetch(self, toppar: Toppar) -> None:
        if toppar.is_assigned and not (toppar.is_paused or toppar.is_fetching or toppar.queued >= PREFETCH_RECORDS):
            toppar.is_fetching = True
            self._world.after(self._world.random.uniform(0.0005, 0.01), partial(self._fetched, toppar, toppar.version))

    def _fetched(self, toppar: Toppar, version: int) -> None:
        if version != toppar.version or self._connection.is_dead:
            return
        world = self._world
        if not self._connection.is_open or self._connection.is_held:
            world.after(0.1, partial(self._fetched, toppar, version))
            return
        log = self._broker.logs[toppar.partition]
        if not log.low <= toppar.fetched <= log.high:
            error = KafkaError(KafkaError._AUTO_OFFSET_RESET)
            self._queue.append((toppar, version, Message(toppar.partition, toppar.fetched, error=error)))
            self._arrived()
            return  # it stays assigned, and idle
        records, toppar.fetched = log.read(toppar.fetched, world.random.randint(1, FETCH_RECORDS))
        if not records:
            log.readers.append(partial(self._there_is_more, toppar, version))
            return
        self._queue.extend((toppar, version, record) for record in records)
        toppar.queued += len(records)
        toppar.is_fetching = False
        self._fetch(toppar)
        self._arrived()

    def _there_is_more(self, toppar: Toppar, version: int) -> None:
        if version == toppar.version:
            toppar.is_fetching = False
            self._fetch(toppar)

    def pop(self) -> Message | None:
        """Return the next record, or an error in its place; the position moves past it."""
        queue = self._queue
        while queue:
            toppar, version, message = queue.popleft()
            if version == toppar.version:
                if message.error() is None:
                    toppar.position = message.offset() + 1
                    toppar.queued -= 1
                    self._fetch(toppar)
                return message
        return None
