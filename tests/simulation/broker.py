"""A small Kafka in memory: logs with gaps, and a group coordinator that knows members and epochs, but not who owns what.

It shows what a real one shows (tests/contract/test_consumer_semantics.py runs against both): a commit is judged by its
member and epoch alone, so an explicit commit of another's partition is accepted; a partition goes to its next owner
only when the last one has given it back, or is thought dead.
"""

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from confluent_kafka import KafkaError

from consumer.core.record import Headers, Partition
from tests.simulation.world import World

MAX_METADATA_BYTES = 4096


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


class Commit(NamedTuple):
    """The next offset to read, and its metadata."""

    offset: int
    metadata: str


class Client(Protocol):
    """A group member's end of the connection to its coordinator."""

    topics: frozenset[str]

    def told(self, member: int, epoch: int, revoke: Sequence[Partition], assign: Sequence[Partition]) -> None: ...
    def fenced(self, member: int) -> None: ...


@dataclass(eq=False)
class Membership:
    """A member as the coordinator sees it."""

    number: int
    client: Client
    epoch: int = 0
    owned: set[Partition] = field(default_factory=set)
    target: set[Partition] = field(default_factory=set)
    asked: tuple[frozenset[Partition], frozenset[Partition]] | None = None
    """What it was told to give back and to take, and has not yet confirmed."""


class Group:
    """The coordinator's side of one consumer group."""

    def __init__(self, world: World, logs: dict[Partition, Log]) -> None:
        self._world = world
        self._logs = logs
        self.commits: dict[Partition, Commit] = {}
        self.members: dict[int, Membership] = {}
        self.on_commit: list[Callable[[Partition, Commit], None]] = []
        self.on_removed: list[Callable[[Client, Iterable[Partition]], None]] = []
        """Called with partitions that a member has no more."""
        self.refusal: Callable[[], int | None] = lambda: None
        """An error for the commit that comes next, if the simulation wants one."""
        self.loses_answers = 0.0
        """The share of commits that are written down, and answered with an error."""
        self._epoch = 0
        self._numbers = itertools.count(1)

    # -- members

    def join(self, client: Client) -> int:
        number = next(self._numbers)
        self.members[number] = Membership(number, client)
        self.rebalance()
        return number

    def remove(self, number: int) -> None:
        """It has left."""
        member = self.members.pop(number, None)
        if member is not None:
            for watch in self.on_removed:
                watch(member.client, member.owned)
            self.rebalance()

    def expire(self, number: int) -> None:
        """Think it dead; it hears of that when it asks again."""
        member = self.members.get(number)
        if member is not None:
            self.remove(number)
            member.client.fenced(number)

    def rebalance(self) -> None:
        """Decide anew who shall own what: evenly within each topic, and what is owned stays where it can."""
        self._epoch += 1
        topics: dict[str, list[Partition]] = defaultdict(list)
        for partition in self._logs:
            topics[partition.topic].append(partition)
        for member in self.members.values():
            member.target = set()
        for topic, partitions in topics.items():
            able = [member for member in self.members.values() if topic in member.client.topics]
            if able:
                self._share(partitions, able)
        self._reconcile()

    def _share(self, partitions: list[Partition], able: list[Membership]) -> None:
        most, more = divmod(len(partitions), len(able))
        counts = dict.fromkeys(able, 0)
        left = []
        for partition in partitions:
            owner = next((member for member in able if partition in member.owned), None)
            may_have_more = owner is not None and counts[owner] == most and more > 0
            if owner is not None and (counts[owner] < most or may_have_more):
                more -= may_have_more
                counts[owner] += 1
                owner.target.add(partition)
            else:
                left.append(partition)
        for partition in left:
            fewest = min(counts.values())
            member = self._world.random.choice([one for one in able if counts[one] == fewest])
            counts[member] += 1
            member.target.add(partition)

    def _reconcile(self) -> None:
        """Tell each member what to give back; then, what is free and shall be its."""
        for member in self.members.values():
            if member.asked is not None:
                continue
            revoke = frozenset(member.owned - member.target)
            taken = {partition for other in self.members.values() for partition in other.owned}
            assign = frozenset() if revoke else frozenset(member.target - taken)
            if revoke or assign or member.epoch == 0:
                member.owned |= assign
                member.asked = revoke, assign
                member.epoch = self._epoch
                member.client.told(member.number, self._epoch, sorted(revoke), sorted(assign))

    def confirm(self, number: int) -> None:
        """Hear that a member has done what it was told."""
        member = self.members.get(number)
        if member is not None and member.asked is not None:
            revoked = member.asked[0]
            member.owned -= revoked
            for watch in self.on_removed:
                watch(member.client, revoked)
            member.asked = None
            self._reconcile()

    # -- offsets

    def commit(self, number: int, epoch: int, offsets: Sequence[tuple[Partition, Commit]]) -> dict[Partition, int]:
        """Write down *offsets*, whoever owns their partitions.

        Returns:
            The error code of each; 0 is none.
        """
        code = self._refusal_of(number, epoch)
        codes: dict[Partition, int] = {}
        for partition, commit in offsets:
            # the Python client sends a NUL behind it
            is_too_long = len(commit.metadata.encode()) + 1 > MAX_METADATA_BYTES
            codes[partition] = code or (KafkaError.OFFSET_METADATA_TOO_LARGE if is_too_long else 0)
            if not codes[partition]:
                for watch in self.on_commit:
                    watch(partition, commit)
                self.commits[partition] = commit
        if self._world.is_likely(self.loses_answers):
            return dict.fromkeys(codes, int(KafkaError.REQUEST_TIMED_OUT))
        return codes

    def _refusal_of(self, number: int, epoch: int) -> int:
        member = self.members.get(number)
        if member is None:
            return int(KafkaError.UNKNOWN_MEMBER_ID)
        if member.epoch != epoch:
            return int(KafkaError.ILLEGAL_GENERATION if self._world.is_likely(0.5) else KafkaError.STALE_MEMBER_EPOCH)
        return self.refusal() or 0


