"""A bounded replay on the brokers: its plan, made once, and the starts of partitions that were assigned under it."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.adapters.kafka_client import make_client
from consumer.adapters.kafka_positions import CALL_S, GoOn, StartPositions, Starts, Told, committed_of, for_times
from consumer.core.record import Partition
from consumer.core.replay import Mark, Span, Unplanned, split, write_mark
from consumer.errors import KafkaFatalError, ReplayRefusedError
from consumer.telemetry import log

BUDGET_S = 30.0
"""How long a plan may take while brokers come and go."""


class Part(NamedTuple):
    """What a replay reads of one partition: offsets from `start` to before `end`. `at` is how far it has come."""

    partition: Partition
    start: int
    end: int
    at: int

    @property
    def left(self) -> int:
        """Offsets that are still to be read; those that the log skips among them."""
        return max(0, self.end - self.at)


class Plan(NamedTuple):
    """All parts, and whether it was made now or found in the group's commits."""

    parts: tuple[Part, ...]
    is_new: bool

    @property
    def left(self) -> int:
        return sum(part.left for part in self.parts)


def plan(
    conf: dict[str, Any], group_id: str, topics: Sequence[str], span: Span, digest: str, *, is_kept: bool = True
) -> Plan:
    """Find the plan of *group_id* in its commits; else make one, and commit it as the starts of all partitions.

    Args:
        conf: the properties of a client.
        group_id: the replay's own group.
        topics: the source topics.
        span: the timestamps that are asked for.
        digest: of everything that was asked for.
        is_kept: False only looks, and commits nothing.

    Raises:
        KafkaFatalError: no broker answered, or it refused.
        ReplayRefusedError: the group works under another plan, or is no replay's.
    """
    consumer = make_client(Consumer, {**conf, "group.id": group_id, "enable.auto.commit": False, "log_level": 0})
    deadline = time.monotonic() + BUDGET_S
    try:
        while True:
            try:
                return _plan(consumer, topics, span, digest, is_kept=is_kept)
            except KafkaException as error:
                if not _may_pass(error.args[0]) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
    except KafkaException as error:
        problem: KafkaError = error.args[0]
        if problem.code() in {KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION}:
            raise ReplayRefusedError(
                f"group {group_id!r} got its first member in this very moment: another process has begun this replay. "
                "Start again, and this one joins it."
            ) from None
        raise KafkaFatalError(
            f"cannot plan the replay on {conf['bootstrap.servers']}: {problem.name()}. `kochava-consumer check` says "
            "more. Nothing was sent."
        ) from None
    finally:
        consumer.close()


def _plan(consumer: Consumer, topics: Sequence[str], span: Span, digest: str, *, is_kept: bool) -> Plan:
    partitions = [at for topic in topics for at in _partitions(consumer, topic)]
    begun = [at for at in committed_of(consumer, partitions) if at.offset >= 0]
    if begun:
        return Plan(tuple(_found(at, digest) for at in begun), is_new=False)
    parts = tuple(_part(consumer, at, span) for at in partitions)
    if is_kept:
        _commit(consumer, parts, digest)
    return Plan(parts, is_new=True)


