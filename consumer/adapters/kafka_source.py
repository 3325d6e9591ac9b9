"""The Kafka thread: the only code that ever calls the Consumer.

It reads micro-batches while there is room, stores the commit positions that the event loop publishes, and runs the
rebalance callbacks. The facts it is built on (what librdkafka does on pause, revoke, close, a raising callback) are in
docs/architecture.md ("The Kafka thread").
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.adapters.kafka_client import KnownBrokers, make_client
from consumer.adapters.kafka_commits import HAND_OVER_S, Commits
from consumer.adapters.kafka_pauses import Pauses
from consumer.adapters.kafka_positions import StartPositions
from consumer.adapters.kafka_record import to_record
from consumer.core.assignment import Assignment, Position
from consumer.core.budget import InFlightBudget
from consumer.core.offset_map import OffsetMap
from consumer.core.parking import Parking
from consumer.core.record import Partition, Record
from consumer.core.replay import Mark, write_mark
from consumer.errors import ConsumerError, ExitCode, KafkaFatalError, OutOfRangeError
from consumer.ports import Clock
from consumer.telemetry import Metrics, Repeated, log

PAUSE_AFTER_S = 5.0
"""Without room for so long, partitions are paused and polled, so that a rebalance doesn't wait for us."""
WAIT_S = 0.1
"""The longest step of the thread outside of a drain."""

Positions = Sequence[Position]
Callback = TypeVar("Callback", bound=Callable[..., None])


def _never_raising(name: str) -> Callable[[Callback], Callback]:
    """Make a method a callback that the client may call: an exception of it ends the process in an orderly way."""

    def wrap(callback: Callback) -> Callback:
        @wraps(callback)
        def guarded(self: "KafkaSource", *args: object) -> None:
            try:
                callback(self, *args)
            except Exception as error:  # noqa: BLE001 - raised into the client, it would destroy records
                self.callback_failed(name, error)

        return cast("Callback", guarded)

    return wrap


class Sink(Protocol):
    """Where batches and rebalances go; `rebalance.Rebalance` in the real process."""

    def take(self, batch: Sequence[tuple[Assignment, Record]]) -> None: ...
    def assigned(self, assignments: Sequence[Assignment]) -> None: ...
    def revoked(self, assignments: Sequence[Assignment], *, timeout_s: float, reason: str) -> Positions: ...
    def lost(self, assignments: Sequence[Assignment]) -> None: ...
    def reached(self, assignment: Assignment) -> None: ...


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """How the thread reads. The held topic is read every `held_sweep_s`, less often while that brings nothing."""

    topics: tuple[str, ...]
    batch_max_records: int
    batch_max_wait_s: float
    drain_timeout_s: float
    held_sweep_s: float
    held_sweep_max_s: float = 900.0
    digest: str | None = None
    """Of the plan, in a bounded replay."""

    def mark_of(self, end: int | None) -> str:
        """Return what stands behind the map of each commit."""
        return "" if self.digest is None or end is None else write_mark(Mark(self.digest, end))


