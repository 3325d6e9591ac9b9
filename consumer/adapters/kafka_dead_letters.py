"""Reading a topic of ours once, from its start to the end that it has now; no group is joined, nothing is committed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.adapters.kafka_client import make_client
from consumer.adapters.kafka_record import to_record
from consumer.core.record import Record
from consumer.errors import CheckFailedError, KafkaFatalError

TIMEOUT_S = 10.0
SILENCE_S = 20.0
"""How long brokers may say nothing before we give up."""
POLL_S = 0.5
BATCH_RECORDS = 1_000

Progress = Callable[[int], None]
"""Called with offsets that were passed since the last call."""


class Span(NamedTuple):
    """Offsets of one partition, `end` exclusive."""

    start: int
    end: int


class TopicReader:
    """A consumer that is assigned by hand."""

    def __init__(self, conf: dict[str, Any]) -> None:
        self._servers = conf["bootstrap.servers"]
        self._consumer = make_client(Consumer, conf)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def spans(self, topic: str) -> dict[int, Span]:
        """Return what each partition holds now. The end is that of committed records.

        Raises:
            CheckFailedError: there is no such topic.
            KafkaFatalError: no broker answered.
        """
        try:
            numbers = _partitions(self._consumer, topic)
            return {
                number: Span(
                    *self._consumer.get_watermark_offsets(TopicPartition(topic, number), TIMEOUT_S, cached=False)
                )
                for number in numbers
            }
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise CheckFailedError(f"{topic} doesn't exist: kochava-consumer topics --create") from None
            raise self._refuse(topic, error.args[0]) from None

    def committed(self, topic: str, numbers: Sequence[int]) -> dict[int, int]:
        """Return what the group has committed of *topic*, where it has."""
        try:
            asked = [TopicPartition(topic, number) for number in numbers]
            return {at.partition: at.offset for at in self._consumer.committed(asked, TIMEOUT_S) if at.offset >= 0}
        except KafkaException as error:
            raise self._refuse(topic, error.args[0]) from None

    def read(
        self, topic: str, spans: Mapping[int, Span], progress: Progress = lambda _: None
    ) -> Iterator[list[Record]]:
        """Yield the records of *spans*, those of each partition in order.

        Raises:
            KafkaFatalError: the brokers said nothing for `SILENCE_S`, or refused.
        """
        left = {number: span for number, span in spans.items() if span.start < span.end}
        assigned = [TopicPartition(topic, number, span.start) for number, span in left.items()]
        self._consumer.assign(assigned)
        self._consumer.resume(assigned)  # a pause of an earlier reading outlives it
        deadline = time.monotonic() + SILENCE_S
        while left:
            batch: list[Record] = []
            for message in self._take():
                if message.error() is None:  # that they are away, the client says again and again
                    deadline = time.monotonic() + SILENCE_S
                self._note(topic, message, left, batch, progress)
            if time.monotonic() > deadline:
                raise KafkaFatalError(f"{self._servers} said nothing for {SILENCE_S:.0f} s while {topic} was read")
            if batch:
                yield batch
                deadline = time.monotonic() + SILENCE_S  # whoever takes it may take its time
        self._consumer.unassign()

    def _take(self) -> list[Message]:
        # consume waits for all of its time unless it has as many; so it takes only what is here
        first = self._consumer.poll(POLL_S)
        return [] if first is None else [first, *self._consumer.consume(BATCH_RECORDS - 1, 0)]

    def _note(
        self, topic: str, message: Message, left: dict[int, Span], batch: list[Record], progress: Progress
    ) -> None:
        """Keep *message* if it is asked for, and note how far its partition is."""
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name
            if error.retriable() or error.code() in _PASSING:
                return
            raise self._refuse(topic, error)
        at: Any = message
        number, offset = at.partition(), at.offset()
        span = left.get(number)
        if span is None:  # read to its end already
            return
        if error is None and offset < span.end:
            batch.append(to_record(message))
        # what stands last may be no record but the end of a transaction: behind it stands only the EOF
        position = min(offset if error is not None else offset + 1, span.end)
        if position > span.start:
            progress(position - span.start)
            left[number] = Span(position, span.end)
        if position >= span.end:
            del left[number]
            self._consumer.pause([TopicPartition(topic, number)])

    def _refuse(self, topic: str, error: KafkaError) -> KafkaFatalError:
        return KafkaFatalError(
            f"cannot read {topic} of {self._servers}: {error.name()}. `kochava-consumer check` says more."
        )


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    metadata = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return sorted(metadata.partitions)


_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})  # noqa: SLF001
"""The client goes on by itself; `SILENCE_S` bounds how long we wait for it."""