def _may_pass(problem: KafkaError) -> bool:
    """Say whether to ask again: the coordinator moves, or the broker has just started."""
    return problem.retriable() or problem.code() in {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError._TRANSPORT,  # noqa: SLF001 - the client's names
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
    }


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    metadata = consumer.list_topics(topic, timeout=CALL_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return [TopicPartition(topic, number) for number in sorted(metadata.partitions)]


def _part(consumer: Consumer, at: TopicPartition, span: Span) -> Part:
    """From the first offset at or after the span's begin to the end as of now: timestamps may be in any order."""
    here = TopicPartition(at.topic, at.partition)
    _, high = consumer.get_watermark_offsets(here, timeout=CALL_S, cached=False)
    (first,) = for_times(consumer, [TopicPartition(at.topic, at.partition, span.from_ms)])
    start = min(first.offset, high) if first.offset >= 0 else high
    return Part(Partition(at.topic, at.partition), start, high, start)


def _found(at: TopicPartition, digest: str) -> Part:
    mark = mark_of(at)
    if isinstance(mark, Unplanned):
        raise ReplayRefusedError(
            f"the group has a commit on {at.topic}[{at.partition}] that is no replay's: choose another --id"
        )
    if mark.digest != digest:
        raise ReplayRefusedError(
            "a replay with this --id was begun with other times, filters, settings or another mapping (its plan is "
            f"{mark.digest}, this would be {digest}): go on with what it was begun with, or choose another --id"
        )
    return Part(Partition(at.topic, at.partition), at.offset, mark.end, at.offset)


def _commit(consumer: Consumer, parts: Sequence[Part], digest: str) -> None:
    """Commit all starts in one request; the broker refuses it if the group has a member by now."""
    offsets = [TopicPartition(*part.partition, part.start, write_mark(Mark(digest, part.end))) for part in parts]
    for at in consumer.commit(offsets=offsets, asynchronous=False) or ():
        if at.error is not None:
            raise KafkaException(at.error)


def mark_of(at: TopicPartition) -> Mark | Unplanned:
    """Return the plan's mark that was committed with *at*."""
    try:
        return split(at.metadata or "")[1]
    except Exception:  # noqa: BLE001 - the client reads the text of others into foreign memory
        return Unplanned()


def is_over(consumer_conf: dict[str, Any], group_id: str, topics: Sequence[str]) -> bool:
    """Say whether every partition is committed to its planned end. For a member that was given none."""
    consumer = make_client(Consumer, {**consumer_conf, "group.id": group_id, "enable.auto.commit": False})
    try:
        partitions = [at for topic in topics for at in _partitions(consumer, topic)]
        marked = [(at.offset, mark_of(at)) for at in committed_of(consumer, partitions) if at.offset >= 0]
    except KafkaException:
        return False
    finally:
        consumer.close()
    return all(isinstance(mark, Mark) and offset >= mark.end for offset, mark in marked)


class ReplayPositions(StartPositions):
    """Starts where the group's commits say, and ends where their marks say."""

    def __init__(self, *, digest: str, **known: Any) -> None:
        super().__init__(**known)
        self._digest = digest

    def _resolve(
        self, consumer: Consumer, partitions: Sequence[TopicPartition], _rules: dict[str, Any], go_on: GoOn
    ) -> tuple[Starts, list[Told]]:
        """See `StartPositions`. No rule is needed: the plan has committed all starts."""
        told: list[Told] = []
        maps = {}
        ends: dict[Partition, int] = {}
        resolved: list[TopicPartition] = []
        for at in committed_of(consumer, partitions):
            go_on()
            partition = Partition(at.topic, at.partition)
            low, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout=CALL_S, cached=False)
            offset = at.offset
            if offset < 0:  # it is younger than the plan
                offset, ends[partition] = int(high), int(high)
            else:
                text = self._metadata(at, told)
                map_text, mark = split(text)
                if isinstance(mark, Unplanned) or mark.digest != self._digest:
                    raise ReplayRefusedError(f"the commit on {at.topic}[{at.partition}] is not of this replay's plan")
                ends[partition] = mark.end
                if low > offset:
                    self._expired(partition, offset, min(low, mark.end))
                    offset = int(min(low, mark.end))
                elif map_text:
                    maps[partition] = self._map(consumer, at, map_text, told)
            resolved.append(TopicPartition(*partition, offset))
        return Starts(resolved, frozenset(), False, maps, ends), told

    def _expired(self, partition: Partition, offset: int, low: int) -> None:
        self._metrics.replay_expired.add((), low - offset)
        log.error("replay.expired", topic=partition.topic, partition=partition.number, offset=offset,
                  records=low - offset)  # fmt: skip


def moment_ms(text: str) -> int:
    """Return the epoch milliseconds of an ISO 8601 moment.

    Raises:
        ValueError: it is none, or names no zone: a guess would replay the wrong hours.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("names no zone; end it with Z for UTC")
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
