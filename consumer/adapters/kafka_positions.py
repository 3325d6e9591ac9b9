"""Where each partition starts: the committed offset, or a rule that a person chose. Never a guess.

Called on the Kafka thread, inside on_assign. An error is never read as "no offset": that lost other clients' data.

What exists is asked of a client of its own: `Consumer.list_topics` inside a callback clears the binding's note of the
call under way, and the next callback of the same poll aborts the process (confluent-kafka 2.16.1).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.core.offset_map import OffsetMap, UnreadableMapError, decode
from consumer.core.record import Partition
from consumer.errors import KafkaFatalError, OffsetsLostError
from consumer.ports import Clock
from consumer.telemetry import Metrics, log

CALL_S = 5.0
"""One request's time, short enough for a stop to be noticed; the whole resolution has a budget of its own."""

BEYOND_SPAN_RECORDS = 1_000_000
"""How far a map may go beyond our span limit: more than is ever read between two looks at the span, and than the limit
of an earlier configuration is likely to be."""


class Starts(NamedTuple):
    """Partitions with numeric offsets."""

    partitions: list[TopicPartition]
    fresh: frozenset[Partition]
    """Those without a commit: the start that was resolved must be committed before anything is read."""
    is_new_group: bool
    """None of all had one, and there is no trace of an earlier life: this is the group's first start."""
    maps: dict[Partition, OffsetMap]
    """What is settled beyond the commits, where they say so."""


