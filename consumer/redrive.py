"""Redriving: which dead letters would be sent now, and moving exactly those to the first retry topic.

Reading the topic first and opening the sender second would leave a gap in which somebody else redrives the same ones.
So after opening, which fences everybody else, the markers that came meanwhile are read, and what they mark is left out.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from consumer.adapters.kafka_dead_letters import Progress, Span, TopicReader
from consumer.adapters.kafka_redrive import Outgoing, TransactionalSender
from consumer.core.dead_letters import DeadLetter, Place, headers_to_redrive, marker_for, read_marker, with_copies
from consumer.core.record import Record
from consumer.dead_letters import Scan, read_places
from consumer.errors import KafkaFatalError

BATCH_RECORDS = 500
BATCH_BYTES = 8 * 1024 * 1024
"""Of one transaction; far below what the producer's queue takes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a redrive would do."""

    movable: Mapping[Place, tuple[DeadLetter, tuple[Place, ...]]]
    """By the place of the one that is moved: it, and all its copies, which are marked with it."""
    staying: Counter[str]
    """Why the others would not be sent now, and how many."""

    @property
    def total(self) -> int:
        return len(self.movable) + self.staying.total()

    @property
    def share(self) -> float:
        """Of all that are meant, those that would be sent now."""
        return len(self.movable) / self.total if self.total else 1.0

    @property
    def twice(self) -> int:
        """How many may have reached Kochava before."""
        return sum(letter.may_count_twice for letter, _ in self.movable.values())


def plan(found: Scan) -> Plan:
    """Say what redriving all that was *found*, and judged, would do."""
    movable: dict[Place, tuple[DeadLetter, tuple[Place, ...]]] = {}
    staying: Counter[str] = Counter()
    for letter, copies in with_copies(found.letters):
        reason = found.why_not.get(letter.place)
        if reason is None:
            movable[letter.place] = (letter, copies)
        else:
            staying[reason] += 1
    return Plan(movable, staying)


class Redrive:
    """Moves what a plan says."""

    def __init__(self, reader: TopicReader, sender: TransactionalSender, topic: str, retry_topic: str) -> None:
        self._reader = reader
        self._sender = sender
        self._topic = topic
        self._retry_topic = retry_topic
        self.moved = 0

    def open(self, chosen: Plan, spans: Mapping[int, Span]) -> Plan:
        """Fence everybody else, and return *chosen* without what they moved since *spans* were read."""
        self._sender.open()
        now = self._reader.spans(self._topic)
        since = {number: Span(span.end, now[number].end) for number, span in spans.items() if number in now}
        records = chain.from_iterable(self._reader.read(self._topic, since))
        gone = {at for record in records if (at := read_marker(record)) is not None}
        left = {
            place: (letter, copies)
            for place, (letter, copies) in chosen.movable.items()
            if not any(copy[1:] in gone for copy in copies)
        }
        return Plan(left, chosen.staying)

    def run(self, chosen: Plan, rate_per_s: float, progress: Progress) -> None:
        """Move all of *chosen*, in transactions that each take a moment: readers of the retry topic wait behind them.

        Raises:
            KafkaFatalError: some were not moved; `moved` were, and a redrive that is started again goes on.
        """
        begun = time.monotonic()
        records = read_places(self._reader, self._topic, chosen.movable.keys())
        try:
            for batch in _batches(records, max(1, min(BATCH_RECORDS, int(rate_per_s)))):
                self._sender.send([each for record in batch for each in self._outgoing(record, chosen)])
                self.moved += len(batch)
                progress(len(batch))
                if self.moved < len(chosen.movable):
                    time.sleep(max(0.0, begun + self.moved / rate_per_s - time.monotonic()))
        except KafkaFatalError as error:
            raise KafkaFatalError(
                f"{error}. {self.moved:,} of {len(chosen.movable):,} were moved, each once; "
                "start it again to move the rest"
            ) from None

    def _outgoing(self, record: Record, chosen: Plan) -> Iterator[Outgoing]:
        """Yield *record* as it begins anew, and a marker for each copy, behind it in its partition."""
        letter, copies = chosen.movable[Place(self._topic, record.partition, record.offset)]
        yield Outgoing(self._retry_topic, -1, record.key, record.value, headers_to_redrive(record))
        for copy in copies:
            key, headers = marker_for(copy, letter.origin)
            yield Outgoing(copy.topic, copy.partition, key, None, headers)


def _batches(records: Iterator[Record], most: int) -> Iterator[Sequence[Record]]:
    batch: list[Record] = []
    size_bytes = 0
    for record in records:
        if batch and (len(batch) >= most or size_bytes + record.size_bytes > BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(record)
        size_bytes += record.size_bytes
    if batch:
        yield batch
