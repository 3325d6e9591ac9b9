"""Which of a reader's partitions are paused, and why: no room for anything, a full span, a record that must wait.

Pausing empties the client's prefetch queue, so it is for waits of seconds, not for back-pressure. A record that must
wait is given back by seeking to it: then it is not in flight and holds up nothing. What waits, and until when, is
decided in `core.parking`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.core.assignment import Assignment
from consumer.core.parking import Parked, Parking
from consumer.core.record import Partition, Record
from consumer.ports import Clock

CALL_S = 5.0
"""How long the broker may take to say where the held topic ends."""
ASKED_SWEEP_S = 1.0
"""A closed lane asks at every tick."""


class Pauses:
    """The pauses of *owned*, which the reader keeps up to date. On the Kafka thread only.

    The held topic is read every *sweep_s*, less often while that brings nothing, at least every *sweep_max_s*.
    """

    def __init__(
        self,
        consumer: Consumer,
        owned: Mapping[Partition, Assignment],
        *,
        parking: Parking,
        sweep_s: float,
        sweep_max_s: float,
        clock: Clock,
        failed: Callable[[KafkaError], None],
    ) -> None:
        self._consumer = consumer
        self._owned = owned
        self._parking = parking
        self._sweep_s = sweep_s
        self._sweep_max_s = sweep_max_s
        self._clock = clock
        self._failed = failed
        self._of_spans: set[Partition] = set()
        self._given_back: dict[Partition, tuple[int, int | None]] = {}
        """Where a seek went, and which other offset has come up since."""
        self._interval_s = sweep_s
        self._next_sweep = 0.0
        self._next_asked_sweep = 0.0
        self.are_on_all = False

    # -- assignments

    def begin(self, assignment: Assignment) -> None:
        """Pause a new partition, or make sure that it isn't paused."""
        partition = assignment.partition
        if partition.topic == self._parking.plan.held_topic:
            self._parking.park(partition, Parked(assignment.start, None))
            self._next_sweep = 0.0
            self._pause([partition])
        elif self.are_on_all:
            self._pause([partition])
        else:  # the client keeps a pause across assignments: one that was lost while paused would stay silent
            self._resume([partition])

    def forget(self, partition: Partition) -> None:
        """The partition is no longer ours."""
        self._parking.forget(partition)
        self._given_back.pop(partition, None)
        self._of_spans.discard(partition)

    def finish(self, partition: Partition, end: int) -> None:
        """Read nothing more of *partition*, which is done at *end*."""
        self._parking.park(partition, Parked(end, None))
        self._pause([partition])

    # -- room

    def pause_all(self) -> None:
        """Let nothing come, and be polled all the same, so that a rebalance doesn't wait for us."""
        self.are_on_all = True
        self._pause(self._owned)

    def resume_all(self) -> None:
        self.are_on_all = False
        self._resume(self._owned)

    def set_spans(self, stop: Sequence[Assignment], go: Sequence[Assignment]) -> None:
        """Stop or resume single partitions, as far as they are still ours."""
        stopped = [at.partition for at in stop if self._owned.get(at.partition) is at]
        self._of_spans.update(stopped)
        self._pause(stopped)
        freed = [at.partition for at in go if at.partition in self._of_spans]
        self._of_spans.difference_update(freed)
        self._resume(freed)

    # -- records that wait

    def admits(self, partition: Partition, record: Record, now_ms: int) -> bool:
        """Say whether *record* may go on now; else its partition comes back to it, at once or when it is due."""
        if not self._is_in_place(partition, record):
            return False
        parked = self._parking.place(record, now_ms)
        if parked is not None:
            self._give_back(partition, parked)
        return parked is None

    def ends_a_sweep(self, partition: Partition, next_offset: int) -> bool:
        """Say whether the sweep of a held partition is over by now; it then waits for the next one."""
        if not self._parking.sweep_is_over(partition, next_offset):
            return False
        self._give_back(partition, Parked(next_offset, None))
        return True

    def _give_back(self, partition: Partition, parked: Parked) -> None:
        """Pause *partition* and let its next record be the one it waits at."""
        self._parking.park(partition, parked)
        self._pause([partition])
        self._given_back[partition] = (parked.offset, None)
        self._seek(partition, parked.offset)

    def _is_in_place(self, partition: Partition, record: Record) -> bool:
        """After a seek, admit only the record that was sought: another one might hide a loss.

        Where it is gone from the log (retention), the next one comes up a second time, and then it is believed.
        """
        expected = self._given_back.get(partition)
        if expected is None:
            return True
        offset, seen = expected
        if record.offset > offset and record.offset != seen:
            self._given_back[partition] = (offset, record.offset)
            self._seek(partition, offset)
            return False
        if record.offset >= offset:
            del self._given_back[partition]
        return True

    def _seek(self, partition: Partition, offset: int) -> None:
        at = TopicPartition(partition.topic, partition.number, offset)
        try:
            self._consumer.seek(at)
        except KafkaException:  # not in a state to seek: an assignment at the offset is the same
            self._consumer.incremental_unassign([at])
            self._consumer.incremental_assign([at])
            if partition in self._parking.parked or partition in self._of_spans or self.are_on_all:
                self._pause([partition])

    # -- time

    def look(self, *, may_sweep: bool) -> None:
        """Resume what is due, and read the held topic when it is time."""
        due = self._parking.due(self._clock.wall_ms())
        if due:
            self._resume(due)
        now = self._clock.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + self._interval_s
            if may_sweep and self._sweep(None):
                # whoever is held again is asked less and less often; a lane that opens sweeps at once
                self._interval_s = min(self._interval_s * 2, self._sweep_max_s)

    def sweep_asked_for(self, limit: int | None) -> None:
        """Read the held topic because a lane asks: all that is on it, or about *limit* records of each partition."""
        now = self._clock.monotonic()
        if limit is None:
            self._interval_s = self._sweep_s
        elif now < self._next_asked_sweep:
            return
        self._next_asked_sweep = now + ASKED_SWEEP_S
        self._sweep(limit, extend=limit is None)

    def _sweep(self, limit: int | None, *, extend: bool = False) -> bool:
        """Start to read the held partitions that wait; *extend* what is being read to what is there now."""
        started = []
        for partition in [at for at in self._owned if at.topic == self._parking.plan.held_topic]:
            position = self._parking.held_position(partition)
            if position is None and not extend:
                continue
            at = TopicPartition(partition.topic, partition.number)
            try:
                _, high = self._consumer.get_watermark_offsets(at, timeout=CALL_S, cached=False)
            except KafkaException as error:
                self._failed(error.args[0])
                break  # the rest at the next sweep
            end = high if limit is None or position is None else min(high, position + limit)
            if self._parking.sweep(partition, end=end):
                started.append(partition)
        self._resume(started)
        return bool(started)

    # -- the client

    def _pause(self, partitions: Iterable[Partition]) -> None:
        self._consumer.pause([TopicPartition(*partition) for partition in partitions])

    def _resume(self, partitions: Iterable[Partition]) -> None:
        if self.are_on_all:
            return
        free = [at for at in partitions if at not in self._of_spans and at not in self._parking.parked]
        if free:
            self._consumer.resume([TopicPartition(*partition) for partition in free])