class StartPositions:
    """Resolves the start of partitions that were assigned.

    Args of the constructor:
        source_topics: topics where *start* applies while the group has no commit on any of their partitions.
        our_topics: retry tiers, held, dead letters: read from the low watermark, so that nothing of ours is skipped.
        start: "earliest", "latest" or a moment.
        budget_s: how long errors are waited out before the process stops.
        admin_conf: the properties of an admin client, made when a partition has no commit.
        max_span_records: how far beyond a commit we ever settle; a map that promises much more is not ours.
    """

    def __init__(
        self,
        *,
        group_id: str,
        source_topics: Sequence[str],
        our_topics: Sequence[str],
        start: str | datetime,
        budget_s: float,
        clock: Clock,
        pause: Callable[[float], None],
        admin_conf: dict[str, Any],
        max_span_records: int,
        metrics: Metrics,
    ) -> None:
        self._group_id = group_id
        self._source_topics = tuple(source_topics)
        self._our_topics = tuple(our_topics)
        self._start = start
        self._budget_s = budget_s
        self._clock = clock
        self._pause = pause
        self._admin_conf = admin_conf
        self._max_span_records = max_span_records
        self._metrics = metrics

    def set_password(self, password: str) -> None:
        """Let the next admin client show *password*."""
        self._admin_conf = {**self._admin_conf, "sasl.password": password}

    def resolve(
        self, consumer: Consumer, partitions: Sequence[TopicPartition], is_stopping: Callable[[], bool]
    ) -> Starts | None:
        """Return where each of *partitions* starts; None if it was told to stop while errors were waited out.

        Raises:
            OffsetsLostError: our topics have records and the group has no commit at all.
            KafkaFatalError: the brokers gave no answer within the budget.
        """
        deadline = self._clock.monotonic() + self._budget_s
        wait_s = 0.2
        while True:
            try:
                # all of it again: while one answer was waited for, another member may have committed what we had read
                return self._resolve(consumer, partitions)
            except KafkaException as error:
                problem: KafkaError = error.args[0]
                if problem.fatal() or self._clock.monotonic() + wait_s > deadline:
                    raise KafkaFatalError(
                        f"cannot read the committed offsets of group {self._group_id!r}: {problem.name()}. "
                        f"No answer within {self._budget_s:.0f} s; the process stops rather than guess where to start."
                    ) from None
                log.warning("offset.unresolved", reason=problem.name())
            if is_stopping():
                return None
            self._pause(wait_s)
            wait_s = min(wait_s * 2, 5.0)

    def _resolve(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> Starts:
        committed = _committed(consumer, partitions)
        fresh = frozenset(Partition(at.topic, at.partition) for at in committed if at.offset < 0)
        is_new_group = bool(fresh) and self._is_new_group(consumer)
        applies: dict[str, bool] = {}
        maps: dict[Partition, OffsetMap] = {}
        resolved: list[TopicPartition] = []
        for at in committed:
            if at.offset < 0:
                if at.topic not in applies:
                    applies[at.topic] = at.topic in self._source_topics and self._has_no_commit(consumer, [at.topic])
                at.offset = self._first(consumer, at, applies[at.topic])
                rule = str(self._start) if applies[at.topic] else "low watermark"
                log.debug("offset.resolved", topic=at.topic, partition=at.partition, offset=at.offset, rule=rule)
            elif text := self._metadata(at):
                maps[Partition(at.topic, at.partition)] = self._map(consumer, at, text)
            resolved.append(TopicPartition(at.topic, at.partition, at.offset))
        return Starts(resolved, fresh, is_new_group, maps)

    def _metadata(self, at: TopicPartition) -> str:
        """Return the text that was committed with *at*; the client reads that of others into foreign memory."""
        try:
            return at.metadata or ""
        except Exception:  # noqa: BLE001 - seen: UnicodeDecodeError, from bytes that are not the text's
            self._ignored(at, "unreadable")
            return ""

    def _map(self, consumer: Consumer, at: TopicPartition, text: str) -> OffsetMap:
        """Read what is settled beyond the commit *at*. What is no map of ours covers nothing."""
        here = TopicPartition(at.topic, at.partition)
        _, high = consumer.get_watermark_offsets(here, timeout=CALL_S, cached=False)
        limit = min(int(high), at.offset + self._max_span_records + BEYOND_SPAN_RECORDS)
        try:
            found = decode(text, at.offset, limit)
        except UnreadableMapError as error:
            self._ignored(at, str(error))
            return OffsetMap()
        settled = sum(run.end - run.first for run in found.runs)
        log.info("offset.map_read", topic=at.topic, partition=at.partition, offset=at.offset, settled=settled)
        return found

    def _ignored(self, at: TopicPartition, reason: str) -> None:
        self._metrics.offset_maps_ignored.add((reason,))
        log.warning("offset.map_ignored", topic=at.topic, partition=at.partition, offset=at.offset, reason=reason)

    def _is_new_group(self, consumer: Consumer) -> bool:
        """Tell a new group from one whose commits the broker has dropped: our topics have records of the latter."""
        # In this order. The other reader commits before it lets a first record onto a topic of ours: what is there
        # now was preceded by a commit, which is then seen. Asked the other way round, both may come in between.
        ours = self._all_partitions(self._our_topics)
        has_records = any(consumer.get_watermark_offsets(at, timeout=CALL_S, cached=False)[1] > 0 for at in ours)
        if not self._has_no_commit(consumer, (*self._source_topics, *self._our_topics)):
            return False
        if has_records:
            raise OffsetsLostError(
                f"group {self._group_id!r} has no committed offset at all, but its own topics have records, so it has "
                "worked before: the broker has forgotten it (offsets.retention.minutes, a week by default), or the "
                "group's name is new. Starting anywhere would lose or repeat events. Choose the offsets: "
                f"kafka-consumer-groups --group {self._group_id} --topic {self._source_topics[0]} --reset-offsets "
                "--to-datetime ... --execute, and --to-earliest for the retry and held topics; then start again."
            )
        return True

    def _first(self, consumer: Consumer, at: TopicPartition, start_applies: bool) -> int:
        low, high = consumer.get_watermark_offsets(TopicPartition(at.topic, at.partition), timeout=CALL_S, cached=False)
        if not start_applies or self._start == "earliest":
            return int(low)
        if self._start == "latest":
            return int(high)
        assert isinstance(self._start, datetime), "settings admit nothing else"
        moment_ms = int(self._start.timestamp() * 1000)
        (found,) = consumer.offsets_for_times([TopicPartition(at.topic, at.partition, moment_ms)], timeout=CALL_S)
        if found.error is not None:
            raise KafkaException(found.error)
        return int(found.offset) if found.offset >= 0 else int(high)  # -1: no record is that young

    def _has_no_commit(self, consumer: Consumer, topics: Sequence[str]) -> bool:
        return all(at.offset < 0 for at in _committed(consumer, self._all_partitions(topics)))

    def _all_partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        """Return every partition of those *topics* that exist."""
        admin = AdminClient(self._admin_conf)
        found: list[TopicPartition] = []
        for topic in topics:
            metadata = admin.list_topics(topic, timeout=CALL_S).topics[topic]
            if metadata.error is None:
                found.extend(TopicPartition(topic, number) for number in metadata.partitions)
            elif metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(metadata.error)
        return found


def _committed(consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
    """Return the committed offsets, OFFSET_INVALID where the broker says that there is none."""
    if not partitions:
        return []
    answer = consumer.committed([TopicPartition(at.topic, at.partition) for at in partitions], timeout=CALL_S)
    for at in answer:
        if at.error is not None:
            raise KafkaException(at.error)
        if at.offset < 0 and at.offset != OFFSET_INVALID:
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG))  # noqa: SLF001 - the client's name for it
    return list(answer)
