"""Where each partition starts: the committed offset, or a rule that a person chose. Never a guess.

Called on the Kafka thread, inside on_assign. An error is never read as "no offset": that lost other clients' data.

What exists is asked of a client of its own: `Consumer.list_topics` inside a callback clears the binding's note of the
call under way, and the next callback of the same poll aborts the process (confluent-kafka 2.16.1).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.core.offset_map import OffsetMap, UnreadableMapError, decode
from consumer.core.record import Partition
from consumer.errors import KafkaFatalError, OffsetsLostError
from consumer.ports import Clock
from consumer.telemetry import Metrics, log

CALL_S = 5.0
"""One request's time; between two of them a stop is noticed, and the end of the whole resolution's budget."""
YOUNG_S = 600
"""How long after its first start a group may still have members that have not resolved theirs."""
MARK_S = 2.0
"""How long the mark of a first start may take after the first commit."""

BEYOND_SPAN_RECORDS = 1_000_000
"""How far a map may go beyond our span limit: more than is ever read between two looks at the span, and than the limit
of an earlier configuration is likely to be."""

GoOn = Callable[[], None]
"""Raises when it is time to stop asking."""
Told = Callable[[], None]
"""Logs or counts something, if the starts are taken."""


class Starts(NamedTuple):
    """Partitions with numeric offsets."""

    partitions: list[TopicPartition]
    fresh: frozenset[Partition]
    """Those without a commit: the start that was resolved must be committed before anything is read."""
    is_new_group: bool
    """None of all had one, and there is no trace of an earlier life: this is the group's first start."""
    maps: dict[Partition, OffsetMap]
    """What is settled beyond the commits, where they say so."""
    ends: Mapping[Partition, int] = MappingProxyType({})
    """Where a bounded replay is done."""


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
        rules: dict[str, str | datetime] = {}

        def go_on() -> None:
            if is_stopping():
                raise _StoppedError
            if self._clock.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's name for it

        while True:
            try:
                # all of it again: while one answer was waited for, another member may have committed what we had read;
                # but not the rules, since another member's first commit must not change ours
                starts, told = self._resolve(consumer, partitions, rules, go_on)
            except _StoppedError:
                return None
            except KafkaException as error:
                problem: KafkaError = error.args[0]
                is_over = self._clock.monotonic() + wait_s > deadline and not is_stopping()
                if problem.fatal() or is_over:
                    raise KafkaFatalError(
                        f"cannot read the committed offsets of group {self._group_id!r}: {problem.name()}. "
                        f"No answer within {self._budget_s:.0f} s; the process stops rather than guess where to start."
                    ) from None
                log.warning("offset.unresolved", reason=problem.name())
            else:
                for tell in told:
                    tell()
                return starts
            if is_stopping():
                return None
            self._pause(wait_s)
            wait_s = min(wait_s * 2, 5.0)

    def _resolve(
        self,
        consumer: Consumer,
        partitions: Sequence[TopicPartition],
        rules: dict[str, str | datetime],
        go_on: GoOn,
    ) -> tuple[Starts, list[Told]]:
        """Go through all of it once; *go_on* is asked between two requests.

        Returns:
            The starts, and what is to be told if they are taken.
        """
        told: list[Told] = []
        committed = committed_of(consumer, partitions)
        fresh = [TopicPartition(at.topic, at.partition) for at in committed if at.offset < 0]
        is_new_group = bool(fresh) and self._is_new_group(consumer, go_on)
        maps: dict[Partition, OffsetMap] = {}
        resolved: list[TopicPartition] = []
        for at in committed:
            go_on()
            if at.offset < 0:
                if at.topic not in rules:
                    rules[at.topic] = self._rule(consumer, at.topic, go_on, is_new_group=is_new_group)
                at.offset = self._first(consumer, at, rules[at.topic])
                log.debug("offset.resolved", topic=at.topic, partition=at.partition, offset=at.offset,
                          rule=str(rules[at.topic]))  # fmt: skip
            elif text := self._metadata(at, told):
                maps[Partition(at.topic, at.partition)] = self._map(consumer, at, text, told)
            resolved.append(TopicPartition(at.topic, at.partition, at.offset))
        if any(at.offset >= 0 for at in committed_of(consumer, fresh)):
            # it went to another member while we asked: our start would undo what that one has committed
            raise KafkaException(KafkaError(KafkaError._STATE))  # noqa: SLF001 - the client's name for it
        return Starts(resolved, frozenset(Partition(at.topic, at.partition) for at in fresh), is_new_group, maps), told

    def _metadata(self, at: TopicPartition, told: list[Told]) -> str:
        """Return the text that was committed with *at*; the client reads that of others into foreign memory."""
        try:
            return at.metadata or ""
        except Exception:  # noqa: BLE001 - seen: UnicodeDecodeError, from bytes that are not the text's
            told.append(partial(self._ignored, at, "unreadable"))
            return ""

    def _map(self, consumer: Consumer, at: TopicPartition, text: str, told: list[Told]) -> OffsetMap:
        """Read what is settled beyond the commit *at*. What is no map of ours covers nothing."""
        here = TopicPartition(at.topic, at.partition)
        _, high = consumer.get_watermark_offsets(here, timeout=CALL_S, cached=False)
        limit = min(int(high), at.offset + self._max_span_records + BEYOND_SPAN_RECORDS)
        try:
            found = decode(text, at.offset, limit)
        except UnreadableMapError as error:
            told.append(partial(self._ignored, at, str(error)))
            return OffsetMap()
        settled = sum(run.end - run.first for run in found.runs)
        told.append(partial(log.info, "offset.map_read", topic=at.topic, partition=at.partition, offset=at.offset,
                            settled=settled))  # fmt: skip
        return found

    def _ignored(self, at: TopicPartition, reason: str) -> None:
        self._metrics.offset_maps_ignored.add((reason,))
        log.warning("offset.map_ignored", topic=at.topic, partition=at.partition, offset=at.offset, reason=reason)

    def _is_new_group(self, consumer: Consumer, go_on: GoOn) -> bool:
        """Tell a new group from one whose commits the broker has dropped: our topics have records of the latter."""
        # In this order. The other reader commits before it lets a first record onto a topic of ours: what is there
        # now was preceded by a commit, which is then seen. Asked the other way round, both may come in between.
        has_records = bool(self._marked(consumer, go_on))
        if not self._has_no_commit(consumer, (*self._source_topics, *self._our_topics), go_on):
            return False
        if has_records:
            raise OffsetsLostError(
                f"group {self._group_id!r} has no committed offset at all, but its own topics have records, so it has "
                "worked before: the broker has forgotten it (offsets.retention.minutes, a week by default), or the "
                "group's name is new. Starting anywhere would lose or repeat events. Choose the offsets: "
                "`kochava-consumer offsets reset --to-datetime ... --execute`, and --to-earliest with --topic for each "
                "retry and held topic; then start again."
            )
        return True

    def _rule(self, consumer: Consumer, topic: str, go_on: GoOn, *, is_new_group: bool) -> str | datetime:
        """Return where the partitions of *topic* that have no commit start: "earliest", "latest" or a moment.

        In a group that works already they came later, and are read from their beginning. In one that has just begun
        they may be a member's that was slower than the first one: the chosen start counts, as of when the group began.
        """
        if topic not in self._source_topics:
            return "earliest"
        if is_new_group or self._has_no_commit(consumer, [topic], go_on):
            return self._start
        began_ms = None if self._start == "earliest" else self._began_ms(consumer, go_on)
        if began_ms is None:
            return "earliest"
        return datetime.fromtimestamp(began_ms / 1000, UTC) if self._start == "latest" else self._start

    def _began_ms(self, consumer: Consumer, go_on: GoOn) -> int | None:
        """Return when the group left its mark on a topic of ours, to a second; None if that is `YOUNG_S` ago or more.

        The mark is the first record that our topics ever have, and comes right after the first commit.
        """
        marked = self._marked(consumer, go_on)
        waited_s = 0.0
        while not marked and self._our_topics and waited_s < MARK_S:
            self._pause(0.2)
            waited_s += 0.2
            marked = self._marked(consumer, go_on)

        def began_since(moment_ms: int) -> bool:
            go_on()
            asked = [TopicPartition(at.topic, at.partition, moment_ms) for at in marked]
            return all(at.offset == 0 for at in for_times(consumer, asked))

        young_ms, old_ms = self._clock.wall_ms(), self._clock.wall_ms() - YOUNG_S * 1000
        if not marked or not began_since(old_ms):
            return None
        while young_ms - old_ms > 1000:
            middle_ms = (young_ms + old_ms) // 2
            if began_since(middle_ms):
                old_ms = middle_ms
            else:
                young_ms = middle_ms
        return old_ms

    def _marked(self, consumer: Consumer, go_on: GoOn) -> list[TopicPartition]:
        """Return the partitions of our topics that ever had a record."""
        found: list[TopicPartition] = []
        for at in self._all_partitions(self._our_topics, go_on):
            go_on()
            if consumer.get_watermark_offsets(at, timeout=CALL_S, cached=False)[1] > 0:
                found.append(at)
        return found

    def _first(self, consumer: Consumer, at: TopicPartition, rule: str | datetime) -> int:
        low, high = consumer.get_watermark_offsets(TopicPartition(at.topic, at.partition), timeout=CALL_S, cached=False)
        if rule == "earliest":
            return int(low)
        if rule == "latest":
            return int(high)
        assert isinstance(rule, datetime), "settings admit nothing else"
        moment_ms = int(rule.timestamp() * 1000)
        (found,) = for_times(consumer, [TopicPartition(at.topic, at.partition, moment_ms)])
        return int(found.offset) if found.offset >= 0 else int(high)  # -1: no record is that young

    def _has_no_commit(self, consumer: Consumer, topics: Sequence[str], go_on: GoOn) -> bool:
        return all(at.offset < 0 for at in committed_of(consumer, self._all_partitions(topics, go_on)))

    def _all_partitions(self, topics: Sequence[str], go_on: GoOn) -> list[TopicPartition]:
        """Return every partition of those *topics* that exist."""
        admin = AdminClient(self._admin_conf)
        found: list[TopicPartition] = []
        for topic in topics:
            go_on()
            metadata = admin.list_topics(topic, timeout=CALL_S).topics[topic]
            if metadata.error is None:
                found.extend(TopicPartition(topic, number) for number in metadata.partitions)
            elif metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(metadata.error)
        return found


class _StoppedError(Exception):
    """The process is to end."""


def for_times(consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    """Return the first offset of each at or after its moment, -1 where there is none."""
    found = consumer.offsets_for_times(asked, timeout=CALL_S)
    for at in found:
        if at.error is not None:
            raise KafkaException(at.error)
    return list(found)


def committed_of(consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
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
