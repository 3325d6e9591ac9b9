"""The client's `Consumer`, as far as the product calls it, with the real one's ways.

What it claims is held against the real one by tests/contract/test_consumer_semantics.py; the facts behind are in
docs/architecture.md ("Facts of the client that shape the Kafka thread").
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.core.record import Partition
from tests.simulation.broker import Broker, Message
from tests.simulation.coordinator import Commit
from tests.simulation.session import GroupSession, Reply, answered
from tests.simulation.world import KilledError, Strand

COORDINATOR_S = 2.0
"""How long a synchronous commit looks for a coordinator that is away."""


class FakeConsumer(GroupSession):
    """Used by one thread only, as the real one must be; anything else is an error here.

    Args of the constructor:
        held_until: until when its process stands still.
        yields: how often a call that doesn't block lets others go first, as a share.
    """

    def __init__(
        self,
        broker: Broker,
        conf: dict[str, Any],
        *,
        held_until: Callable[[], float] = lambda: 0.0,
        yields: float = 0.0,
    ) -> None:
        super().__init__(broker, conf, held_until)
        self._yields = yields
        self._thread: Strand | None = None
        self._fatal: KafkaError | None = None
        self._is_fatal_told = False
        self._is_past_its_end = False

    def subscribe(
        self,
        topics: Sequence[str],
        on_assign: Callable[..., None] | None = None,
        on_revoke: Callable[..., None] | None = None,
        on_lost: Callable[..., None] | None = None,
    ) -> None:
        self._enter()
        self.topics = frozenset(topics)
        given = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost or on_revoke}
        self._callbacks = {name: callback for name, callback in given.items() if callback is not None}
        self._watch_polls()
        self._join()

    # -- what to read

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._enter()
        self._is_resolved = True
        for at in partitions:
            partition = Partition(at.topic, at.partition)
            if self._partitions[partition].is_assigned:
                raise KafkaException(KafkaError(KafkaError._CONFLICT))
            self._partitions.assign(partition, at.offset if at.offset >= 0 else self._default_start(partition))

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        self._enter()
        self._is_resolved = True
        if self._is_past_its_end:
            raise KafkaException(KafkaError(KafkaError._DESTROY))
        self._take_back([Partition(at.topic, at.partition) for at in partitions])

    def assignment(self) -> list[TopicPartition]:
        self._enter()
        return [TopicPartition(*at) for at in self.assigned]

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._set_paused(partitions, is_paused=True)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._set_paused(partitions, is_paused=False)

    def _set_paused(self, partitions: Sequence[TopicPartition], *, is_paused: bool) -> None:
        """Stop or go on; either way what was fetched beforehand is thrown away."""
        self._enter()
        for at in partitions:
            toppar = self._partitions.known.get(Partition(at.topic, at.partition))
            if toppar is not None and toppar.is_paused != is_paused:
                toppar.is_paused = is_paused
                if toppar.is_assigned:
                    self._partitions.go_to(toppar, toppar.position)

    def seek(self, at: TopicPartition) -> None:
        self._enter()
        toppar = self._partitions[Partition(at.topic, at.partition)]
        if not toppar.is_assigned or self._world.is_likely(self._yields / 4):  # not in a state to seek
            raise KafkaException(KafkaError(KafkaError._STATE))
        self._partitions.go_to(toppar, at.offset)

    # -- what the application gets

    def poll(self, timeout: float = -1.0) -> Message | None:
        self._enter()
        self._polled_at = self._world.now
        deadline = self._world.now + timeout if timeout >= 0 else float("inf")
        while True:
            if self._fatal is not None and not self._is_fatal_told:
                self._is_fatal_told = True
                return Message(Partition("", 0), -1, error=KafkaError(KafkaError._FATAL, self._fatal.str()))
            if self._ops and self._world.is_likely(0.7):
                self._serve([])
            if self._fatal is None and (message := self._partitions.pop()) is not None:
                return message
            self._serve([])
            if not self._wait(deadline):
                return None

    def consume(self, num_messages: int = 1, timeout: float = -1.0) -> list[Message]:
        self._enter()
        self._polled_at = self._world.now
        deadline = self._world.now + timeout if timeout >= 0 else float("inf")
        batch: list[Message] = []
        while len(batch) < num_messages and self._fatal is None:
            if self._ops and self._world.is_likely(0.3):
                self._serve(batch)
            message = self._partitions.pop()
            if message is not None:
                batch.append(message)
                continue
            self._serve(batch)
            if not self._partitions.has_records and not self._wait(deadline):
                break
        return batch

    def _serve(self, batch: list[Message]) -> None:
        """Run callbacks. One that raises destroys what this call has taken from the queue, or would have."""
        while self._ops:
            op = self._ops.popleft()
            try:
                op()
            except Exception:
                if not batch and self._world.is_likely(0.5):
                    self._partitions.pop()
                raise
            # of a partition that has gone, the client throws away what it had in hand; mostly
            gone = [one for one in batch if not self._partitions[Partition(one.topic(), one.partition())].is_assigned]
            if gone and self._world.is_likely(0.7):
                batch[:] = [one for one in batch if one not in gone]

    def _wait(self, deadline: float) -> bool:
        """Wait for something to do; say whether there was time left."""
        world = self._world
        if world.now >= deadline or self._is_closed:
            return False
        self._waiter = world.current
        world.current.wait(deadline)
        self._waiter = None
        return True

    # -- offsets

    def store_offsets(self, offsets: Sequence[TopicPartition]) -> None:
        self._enter()
        for at in offsets:
            partition = Partition(at.topic, at.partition)
            if partition not in self._broker.logs:
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
            if not self._partitions[partition].is_assigned:
                raise KafkaException(KafkaError(KafkaError._STATE))
        for at in offsets:
            self._partitions[Partition(at.topic, at.partition)].stored = Commit(at.offset, at.metadata or "")

    def commit(
        self, offsets: Sequence[TopicPartition] | None = None, *, asynchronous: bool = True
    ) -> list[TopicPartition] | None:
        self._enter()
        if offsets is None:
            chosen = self._to_commit()
            if not chosen:
                raise KafkaException(KafkaError(KafkaError._NO_OFFSET))
        else:
            chosen = [(Partition(at.topic, at.partition), Commit(at.offset, at.metadata or "")) for at in offsets]
        if asynchronous:
            self._send_commit(chosen, chosen)
            return None
        reply = Reply()
        self._send_commit(chosen, chosen, reply)
        self._await(reply, COORDINATOR_S, KafkaError._WAIT_COORD)
        result: list[TopicPartition] = reply.value
        problems = [at.error for at in result if at.error is not None]
        if problems and len(problems) == len(result):
            raise KafkaException(problems[0])
        return result

    # -- questions to the broker

    def committed(self, partitions: Sequence[TopicPartition], timeout: float = -1.0) -> list[TopicPartition]:
        asked = [Partition(at.topic, at.partition) for at in partitions]

        def answer() -> list[TopicPartition]:
            found = [(at, self._group.commits.get(at)) for at in asked]
            return [TopicPartition(*at) if one is None else answered(at, one, 0) for at, one in found]

        found: list[TopicPartition] = self._ask(answer, timeout)
        return found

    def get_watermark_offsets(
        self, at: TopicPartition, timeout: float = -1.0, *, cached: bool = False
    ) -> tuple[int, int]:
        log = self._broker.logs[Partition(at.topic, at.partition)]
        found: tuple[int, int] = self._ask(lambda: (log.low, log.high), timeout)
        return found

    def _ask(self, answer: Callable[[], Any], timeout: float) -> Any:
        self._enter()
        reply = Reply()

        def receive(value: Any) -> None:
            reply.value, reply.is_here = value, True
            self._poke()

        self.connection.send(lambda: self.connection.answer(partial(receive, answer())))
        self._await(reply, timeout if timeout >= 0 else 60.0, KafkaError._TIMED_OUT)
        return reply.value

    def _await(self, reply: Reply, timeout_s: float, otherwise: int) -> None:
        span = self._blocks()
        while not reply.is_here:
            if not self._wait(span[0] + timeout_s):
                self._is_back(span)
                raise KafkaException(KafkaError(otherwise))
        self._is_back(span)

    # -- the end

    def close(self) -> None:
        """Give back what is owned, commit what is stored, leave. Hangs after a fatal error, as the real one may."""
        self._enter()
        self._is_closing = True
        span = self._blocks()
        # a dynamic classic member hangs
        while self._fatal is not None and not (self._is_kip_848 or "group.instance.id" in self._conf):
            self._world.current.wait()
        self._serve([])
        if self.assigned:
            self._is_past_its_end = self._world.is_likely(self._yields / 4)  # seen once in the real one, under load
            self._revoke(self.assigned)
        deadline = self._world.now + 5.0
        while self._unanswered and self._wait(deadline):
            self._serve([])
        if self.member is not None:
            self.connection.send(partial(self._group.remove, self.member))
        self._is_closed = True
        self._is_back(span)

    def die(self) -> None:
        """Its process was killed."""
        self.connection.die()

    def become_fatal(self, code: int = KafkaError.FENCED_INSTANCE_ID) -> None:
        """Let the client be in a state that it can't leave."""
        self._fatal = KafkaError(code)
        self._poke()

    # -- the rest

    def _enter(self) -> None:
        if self.connection.is_dead:
            raise KilledError
        if self._is_closed:
            raise RuntimeError("Consumer closed")
        world = self._world
        self._thread = self._thread or world.current
        assert self._thread is world.current, "two threads use one Consumer"
        if self._yields and world.is_likely(self._yields):
            world.sleep(world.random.uniform(0, 0.01))
