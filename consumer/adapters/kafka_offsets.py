"""Where a group stands on its topics, and moving it, from outside: by a client that joins nothing.

Offsets are read and written by a plain `Consumer` of the group that never subscribes. Not by the admin client: its
list_consumer_group_offsets ends the process where the coordinator has moved (confluent-kafka 2.16.1), and a commit of
this kind is refused by the broker itself while the group has members, classic or KIP-848.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from consumer.adapters.kafka_ages import CONF as AGES_CONF, Ages
from consumer.adapters.kafka_client import make_client
from consumer.core.offset_map import OffsetMap, UnreadableMapError, decode, map_chars
from consumer.core.record import Partition
from consumer.core.standing import GroupFacts, Member, Standing
from consumer.errors import KafkaFatalError

T = TypeVar("T")

TIMEOUT_S = 10.0
COMMIT_TIMEOUT_S = 30.0
"""A coordinator may be moving; the client asks again by itself."""
POLL_S = 0.1
_FINDING_COORDINATOR = {
    KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}  # fmt: skip
_HAS_MEMBERS = {
    KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH, KafkaError.NON_EMPTY_GROUP,
}  # fmt: skip


class HasMembersError(Exception):
    """The broker refused a commit from outside: the group has members now."""


class Write(NamedTuple):
    """A commit to make: *metadata* is a map of ours, or empty."""

    partition: Partition
    offset: int
    metadata: str = ""


class KafkaOffsets:
    """One group, looked at and moved from outside. Use it as a context.

    Each method raises KafkaFatalError if no broker answers in time, or it refuses.
    """

    def __init__(self, conf: Mapping[str, Any], group_id: str) -> None:
        self._conf = {**conf, "log_level": 0}
        self._group_id = group_id
        self._answers: list[tuple[KafkaError | None, list[TopicPartition]]] = []
        self._is_committing = False
        own = {"group.id": group_id, "enable.auto.commit": False, "auto.offset.reset": "error",
               "on_commit": lambda error, offsets: self._answers.append((error, offsets))}  # fmt: skip
        self._consumer = make_client(Consumer, {**self._conf, **AGES_CONF, **own})
        self._ages = Ages(self._consumer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_committing:  # close() would wait for the answer, as long as a frozen broker likes
            self._consumer.close()

    @cached_property
    def _admin(self) -> AdminClient:
        return make_client(AdminClient, self._conf)

    def group(self) -> GroupFacts:
        """Return the group's state and members. One that no broker knows is "dead", as Kafka says."""
        return self._ask("describe", self._describe)

    def _describe(self) -> GroupFacts:
        asked = self._admin.describe_consumer_groups([self._group_id], request_timeout=TIMEOUT_S)[self._group_id]
        try:
            found = asked.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            return GroupFacts(self._group_id, "dead")
        members = (
            Member(_printable(of.client_id), _printable(of.host.removeprefix("/")), len(of.assignment.topic_partitions))
            for of in found.members
        )
        return GroupFacts(self._group_id, found.state.name.lower().replace("_", " "), tuple(sorted(members)))

    def standing(self, topics: Sequence[str], *, with_ages: bool = False) -> list[Standing]:
        """Look at the group on each partition of those *topics* that exist; *with_ages* reads a record of each."""
        found = self._ask("look at", lambda: self._look_at(topics))
        if not with_ages:
            return found
        ages = self._ask("read for", lambda: self._ages.of(found))
        return [one._replace(lag_s=ages.get(one.partition)) for one in found]

    def _look_at(self, topics: Sequence[str]) -> list[Standing]:
        partitions = [at for topic in topics for at in _partitions(self._consumer, topic)]
        return [_look(self._consumer, at) for at in self._committed(partitions)]

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        found: list[TopicPartition] = self._consumer.committed(partitions, timeout=TIMEOUT_S) if partitions else []
        _refuse_errors(found)
        return found

    def commits(self, topics: Sequence[str]) -> dict[Partition, tuple[int, str]]:
        """Return offset and metadata of each commit on those *topics*; anything may stand behind our own text."""

        def ask() -> list[TopicPartition]:
            return self._committed([at for topic in topics for at in _partitions(self._consumer, topic)])

        found = self._ask("look at", ask)
        return {Partition(at.topic, at.partition): (at.offset, _text_of(at)) for at in found if at.offset >= 0}

    def first_at(self, partitions: Iterable[Partition], at_ms: int) -> dict[Partition, int | None]:
        """Return the offset of the first record of that time or later; None where there is none."""
        asked = [TopicPartition(*partition, at_ms) for partition in partitions]
        found = self._ask("look at", lambda: self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S))
        return {Partition(at.topic, at.partition): at.offset if at.offset >= 0 else None for at in found}

    def commit(self, writes: Sequence[Write]) -> None:
        """Commit all of *writes* in one request: a broker takes the whole of it or, rarely, parts.

        Raises:
            HasMembersError: it was refused, since somebody is in the group.
            KafkaFatalError: it was refused, or there was no answer and it may have been done or not.
        """
        offsets = [
            TopicPartition(*one.partition, one.offset, one.metadata)
            if one.metadata
            else TopicPartition(*one.partition, one.offset)  # none at all: an empty text is sent as a NUL
            for one in writes
        ]
        try:
            self._commit(offsets)
        except KafkaException as error:
            if error.args[0].code() in _HAS_MEMBERS:
                raise HasMembersError from None
            raise self._fatal("commit for", error) from None

    def _commit(self, offsets: list[TopicPartition]) -> None:
        """Not synchronously: that has no bound, and was seen to wait for minutes for a frozen broker."""
        self._is_committing = True
        self._consumer.commit(offsets=offsets, asynchronous=True)
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while not self._answers:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's own name for it
            self._consumer.poll(POLL_S)
        self._is_committing = False
        error, answers = self._answers.pop()
        if error is not None:
            raise KafkaException(error)
        _refuse_errors(answers)

    def _ask(self, what: str, question: Callable[[], T]) -> T:
        try:
            return _patiently(question)
        except KafkaException as error:
            raise self._fatal(what, error) from None

    def _fatal(self, what: str, error: KafkaException) -> KafkaFatalError:
        return KafkaFatalError(
            f"cannot {what} group {self._group_id!r} on {self._conf['bootstrap.servers']}: {error.args[0].name()}. "
            "`kochava-consumer check` says more."
        )


