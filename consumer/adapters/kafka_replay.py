"""A bounded replay on the brokers: its plan, made once, and the starts of partitions that were assigned under it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from consumer.adapters.kafka_offsets import HasMembersError, KafkaOffsets, Write
from consumer.adapters.kafka_positions import CALL_S, GoOn, StartPositions, Starts, Told, committed_of
from consumer.core.record import Partition
from consumer.core.replay import Mark, Span, Unplanned, split, write_mark
from consumer.errors import KafkaFatalError, ReplayRefusedError
from consumer.telemetry import log


class Part(NamedTuple):
    """What a replay reads of one partition: up to before `end`. `at` is how far it has come."""

    partition: Partition
    at: int
    end: int

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


def plan(offsets: KafkaOffsets, topics: Sequence[str], span: Span, digest: str) -> Plan:
    """Find the plan in the group's commits, else make one: from the first record at or after the span's begin.

    Up to the end as of now, since timestamps may be in any order. Nothing is written; `keep` does that.

    Raises:
        KafkaFatalError: no broker answered, or it refused.
        ReplayRefusedError: the group works under another plan, or is no replay's.
    """
    begun = offsets.commits(topics)
    if begun:
        parts = [_found(partition, offset, text, digest) for partition, (offset, text) in begun.items()]
        return Plan(tuple(parts), is_new=False)
    standing = offsets.standing(topics)
    first = offsets.first_at([one.partition for one in standing], max(0, span.from_ms))
    return Plan(tuple(_part(one.partition, first[one.partition], one.high) for one in standing), is_new=True)


def _part(partition: Partition, first: int | None, end: int) -> Part:
    return Part(partition, end if first is None else min(first, end), end)


def _found(partition: Partition, offset: int, text: str, digest: str) -> Part:
    mark = split(text)[1]
    if isinstance(mark, Unplanned):
        raise ReplayRefusedError(
            f"the group has a commit on {partition.topic}[{partition.number}] that is no replay's: choose another --id"
        )
    if mark.digest != digest:
        raise ReplayRefusedError(
            "a replay with this --id was begun with other times, filters, settings or another mapping (its plan is "
            f"{mark.digest}, this would be {digest}): go on with what it was begun with, or choose another --id"
        )
    return Part(partition, offset, mark.end)


def keep(offsets: KafkaOffsets, made: Plan, digest: str) -> None:
    """Commit a new plan as the starts of all partitions, in one request.

    Raises:
        KafkaFatalError: no broker answered, or it refused.
        ReplayRefusedError: another process was quicker.
    """
    writes = [Write(part.partition, part.at, write_mark(Mark(digest, part.end))) for part in made.parts]
    try:
        offsets.commit(writes)
    except HasMembersError:
        raise ReplayRefusedError(
            "another process has begun this replay in this very moment: start again, and this one joins it"
        ) from None


def is_over(conf: Mapping[str, Any], group_id: str, topics: Sequence[str]) -> bool:
    """Say whether every partition is committed to its planned end. For a member that was given none."""
    try:
        with KafkaOffsets(conf, group_id) as offsets:
            marked = [(offset, split(text)[1]) for offset, text in offsets.commits(topics).values()]
    except KafkaFatalError:
        return False
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
                map_text, mark = split(self._metadata(at, told))
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