class KafkaSource:
    """One reader of the group, with a thread of its own: `run` is its body.

    A process has two, one for the source topics and one for ours: with a single subscription, the assignors balance
    the number of partitions and not the work, and a second pod can end up with retry topics only.
    """

    def __init__(
        self,
        *,
        conf: dict[str, Any],
        policy: SourcePolicy,
        positions: StartPositions,
        parking: Parking,
        budget: InFlightBudget,
        metrics: Metrics,
        clock: Clock,
        ending: Callable[[ExitCode], None],
        first_start: Callable[[], None],
    ) -> None:
        self._conf = conf
        self._policy = policy
        self._positions = positions
        self._parking = parking
        self._budget = budget
        self._intake = budget.new_intake()
        self._metrics = metrics
        self._clock = clock
        self._ending = ending
        self._first_start = first_start
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._room = threading.Event()
        self._stopping = False
        self._failure: ConsumerError | None = None
        self._brokers = KnownBrokers()
        self._has_no_brokers = False
        self._owned: dict[Partition, Assignment] = {}
        self._assigned: set[Partition] = set()
        """What the client has. At the end nothing is owned any more, but still assigned."""
        self._starved_since: float | None = None
        self._epochs = itertools.count(1)
        self._has_fresh_starts = False
        """Starts that were resolved are not committed yet. Until then nothing is read: a record of ours on a retry
        topic, and no commit, is how a group is recognised that the broker has forgotten."""
        self._is_first_start = False
        self._password: str | None = None
        """The event loop's to write; None until it changes."""
        self._shown_password: str | None = None
        self._kept: list[Message] = []
        self._may_wait = not set(policy.topics).isdisjoint(parking.plan.read_topics)
        """Records of a source topic never wait."""
        self._errors = Repeated()
        self.heartbeat: float | None = None
        """When the thread last went round, monotonic seconds."""
        self.has_joined = False
        self.lag: dict[Partition, int] = {}
        """Records behind the end of each owned partition, by the client's own statistics."""
        self.high_watermarks: dict[Partition, int] = {}
        self._finished: set[Partition] = set()
        """Owned partitions of a bounded replay of which all was read."""

    # -- called from the event loop

    def publish(self, positions: Positions) -> None:
        """Store commit *positions*, if their assignments are still ours by then."""
        self._commands.put(lambda: self._commits.store(positions, self._owned))

    def set_span_paused(self, stop: Sequence[Assignment], go: Sequence[Assignment]) -> None:
        """Stop or resume reading single partitions."""
        self._commands.put(lambda: self._pauses.set_spans(stop, go))

    def sweep_held(self, limit: int | None) -> None:
        """Read the held topic: all that is on it now, or about *limit* records of each partition."""
        self._commands.put(lambda: self._pauses.sweep_asked_for(limit))

    def set_password(self, password: str) -> None:
        """Let connections that are made from now on show *password*."""
        self._password = password

    def wake(self) -> None:
        """There is room again."""
        self._room.set()

    def stop(self) -> None:
        """Drain, store, close, and return from `run`."""
        self._stopping = True
        self._room.set()

    # -- the thread

    def run(self, sink: Sink) -> None:
        """Read until `stop`.

        Raises:
            ConsumerError: the client cannot go on, or a person must choose offsets.
        """
        self._sink = sink
        callbacks = {"stats_cb": self._on_stats, "error_cb": self._on_error, "on_commit": self._on_commit}
        self._consumer = make_client(Consumer, {**self._conf, **callbacks})
        self._commits = Commits(
            self._consumer,
            interval_s=self._conf["auto.commit.interval.ms"] / 1000,
            metrics=self._metrics,
            clock=self._clock,
        )
        self._pauses = Pauses(
            self._consumer,
            self._owned,
            parking=self._parking,
            sweep_s=self._policy.held_sweep_s,
            sweep_max_s=self._policy.held_sweep_max_s,
            clock=self._clock,
            failed=self._note_error,
        )
        self._consumer.subscribe(
            list(self._policy.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not self._is_ending():
                self.heartbeat = self._clock.monotonic()
                self._step()
        except BaseException:  # not one that was foreseen: those are noted
            self._ending(ExitCode.BUG)
            raise
        finally:
            # from here on a deadline runs: close() is known to hang after fatal errors
            self._ending(ExitCode.FORCED if self._failure is None else self._failure.exit_code)
            self._take_password()  # or close() would not get through
            self._leave_group()
        if self._failure is not None:
            raise self._failure

    def _step(self) -> None:
        self._obey()
        self._pauses.look(may_sweep=not self._budget.closed_for)
        if not self._has_fresh_starts:
            self._commits.look()
        room = 0 if self._has_fresh_starts else self._budget.room
        if room == 0:
            self._wait_for_room()
            return
        self._starved_since = None
        if self._pauses.are_on_all:
            self._pauses.resume_all()
            log.info("consumer.resumed", partitions=len(self._owned))
        self._hand_over(self._consume(min(room, self._policy.batch_max_records)))

    def _consume(self, most: int) -> list[Message]:
        """Return what is there, without waiting for a full batch."""
        first = self._consumer.poll(self._policy.batch_max_wait_s)
        if first is None:
            return []
        owner = self._owned.get(_partition(first))
        rest = self._consumer.consume(most - 1, 0) if most > 1 else []
        # a rebalance in between would hand it to an assignment that hasn't read what stands before it
        return [first, *rest] if self._owned.get(_partition(first)) is owner else rest

    def _obey(self) -> None:
        self._take_password()
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                break
            command()
        if self._has_fresh_starts:
            self._commit_starts()

    def _has_new_password(self) -> bool:
        return self._password != self._shown_password

    def _take_password(self) -> None:
        """Show another password from now on. Never within a callback: like `list_topics`, it would end the process."""
        password = self._password
        if password is not None and password != self._shown_password:
            self._consumer.set_sasl_credentials(self._conf["sasl.username"], password)
            self._positions.set_password(password)
            self._shown_password = password

    def _commit_starts(self) -> None:
        """Commit the starts that were resolved; only then read, and let the group be known to have worked."""
        if self._owned:
            try:
                if not self._commits.commit_now(self._owned):
                    return
            except KafkaException as error:
                self._note_error(error.args[0])
                return
            if self._is_first_start:  # its mark comes after its commit, or another member would think it forgotten
                self._first_start()
        self._has_fresh_starts = self._is_first_start = False
        kept, self._kept = self._kept, []
        self._hand_over(kept)

    def _wait_for_room(self) -> None:
        self._room.clear()
        if self._budget.room and not self._has_fresh_starts:
            return
        now = self._clock.monotonic()
        if self._starved_since is None:
            self._starved_since = now
        will_last = bool(self._budget.closed_for) or self._has_fresh_starts
        if not self._pauses.are_on_all and (will_last or now - self._starved_since > PAUSE_AFTER_S):
            self._pauses.pause_all()
            reason = "first_commit" if self._has_fresh_starts else ",".join(sorted(self._budget.closed_for))
            log.info("consumer.paused", partitions=len(self._owned), reason=reason or "in_flight_limit")
        if self._pauses.are_on_all:
            # what a rebalance brought before it was paused may still come out: never throw it away
            message = self._consumer.poll(WAIT_S)
            if message is not None:
                self._hand_over([message])
        else:
            self._room.wait(WAIT_S)

    def _hand_over(self, messages: Iterable[Message]) -> None:
        batch: list[tuple[Assignment, Record]] = []
        skipped: set[Partition] = set()
        ended: list[Assignment] = []
        owned = self._owned
        pauses = self._pauses if self._may_wait else None
        now_ms = self._clock.wall_ms()
        size_bytes = 0
        for message in messages:
            if message.error() is not None:
                if (of := self._ended_at(message)) is not None:
                    ended.append(of)
                continue
            if self._has_fresh_starts:  # came with the assignment, before its start could be committed
                self._kept.append(message)
                continue
            record = to_record(message)
            assignment = owned.get(record[:2])  # type: ignore[call-overload]  # as a Partition, at a third of the price
            if assignment is None or assignment.partition in skipped:
                continue
            if assignment.end is not None and record.offset >= assignment.end:
                ended.append(assignment)
                skipped.add(assignment.partition)  # more of it was under way
                continue
            if pauses is not None and not pauses.admits(assignment.partition, record, now_ms):
                skipped.add(assignment.partition)
                continue
            batch.append((assignment, record))
            size_bytes += record.size_bytes
            if pauses is not None and pauses.ends_a_sweep(assignment.partition, record.offset + 1):
                skipped.add(assignment.partition)
        if batch:
            self._intake.taken_records += len(batch)
            self._intake.taken_bytes += size_bytes
            self._sink.take(batch)
        for assignment in ended:  # what was read before comes first
            if assignment.partition not in self._finished:
                self._finish(assignment)

    # -- callbacks: none may raise, or the client destroys messages it has already taken from its queue

    def _is_ending(self) -> bool:
        return self._stopping or self._failure is not None

    def _cannot_wait(self) -> bool:
        return self._is_ending() or self._has_new_password()

    @_never_raising("assign")
    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Own *partitions*, or none of them when the end has begun: close() gives them back."""
        try:
            # close() brings assignments, too: asking for offsets there would hold it up
            resolved = None if self._is_ending() else self._positions.resolve(consumer, partitions, self._cannot_wait)
            if resolved is None:
                consumer.incremental_assign([])
                if not self._is_ending():
                    self._failure = KafkaFatalError(
                        "the brokers gave no answer and the Kafka password has changed meanwhile: restart the process, "
                        "a new one shows the new password"
                    )
                return
            starts, fresh, is_new, maps, ends = resolved
            assignments = [
                Assignment(
                    partition,
                    next(self._epochs),
                    at.offset,
                    maps.get(partition, OffsetMap()),
                    ends.get(partition),
                    self._policy.mark_of(ends.get(partition)),
                )
                for at in starts
                for partition in [Partition(at.topic, at.partition)]
            ]
            self._sink.assigned(assignments)
            consumer.incremental_assign(starts)
            self._assigned.update(assignment.partition for assignment in assignments)
            for assignment in assignments:
                self._own(assignment, is_fresh=assignment.partition in fresh)
            self._has_fresh_starts = self._has_fresh_starts or bool(fresh)
            self._is_first_start = self._is_first_start or is_new
            self._metrics.rebalances.add(("assign",))
            self.has_joined = True
            log.info("consumer.assigned", partitions=len(starts), owned=len(self._owned))
        except ConsumerError as error:
            self._failure = error
            consumer.incremental_assign([])

    def _own(self, assignment: Assignment, *, is_fresh: bool) -> None:
        partition = assignment.partition
        self._owned[partition] = assignment
        self._commits.begin(assignment, is_fresh=is_fresh)
        self._pauses.begin(assignment)
        if assignment.end is not None and assignment.start >= assignment.end:
            self._finish(assignment)

    def _finish(self, assignment: Assignment) -> None:
        """Note that all of a bounded *assignment* was read."""
        assert assignment.end is not None, "only what is bounded ends"
        self._pauses.finish(assignment.partition, assignment.end)
        self._finished.add(assignment.partition)
        self._sink.reached(assignment)

    def _disown(self, partitions: Iterable[TopicPartition]) -> list[Assignment]:
        gone = [Partition(at.topic, at.partition) for at in partitions]
        for partition in gone:  # at the end they are not owned any more, but still stored for
            self._commits.forget(partition)
        assignments = [self._owned.pop(partition) for partition in gone if partition in self._owned]
        # what was kept of them is fetched again by whoever owns them next
        self._kept = [message for message in self._kept if _partition(message) in self._owned]
        for assignment in assignments:
            partition = assignment.partition
            self._pauses.forget(partition)
            self._finished.discard(partition)
            self.lag.pop(partition, None)
            self.high_watermarks.pop(partition, None)
        return assignments

    def _unassign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Unassign what the client has of *partitions*; left to itself it raises if one of them had been declined."""
        leaving = [at for at in partitions if Partition(at.topic, at.partition) in self._assigned]
        self._assigned.difference_update(Partition(at.topic, at.partition) for at in leaving)
        try:
            consumer.incremental_unassign(leaving)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._DESTROY:  # noqa: SLF001 - close() has taken all back already
                raise

    @_never_raising("revoke")
    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = [self._owned[at] for at in (Partition(p.topic, p.partition) for p in partitions) if at in self._owned]
        if leaving:
            self._metrics.rebalances.add(("revoke",))
            timeout_s = self._policy.drain_timeout_s
            self._commits.store(self._sink.revoked(leaving, timeout_s=timeout_s, reason="revoked"), self._owned)
            log.info("consumer.revoked", partitions=len(leaving))
        self._disown(partitions)
        self._unassign(consumer, partitions)

    @_never_raising("lost")
    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalances.add(("lost",))
        self._sink.lost(self._disown(partitions))
        self._unassign(consumer, partitions)
        log.warning("consumer.lost", partitions=len(partitions))

    @_never_raising("commit")
    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._commits.answered(error, partitions)

    @_never_raising("stats")
    def _on_stats(self, text: str) -> None:
        stats = orjson.loads(text)
        if self._failure is None and self._brokers.are_forgotten(stats):
            log.error("kafka.brokers_forgotten", client="consumer")
            self._has_no_brokers = True
            self._failure = KafkaFatalError(f"the Kafka client cannot go on: {KnownBrokers.ADVICE}")
        if self._conf["group.protocol"] == "consumer" and stats.get("cgrp", {}).get("state") == "up":
            self.has_joined = True  # KIP-848 doesn't call on_assign for a member that gets nothing
        for topic, of_topic in stats["topics"].items():
            for of_partition in of_topic["partitions"].values():
                partition = Partition(topic, of_partition["partition"])
                assignment = self._owned.get(partition)
                high = max(of_partition["ls_offset"], of_partition["hi_offset"])
                if assignment is not None and high >= 0:
                    self.high_watermarks[partition] = high
                    self.lag[partition] = max(0, high - assignment.tracker.committable)

    @_never_raising("error")
    def _on_error(self, error: KafkaError) -> None:
        self._note_error(error)

    def callback_failed(self, callback: str, error: Exception) -> None:
        """Note our own bug; the position is unknown now, so the process ends."""
        self._metrics.callback_errors.add((callback,))
        log.error("callback.failed", callback=callback, exc_info=error)
        if self._failure is None:
            self._failure = ConsumerError(f"the {callback} callback failed ({type(error).__name__}): this is a bug")

    def _note_error(self, error: KafkaError) -> None:
        count = self._errors.due(error.name(), self._clock.monotonic())
        if count:
            log.warning("kafka.error", reason=error.name(), count=count)

    def _ended_at(self, message: Message) -> Assignment | None:
        """Return the assignment whose planned end the end of its log has reached; all else that is no record is noted.

        What was compacted away or aborted never comes, and the end of an open transaction isn't one yet.
        """
        error = message.error()
        assert error is not None, "only called for what is no record"
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - asked for in replays only
            self._on_message_error(message)
            return None
        assignment = self._owned.get(_partition(message))
        offset = message.offset()
        if assignment is None or assignment.end is None or offset is None or offset < assignment.end:
            return None
        return assignment

    def _on_message_error(self, message: Message) -> None:
        error = message.error()
        assert error is not None, "only called for errors"
        code = error.code()
        if code == KafkaError._FATAL or error.fatal():  # noqa: SLF001
            self._failure = KafkaFatalError(
                f"the Kafka client cannot go on ({error.name()}): restart the process. "
                "If it comes back, look for another member with the same group.instance.id."
            )
        elif code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            self._failure = OutOfRangeError(
                f"{message.topic()}[{message.partition()}]: the position {message.offset()} of group "
                f"{self._conf['group.id']!r} is outside the log: records were deleted before we read them, or the "
                "topic was made anew. Nothing was skipped. Look at what is there (kafka-get-offsets), choose where to "
                "go on (kochava-consumer offsets reset, with the group stopped), start again."
            )
        else:
            self._note_error(error)

    # -- the end

    def _leave_group(self) -> None:
        """Drain what is ours, store it, commit it, and close."""
        if self._owned:
            ends_at = self._clock.monotonic() + self._policy.drain_timeout_s
            owned = [*self._owned.values()]
            positions = self._sink.revoked(owned, timeout_s=self._policy.drain_timeout_s, reason="shutdown")
            self._commits.store(positions, self._owned)
            self._owned.clear()  # close() calls on_revoke, which has nothing left to drain
            if not self._has_no_brokers:
                self._commits.hand_over(self._poll_to_the_end, max(ends_at, self._clock.monotonic() + HAND_OVER_S))
        self._consumer.close()

    def _poll_to_the_end(self) -> None:
        self._consumer.poll(WAIT_S / 2)  # what it returns belongs to the next owner


def _partition(message: Message) -> Partition:
    return Partition(message.topic() or "", message.partition() or 0)