def _is_finding_coordinator(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _FINDING_COORDINATOR


def _patiently(question: Callable[[], T]) -> T:
    """Ask again while the coordinator moves, or a broker has just started."""
    again = Retrying(
        retry=retry_if_exception(_is_finding_coordinator), stop=stop_after_delay(TIMEOUT_S), wait=wait_fixed(0.2),
        reraise=True,
    )  # fmt: skip
    return again(question)


def _printable(text: str) -> str:
    """Return what others have chosen without what would steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _refuse_errors(answers: Iterable[TopicPartition]) -> None:
    for at in answers:
        if at.error is not None:
            raise KafkaException(at.error)


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    metadata = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if metadata.error is not None and metadata.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise KafkaException(metadata.error)
    return [TopicPartition(topic, number) for number in sorted(metadata.partitions)]


def _look(consumer: Consumer, at: TopicPartition) -> Standing:
    partition = Partition(at.topic, at.partition)
    low, high = consumer.get_watermark_offsets(TopicPartition(*partition), timeout=TIMEOUT_S, cached=False)
    if at.offset < 0:
        return Standing(partition, low, None, high)
    return Standing(partition, low, at.offset, high, *_read_map(at, high))


def _read_map(at: TopicPartition, high: int) -> tuple[OffsetMap, str | None, str]:
    """Read what was committed with *at*: the map, or why it is no map of ours if it isn't, and its text."""
    try:
        text = at.metadata or ""
    except Exception:  # noqa: BLE001 - the client reads the text of others into foreign memory: seen, UnicodeDecodeError
        return OffsetMap(), "unreadable", ""
    try:
        return decode(text, at.offset, high), None, text[: map_chars(text)]
    except UnreadableMapError as error:
        return OffsetMap(), str(error), ""


def _text_of(at: TopicPartition) -> str:
    try:
        return at.metadata or ""
    except Exception:  # noqa: BLE001 - as above
        return ""
