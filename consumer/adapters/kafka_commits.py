"""What one reader gives the client to commit: positions, and maps of what is settled beyond them.

Progress is only ever stored; the client commits it, while the partition is ours. It compares offsets alone, though: a
map that changes while its position stands is not committed. So there is one explicit commit, of exactly the last stored
offset, at most once per interval, and once more before the group is left. Never within a rebalance callback.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.core.assignment import Assignment, Position
from consumer.core.record import Partition
from consumer.ports import Clock
from consumer.telemetry import Metrics, log

ANSWER_S = 5.0
"""How long the broker may take to say what is committed."""
HAND_OVER_S = 3.0
"""How long the last commit may take, at least, before the group is left; without a coordinator there is no answer."""


@dataclass(slots=True)
class _Stored:
    """What the broker has, or will have by us. A start that it had is here without having been stored."""

    offset: int
    metadata: str
    since: float
    """When the offset moved, or its map was last committed by us: monotonic seconds."""
    is_said: bool = True
    """Some commit that was made, or that the client will make, carries this map."""
    confirmed: int = -1
    """The highest offset that the broker has confirmed."""


class Commits:
    """The offsets and maps of the partitions that this reader owns. On the Kafka thread only."""

    def __init__(self, consumer: Consumer, *, interval_s: float, metrics: Metrics, clock: Clock) -> None:
        self._consumer = consumer
        self._interval_s = interval_s
        self._metrics = metrics
        self._clock = clock
        self._stored: dict[Partition, _Stored] = {}
        self._next_look = 0.0
        self._unanswered: set[Partition] = set()

    def begin(self, assignment: Assignment, *, is_fresh: bool) -> None:
        """Note the start of *assignment*; the client commits it if it *is_fresh*: the broker has none for it.

        One that was read from the broker is only noted, unless an old commit overtakes it. Committed again it could
        undo what another member, who got the partition while we read, has committed; with KIP-848 that is accepted.
        """
        partition = assignment.partition
        self._stored.pop(partition, None)
        start = assignment.position(self._clock.wall_ms() // 1000)
        if is_fresh:
            self._store(partition, start)
        else:
            self._stored[partition] = _Stored(
                start.offset, start.metadata, self._clock.monotonic(), confirmed=start.offset
            )

    def forget(self, partition: Partition) -> None:
        self._stored.pop(partition, None)
        self._unanswered.discard(partition)

    def store(self, positions: Iterable[Position], owned: Mapping[Partition, Assignment]) -> None:
        """Give the next commit what settled; only for assignments that are still ours."""
        for position in positions:
            partition = position.assignment.partition
            if owned.get(partition) is position.assignment:
                self._store(partition, position)

    def _store(self, partition: Partition, position: Position) -> None:
        _, offset, metadata = position
        stored = self._stored.get(partition)
        stands = stored is not None and offset == stored.offset
        if stored is not None and (offset < stored.offset or (stands and metadata == stored.metadata)):
            return
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(*partition, offset, metadata)])
        except KafkaException as error:
            self._metrics.offset_commits.add((f"store_{error.args[0].name().lower()}",))
            return
        if stored is not None and stands:
            stored.metadata = metadata
            stored.is_said = False
        else:
            confirmed = -1 if stored is None else stored.confirmed
            self._stored[partition] = _Stored(offset, metadata, self._clock.monotonic(), confirmed=confirmed)

    # -- commits of our own

    def look(self) -> None:
        """Commit the maps that changed while their positions stood for an interval."""
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + self._interval_s / 2
            self._commit_maps([at for at, one in self._stored.items() if now - one.since >= self._interval_s])

    def hand_over(self, poll: Callable[[], None], deadline: float) -> None:
        """Commit what is stored, and *poll* until the broker has it all, or *deadline* (monotonic seconds).

        Closing would commit it, too, but once: while the group rebalances, that commit waits behind the request to join
        and then carries an old generation. Refused, it is made again here, with the new one.
        """
        while self._clock.monotonic() < deadline:
            missing = [at for at, one in self._stored.items() if one.confirmed < one.offset or not one.is_said]
            if not missing or not self._commit(missing):
                return
            while self._unanswered and self._clock.monotonic() < deadline:
                poll()
            poll()

    def _commit_maps(self, partitions: Iterable[Partition]) -> None:
        standing = [at for at in partitions if not self._stored[at].is_said]
        if standing:
            self._commit(standing)

    def _commit(self, partitions: Iterable[Partition]) -> bool:
        """Commit exactly what is stored.

        Returns:
            Whether the client took it.
        """
        standing = [(at, self._stored[at]) for at in partitions]
        offsets = [TopicPartition(*at, one.offset, one.metadata) for at, one in standing]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:  # said again at the next look
            self._metrics.offset_commits.add((error.args[0].name().lower(),))
            return False
        for at, one in standing:
            self._unanswered.add(at)
            one.is_said = True
            one.since = self._clock.monotonic()
        return True

    def commit_now(self, partitions: Iterable[Partition]) -> bool:
        """Commit what is stored and wait: a start that was resolved must not be resolved again.

        Args:
            partitions: all of ours.

        Returns:
            Whether the broker has a commit for each.

        Raises:
            KafkaException: the client or the broker refused.
        """
        try:
            outcome = self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._NO_OFFSET:  # noqa: SLF001 - the client's own name for it
                raise
        else:
            if any(at.error is not None for at in outcome or ()):
                return False
        # after a refused commit the client has nothing to commit, and calls that no error: ask the broker
        answer = self._consumer.committed([TopicPartition(*at) for at in partitions], timeout=ANSWER_S)
        return all(at.error is None and at.offset >= 0 for at in answer)

    def answered(self, error: KafkaError | None, partitions: Iterable[TopicPartition]) -> None:
        """Hear what came of a commit; the client's callback."""
        failed = error
        for at in partitions:
            if at.offset < 0:  # ours, but without news: no commit was made for it
                continue
            partition = Partition(at.topic, at.partition)
            self._unanswered.discard(partition)
            stored = self._stored.get(partition)
            problem = error or at.error
            if problem is not None:
                failed = problem
                if stored is not None and stored.offset == at.offset:
                    stored.is_said = False
            elif stored is not None:
                self._confirmed(stored, at.offset)
        if failed is None:
            self._metrics.offset_commits.add(("ok",))
            self._metrics.last_commit_timestamp.set(self._clock.wall_ms() / 1000)
        elif failed.code() != KafkaError._NO_OFFSET:  # noqa: SLF001
            self._metrics.offset_commits.add((failed.name().lower(),))
            log.warning("offset.commit_failed", reason=failed.name())

    def _confirmed(self, stored: _Stored, offset: int) -> None:
        """Hear that the broker has *offset*; if it had more before, say again what is stored.

        While the coordinator is away the client piles up commits, and then repeats them in any order: an old one can
        be the last, and the client takes its newer one for done. A restart would send again what lies between.
        """
        if offset < stored.confirmed:
            self._metrics.offset_commits.add(("overtaken",))
            stored.is_said = False
            stored.since = -math.inf  # at the next look
        stored.confirmed = max(stored.confirmed, offset)