class Broker:
    """All logs and groups. While it `is_away`, nothing reaches it and no session runs out."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.logs: dict[Partition, Log] = {}
        self.is_away = False
        self.on_append: list[Callable[[Message, object], None]] = []
        self.refused_topics: set[str] = set()
        self._groups: dict[str, Group] = {}

    def create_topic(self, topic: str, partitions: int) -> None:
        for number in range(partitions):
            self.logs[Partition(topic, number)] = Log(Partition(topic, number))

    def partitions_of(self, topic: str) -> list[Partition]:
        return [partition for partition in self.logs if partition.topic == topic]

    def group(self, name: str) -> Group:
        if name not in self._groups:
            self._groups[name] = Group(self.world, self.logs)
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


class _Pipe:
    """One direction of a connection: what is sent arrives in order, or waits while nothing passes."""

    def __init__(self, world: World, passes: Callable[[], bool]) -> None:
        self._world = world
        self._passes = passes
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._last = 0.0
        self._looks_again = False

    def send(self, what: Callable[[], None]) -> None:
        world = self._world
        self._last = max(world.now + world.random.uniform(0.0002, 0.004), self._last)
        self._waiting.append((self._last, what))
        world.at(self._last, self._flush)

    def lose(self) -> None:
        """The sender is dead: the last of what it wrote never left."""
        while self._waiting and self._world.is_likely(0.5):
            self._waiting.pop()

    def _flush(self) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._world.now:
            if not self._passes():
                if not self._looks_again:
                    self._looks_again = True
                    self._world.after(0.1, self._look_again)
                return
            waiting.popleft()[1]()

    def _look_again(self) -> None:
        self._looks_again = False
        self._flush()


class Connection:
    """A client's way to the broker and back. It can be cut, and its client can die or stand still."""

    def __init__(self, broker: Broker, held_until: Callable[[], float]) -> None:
        self._broker = broker
        self._held_until = held_until
        self.cut_until = 0.0
        self.is_dead = False
        self._out = _Pipe(broker.world, lambda: self.is_open)
        self._back = _Pipe(broker.world, lambda: self.is_open and not self.is_held)

    @property
    def is_open(self) -> bool:
        return not self._broker.is_away and self._broker.world.now >= self.cut_until

    @property
    def is_held(self) -> bool:
        return self._held_until() > self._broker.world.now

    def send(self, request: Callable[[], None]) -> None:
        """Let *request* happen at the broker."""
        if not self.is_dead:
            self._out.send(request)

    def answer(self, receive: Callable[[], None]) -> None:
        """Let *receive* happen at the client."""
        self._back.send(partial(self._receive, receive))

    def _receive(self, receive: Callable[[], None]) -> None:
        if not self.is_dead:
            receive()

    def die(self) -> None:
        self.is_dead = True
        self._out.lose()
