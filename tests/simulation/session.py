"""A group member's own side of the protocol: joining, giving back, losing, committing; the client's hidden threads.

What concerns the application waits in a queue, as an op, until the application calls poll or consume.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from consumer.core.record import Partition
from tests.simulation.broker import Broker
from tests.simulation.coordinator import Commit
from tests.simulation.network import Connection
from tests.simulation.partitions import Partitions

if TYPE_CHECKING:
    from tests.simulation.world import Strand

BRIEF_S = 0.1


@dataclass
class Reply:
    """The answer to a blocking request."""

    value: Any = None
    is_here: bool = False


class GroupSession:
    """One member of one group, from the first join to the end, over all its member ids."""

    def __init__(self, broker: Broker, conf: dict[str, Any], held_until: Callable[[], float]) -> None:
        self._broker = broker
        self._world = broker.world
        self._conf = conf
        self._group = broker.group(conf["group.id"])
        self._is_kip_848 = conf.get("group.protocol") == "consumer"
        self.connection = Connection(broker, held_until)
        self.topics: frozenset[str] = frozenset()
        self.member: int | None = None
        self._callbacks: dict[str, Callable[..., None]] = {}
        self._partitions = Partitions(broker, self.connection, self._poke)
        self._ops: deque[Callable[[], None]] = deque()
        self._waiter: Strand | None = None
        self._epoch = 0
        self._is_lost = False
        self._is_resolved = False
        """The callback has assigned or unassigned, be it nothing; else the client does what it was told."""
        self._unanswered = 0
        self._polled_at = self._world.now
        self._is_closing = self._is_closed = False
        self._next_stats = self._world.now + conf.get("statistics.interval.ms", 0) / 1000
        self.blocked: list[list[float]] = []
        """When the application's thread was in a call or a callback that waited, from and to."""
        self.on_attempt: Callable[[Partition, Commit], None] = lambda _partition, _commit: None
        """Called with each commit that leaves the client."""
        if conf.get("enable.auto.commit", True):
            self._world.after(self._interval_s, self._auto_commit)

    @property
    def _interval_s(self) -> float:
        return float(self._conf.get("auto.commit.interval.ms", 5000)) / 1000

    @property
    def assigned(self) -> list[Partition]:
        return self._partitions.assigned

    # -- members and their partitions

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
                self._take(partitions)
            self._confirm()

    def _revoke(self, partitions: Sequence[Partition]) -> None:
        self._is_resolved = False
        try:
            self._call("revoke", [TopicPartition(*at) for at in partitions])
            if not self._is_resolved:
                self._take_back(partitions)
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

    def _take(self, partitions: Iterable[Partition]) -> None:
        """Begin to read *partitions* by the client's own rule."""
        for at in partitions:
            self._partitions.assign(at, self._default_start(at))

    def _default_start(self, partition: Partition) -> int:
        commit = self._group.commits.get(partition)
        if commit is not None:
            return commit.offset
        log = self._broker.logs[partition]
        return {"earliest": log.low, "latest": log.high}.get(self._conf["auto.offset.reset"], log.high + 1)

    def _call(self, name: str, partitions: list[TopicPartition]) -> None:
        callback = self._callbacks.get(name)
        if callback is not None:
            span = self._blocks()
            callback(self, partitions)
            self._is_back(span)

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
            self.connection.send(partial(self._group.expire, self.member))
            self._lose(self.member)
        world.at(max(self._polled_at + longest_s, world.now + 0.5), self._watch_polls)

    def _take_back(self, partitions: Sequence[Partition]) -> None:
        if not all(self._partitions[at].is_assigned for at in partitions):
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG))
        self._unassign(partitions)

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

    # -- commits

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
            self._push(
                partial(
                    callback,
                    '{"topics": {}, "cgrp": {"state": "up"}, "brokers": {"b": {"source": "learned"}}, "ts": 0}',
                )
            )
        self._world.after(self._interval_s, self._auto_commit)

    def _send_commit(
        self,
        offsets: list[tuple[Partition, Commit]],
        told: list[tuple[Partition, Commit]],
        reply: Reply | None = None,
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
        reply: Reply | None,
    ) -> None:
        codes = self._group.commit(member or 0, epoch, offsets)
        self.connection.answer(partial(self._committed, member, offsets, told, codes, reply))

    def _committed(
        self,
        member: int | None,
        offsets: list[tuple[Partition, Commit]],
        told: list[tuple[Partition, Commit]],
        codes: dict[Partition, int],
        reply: Reply | None,
    ) -> None:
        self._unanswered -= 1
        for partition, commit in offsets:
            if not codes[partition]:
                self._partitions[partition].committed = commit.offset
        errors = [code for code in codes.values() if code]
        if KafkaError.UNKNOWN_MEMBER_ID in errors and member is not None:
            self._lose(member)
        result = [answered(at, commit, codes.get(at, 0)) for at, commit in told]
        if reply is not None:
            reply.value, reply.is_here = result, True
            self._poke()
        elif (callback := self._conf.get("on_commit")) is not None:
            error = KafkaError(errors[0]) if len(errors) == len(offsets) else None
            self._push(partial(callback, error, result))

    # -- the application's thread

    def _push(self, op: Callable[[], None]) -> None:
        self._ops.append(op)
        self._poke()

    def _poke(self) -> None:
        if self._waiter is not None:
            self._waiter.wake()

    def _blocks(self) -> list[float]:
        span = [self._world.now, float("inf")]
        self.blocked.append(span)
        return span

    def _is_back(self, span: list[float]) -> None:
        span[1] = self._world.now
        if span[1] - span[0] < BRIEF_S:
            self.blocked.remove(span)


def answered(at: Partition, commit: Commit, code: int) -> Any:
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
