"""The coordinator of one consumer group. It knows members and epochs, but not who may commit what.

As a real one, it judges a commit by its member and epoch alone, so an explicit commit of another's partition is
accepted; and a partition goes to its next owner only when the last one has given it back, or is thought dead.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from confluent_kafka import KafkaError

from consumer.core.record import Partition
from tests.simulation.world import World

MAX_METADATA_BYTES = 4096


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

    def __init__(self, world: World, partitions: Iterable[Partition]) -> None:
        self._world = world
        self._partitions = partitions
        self.commits: dict[Partition, Commit] = {}
        self.members: dict[int, Membership] = {}
        self.on_commit: list[Callable[[Partition, Commit], None]] = []
        self.on_taken: list[Callable[[Client, Iterable[Partition]], None]] = []
        """Called with partitions that a member has no more, because it is thought dead."""
        self.on_given_back: list[Callable[[Client, Iterable[Partition]], None]] = []
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
        if self.members.pop(number, None) is not None:
            self.rebalance()

    def expire(self, number: int) -> None:
        """Think it dead, or hear that it didn't poll; it learns of that when it asks again."""
        member = self.members.get(number)
        if member is not None:
            for watch in self.on_taken:
                watch(member.client, member.owned)
            self.remove(number)
            member.client.fenced(number)

    def rebalance(self) -> None:
        """Decide anew who shall own what: evenly within each topic, and what is owned stays where it can."""
        self._epoch += 1
        topics: dict[str, list[Partition]] = defaultdict(list)
        for partition in self._partitions:
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
            for watch in self.on_given_back:
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
