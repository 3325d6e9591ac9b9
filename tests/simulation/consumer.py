"""The client's `Consumer`, as far as the product calls it, with the real one's ways.

What it claims is held against the real one by tests/contract/test_consumer_semantics.py; the facts behind are in
docs/architecture.md ("Facts of the client that shape the Kafka thread").
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from consumer.core.record import Partition
from tests.simulation.broker import Broker, Message
from tests.simulation.coordinator import Commit
from tests.simulation.network import Connection
from tests.simulation.partitions import Partitions
from tests.simulation.world import KilledError, Strand

BRIEF_S = 0.1
COORDINATOR_S = 2.0
"""How long a synchronous commit looks for a coordinator that is away."""


@dataclass
class _Reply:
    """The answer to a blocking request."""

    value: Any = None
    is_here: bool = False


class FakeConsumer:
    """One group member. Used by one thread only, as the real one must be; anything else is an error here.

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
        self._broker = broker
        self._world = broker.world
        self._conf = conf
        self._group = broker.group(conf["group.id"])
        self._is_kip_848 = conf.get("group.protocol") == "consumer"
        self._yields = yields
        self._held_until = held_until
        self.connection = Connection(broker, held_until)
        self.topics: frozenset[str] = frozenset()
        self._callbacks: dict[str, Callable[..., None]] = {}
        self._partitions = Partitions(broker, self.connection, self._poke)
        self._ops: deque[Callable[[], None]] = deque()
        self._waiter: Strand | None = None
        self._thread: Strand | None = None
        self.member: int | None = None
        self._epoch = 0
        self._is_lost = False
        self._unanswered = 0
        self._polled_at = self._world.now
        self._fatal: KafkaError | None = None
        self._is_fatal_told = False
        self._is_closing = self._is_closed = False
        self._is_resolved = False
        self._next_stats = self._world.now + conf.get("statistics.interval.ms", 0) / 1000
        self.blocked: list[list[float]] = []
        """When its thread was in a call or a callback that waited, from and to."""
        self.on_attempt: Callable[[Partition, Commit], None] = lambda _partition, _commit: None
        """Called with each commit that leaves the client."""
        if conf.get("enable.auto.commit", True):
            self._world.after(self._interval_s, self._auto_commit)

    @property
    def _interval_s(self) -> float:
        return float(self._conf.get("auto.commit.interval.ms", 5000)) / 1000

    # -- the group

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

    def _join(self) -> None:
        self.connection.send(self._do_join)

    def _do_join(self) -> None:
        if not self.connection.is_dead and not self._is_closing:
            self.member = self._group.join(self)

    def told(self, member: int, epoch: int, revoke: Sequence[Partition], assign: Sequence[Partition]) -> None:
        self.connection.answer(partial(self._hear, member, epoch, revoke, assign))

    def _hear(self, member: int, epoch: int, revoke: Sequence[Partition], assign: Sequence[Partition]) -> None:
        if self._is_lost or member != self.member:
            return
        self._epoch = epoch
        if revoke:
            self._push(partial(self._revoke, revoke))
        elif assign or not self._is_kip_848:
            self._push(partial(self._assign, assign))
        else:
            self._confirm()

    def fenced(self, member: int) -> None:
        self.connection.answer(partial(self._lose, member))

    def _lose(self, member: int) -> None:
        if member != self.member or self._is_lost:
            return
        self._is_lost = True
        self._ops.clear()
        self._push(self._give_up)

    def _confirm(self) -> None:
        member = self.member
        if member is not None:
            self.connection.send(partial(self._group.confirm, member))

    def _assign(self, partitions: Sequence[Partition]) -> None:
        self._is_resolved = False
        try:
            self._call("assign", [TopicPartition(*at) for at in partitions])
        finally:
            if not self._is_resolved:
                self.incremental_assign([TopicPartition(*at) for at in partitions])
            self._confirm()

    def _revoke(self, partitions: Sequence[Partition]) -> None:
        try:
            self._call("revoke", [TopicPartition(*at) for at in partitions])
        finally:
            self._unassign([at for at in partitions if self._partitions[at].is_assigned])
            self._confirm()

    def _give_up(self) -> None:
        """Lose the assignment: nothing is committed; then join anew."""
        lost = self.assigned
        try:
            if lost:
                self._call("lost", [TopicPartition(*at) for at in lost])
        finally:
            self._unassign(self.assigned)
            self._is_lost = False
            self.member = None
            if not self._is_closing:
                self._join()

    def _call(self, name: str, partitions: list[TopicPartition]) -> None:
        callback = self._callbacks.get(name)
        if callback is not None:
            span = self._blocks()
            callback(self, partitions)
            self._is_back(span)

    @property
    def assigned(self) -> list[Partition]:
        return self._partitions.assigned

    # -- what to read

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self._enter()
        self._is_resolved = True
        for at in partitions:
            toppar = self._partitions[Partition(at.topic, at.partition)]
            if toppar.is_assigned:
                raise KafkaException(KafkaError(KafkaError._CONFLICT))
            toppar.is_assigned = True
            self._partitions.go_to(toppar, at.offset if at.offset >= 0 else self._default_start(toppar.partition))

    def _default_start(self, partition: Partition) -> int:
        commit = self._group.commits.get(partition)
        if commit is not None:
            return commit.offset
        log = self._broker.logs[partition]
        return {"earliest": log.low, "latest": log.high}.get(self._conf["auto.offset.reset"], log.high + 1)

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        self._enter()
        leaving = [Partition(at.topic, at.partition) for at in partitions]
        if not all(self._partitions[at].is_assigned for at in leaving):
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG))
        self._unassign(leaving)

    def _unassign(self, partitions: Iterable[Partition]) -> None:
        """Commit what is stored, even if only its metadata is new, and forget it."""
        last: list[tuple[Partition, Commit]] = []
        for at in partitions:
            toppar = self._partitions[at]
            toppar.is_assigned = False
            toppar.version += 1
            if toppar.stored is not None:
                last.append((at, toppar.stored))
                toppar.stored = None
        if last and not self._is_lost and self._conf.get("enable.auto.commit", True):
            self._send_commit(last, last)

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

    def _push(self, op: Callable[[], None]) -> None:
        self._ops.append(op)
        self._poke()

    def _poke(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()

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
        reply = _Reply()
        self._send_commit(chosen, chosen, reply)
        self._await(reply, COORDINATOR_S, KafkaError._WAIT_COORD)
        answered: list[TopicPartition] = reply.value
        problems = [at.error for at in answered if at.error is not None]
        if problems and len(problems) == len(answered):
            raise KafkaException(problems[0])
        return answered

    def _to_commit(self) -> list[tuple[Partition, Commit]]:
        """Return what is stored beyond what was committed: offsets alone are compared."""
        return [
            (at, toppar.stored)
            for at, toppar in self._partitions.known.items()
            if toppar.is_assigned and toppar.stored is not None and toppar.stored.offset > toppar.committed
        ]

    def _auto_commit(self) -> None:
        if self.connection.is_dead or self._is_closed:
            return
        if self.connection.is_held:
            self._world.after(0.1, self._auto_commit)
            return
        chosen = self._to_commit()
        if chosen and not self._is_lost and self.member is not None and not self._is_closing:
            names = {at for at, _ in chosen}
            others = [(at, Commit(OFFSET_INVALID, "")) for at in self.assigned if at not in names]
            self._send_commit(chosen, [*chosen, *others])
        if (callback := self._conf.get("stats_cb")) is not None and self._world.now >= self._next_stats:
            self._next_stats = self._world.now + self._conf["statistics.interval.ms"] / 1000
            self._push(partial(callback, '{"topics": {}, "cgrp": {"state": "up"}}'))
        self._world.after(self._interval_s, self._auto_commit)

    def _send_commit(
        self,
        offsets: list[tuple[Partition, Commit]],
        told: list[tuple[Partition, Commit]],
        reply: _Reply | None = None,
    ) -> None:
        self._unanswered += 1
        for at, commit in offsets:
            self.on_attempt(at, commit)
        self.connection.send(partial(self._do_commit, self.member, self._epoch, offsets, told, reply))

    def _do_commit(
        self,
        member: int | None,
        epoch: int,
        offsets: list[tuple[Partition, Commit]],
        told: list[tuple[Partition, Commit]],
        reply: _Reply | None,
    ) -> None:
        codes = self._group.commit(member or 0, epoch, offsets)
        self.connection.answer(partial(self._committed, member, offsets, told, codes, reply))

    def _committed(
        self,
        member: int | None,
        offsets: list[tuple[Partition, Commit]],
        told: list[tuple[Partition, Commit]],
        codes: dict[Partition, int],
        reply: _Reply | None,
    ) -> None:
        self._unanswered -= 1
        for partition, commit in offsets:
            if not codes[partition]:
                self._partitions[partition].committed = commit.offset
        errors = [code for code in codes.values() if code]
        if KafkaError.UNKNOWN_MEMBER_ID in errors and member is not None:
            self._lose(member)
        answered = [_answered(at, commit, codes.get(at, 0)) for at, commit in told]
        if reply is not None:
            reply.value, reply.is_here = answered, True
            self._poke()
        elif (callback := self._conf.get("on_commit")) is not None:
            error = KafkaError(errors[0]) if len(errors) == len(offsets) else None
            self._push(partial(callback, error, answered))

    # -- questions to the broker

    def committed(self, partitions: Sequence[TopicPartition], timeout: float = -1.0) -> list[TopicPartition]:
        asked = [Partition(at.topic, at.partition) for at in partitions]

        def answer() -> list[TopicPartition]:
            found = [(at, self._group.commits.get(at)) for at in asked]
            return [TopicPartition(*at) if one is None else _answered(at, one, 0) for at, one in found]

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
        reply = _Reply()

        def receive(value: Any) -> None:
            reply.value, reply.is_here = value, True
            self._poke()

        self.connection.send(lambda: self.connection.answer(partial(receive, answer())))
        self._await(reply, timeout if timeout >= 0 else 60.0, KafkaError._TIMED_OUT)
        return reply.value

    def _await(self, reply: _Reply, timeout_s: float, otherwise: int) -> None:
        span = self._blocks()
        while not reply.is_here:
            if not self._wait(span[0] + timeout_s):
                self._is_back(span)
                raise KafkaException(KafkaError(otherwise))
        self._is_back(span)

    def _blocks(self) -> list[float]:
        span = [self._world.now, float("inf")]
        self.blocked.append(span)
        return span

    def _is_back(self, span: list[float]) -> None:
        span[1] = self._world.now
        if span[1] - span[0] < BRIEF_S:
            self.blocked.remove(span)

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

    def _watch_polls(self) -> None:
        """Who doesn't poll for `max.poll.interval.ms` leaves the group."""
        longest_s = self._conf.get("max.poll.interval.ms", 300_000) / 1000
        world = self._world
        if self.connection.is_dead or self._is_closing:
            return
        is_here = self.member is not None and not self._is_lost and not self.connection.is_held
        if is_here and world.now - self._polled_at >= longest_s:
            world.note("client", f"member {self.member} did not poll for {longest_s:g} s")
            assert self.member is not None, "looked at above"
            self.connection.send(partial(self._group.remove, self.member))
            self._lose(self.member)
        world.at(max(self._polled_at + longest_s, world.now + 0.5), self._watch_polls)

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


def _answered(at: Partition, commit: Commit, code: int) -> Any:
    """Make what the client hands out: a TopicPartition, or with an error, which can't be set from Python, our own."""
    if code:
        return _Refused(*at, commit.offset, commit.metadata or None, KafkaError(code))
    given = (commit.offset, commit.metadata) if commit.metadata else (commit.offset,)
    return TopicPartition(*at, *given)


@dataclass
class _Refused:
    topic: str
    partition: int
    offset: int
    metadata: str | None
    error: KafkaError
