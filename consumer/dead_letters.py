"""The steps of `kochava-consumer dead-letters`: read a topic, tell what is on it, judge it by today's configuration."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from consumer.adapters.kafka_dead_letters import Progress, Span, TopicReader
from consumer.appraisal import Appraiser, why_not
from consumer.core.dead_letters import Cause, DeadLetter, Place, Selection, read_cause, read_dead_letter, read_marker
from consumer.core.record import Record
from consumer.core.wire_format import WireFormat
from consumer.ports import Decoded, Undecodable


class Seen(NamedTuple):
    """A dead letter with its bytes. `decoded` is None where nobody tried."""

    letter: DeadLetter
    record: Record
    decoded: Decoded | Undecodable | None


@dataclass(slots=True)
class Scan:
    """What was on a topic when it was read."""

    spans: Mapping[int, Span]
    letters: list[DeadLetter] = field(default_factory=list)
    """Those of the selection that were not redriven, in the order in which they were read."""
    why_not: dict[Place, str] = field(default_factory=dict)
    """Of those that would not be sent now, if that was asked for."""
    redriven: set[tuple[int, int]] = field(default_factory=set)
    """Partition and offset."""


class Examiner:
    """Tells what records of our topics are."""

    def __init__(self, appraiser: Appraiser | None, wire: WireFormat) -> None:
        """Without an *appraiser* nothing is decoded, and causes have no app and no event."""
        self._appraiser = appraiser
        self._wire = wire
        self._causes: dict[Cause, Cause] = {}

    def examine(self, records: Sequence[Record], *, decode_all: bool) -> Iterator[Seen]:
        """Yield the dead letters among *records*; what has no value is none.

        Args:
            records: of a topic of ours.
            decode_all: also those that could not be decoded or mapped before, but never what kills whoever decodes it.
        """
        letters = [record for record in records if record.value is not None]
        causes = [read_cause(record, self._wire, None) for record in letters]
        wanted = [not cause.kills_decoders and (decode_all or not cause.is_before_mapping) for cause in causes]
        decoded = self._decode([record for record, is_wanted in zip(letters, wanted, strict=True) if is_wanted])
        for record, cause, is_wanted in zip(letters, causes, wanted, strict=True):
            datum = next(decoded) if is_wanted else None
            full = self._with_event(cause, datum)
            yield Seen(read_dead_letter(record, self._causes.setdefault(full, full)), record, datum)

    def _decode(self, records: Sequence[Record]) -> Iterator[Decoded | Undecodable | None]:
        return iter([None] * len(records) if self._appraiser is None else self._appraiser.decode(records))

    def _with_event(self, cause: Cause, datum: Decoded | Undecodable | None) -> Cause:
        """Add app and event, where they were known when it was given up."""
        if self._appraiser is None or datum is None or cause.is_before_mapping:
            return cause
        event = self._appraiser.event(datum)
        return cause if event is None else cause._replace(app=event.app, event=event.name)

    def why_not(self, seen: Seen) -> str | None:
        """Return why *seen* would not be sent now, or None if it would."""
        assert self._appraiser is not None
        if seen.decoded is None:
            return f"{seen.letter.cause.stage}: {seen.letter.cause.reason}"
        return why_not(self._appraiser.judge(seen.decoded))

    def scan(
        self,
        reader: TopicReader,
        topic: str,
        selection: Selection,
        progress: Progress = lambda _: None,
        *,
        spans: Mapping[int, Span] | None = None,
        judge: bool = False,
    ) -> Scan:
        """Read *topic* to the end it has now, or *spans* of it.

        Args:
            reader: the consumer.
            topic: of ours.
            selection: dead letters that it doesn't have are left out.
            progress: see `TopicReader.read`.
            spans: what is read; by default all of the topic.
            judge: whether to say which would be sent now.
        """
        found = Scan(reader.spans(topic) if spans is None else spans)
        for batch in reader.read(topic, found.spans, progress):
            found.redriven.update(at for record in batch if (at := read_marker(record)) is not None)
            for seen in self.examine(batch, decode_all=judge):
                if selection.has(seen.letter):
                    found.letters.append(seen.letter)
                    if judge and (reason := self.why_not(seen)) is not None:
                        found.why_not[seen.letter.place] = reason
        found.letters = [letter for letter in found.letters if letter.place[1:] not in found.redriven]
        return found


def read_places(
    reader: TopicReader, topic: str, places: Collection[Place], progress: Progress = lambda _: None
) -> Iterator[Record]:
    """Yield the records at *places* of *topic*, those of a partition in order."""
    spans: dict[int, Span] = {}
    for _, number, offset in places:
        start, end = spans.get(number, (offset, offset + 1))
        spans[number] = Span(min(start, offset), max(end, offset + 1))
    for batch in reader.read(topic, spans, progress):
        yield from (record for record in batch if (topic, record.partition, record.offset) in places)
