"""Records that were given up: what they have in common, which were sent on already, and how one is sent on again.

A dead letter stays on its topic until retention takes it. That it was redriven is said by a *marker*: a record without
a value, behind it in the same partition, written in the same transaction as the record on the retry topic. Retention
deletes from the front of a partition, so a marker never goes before its dead letter; nothing needs to be compacted.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from consumer.core.event import InAppEvent
from consumer.core.headers import REASON, REDRIVEN, STAGE, STATUS, read_hop, write_hop
from consumer.core.outcome import Fault
from consumer.core.record import Headers, Record
from consumer.core.wire_format import LOCATE, Body, WireFormat

FINGERPRINT_CHARS = 12
_SENT = frozenset({f"exhausted_{fault.label}" for fault in Fault if fault.sent})
_UNMAPPED = frozenset({"mapping_does_not_fit_schema", "other_type"})
_DEADLY = frozenset({"killed_decoder", "decode_timeout"})


class Place(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """Return the place that *text* names as TOPIC/PARTITION/OFFSET, else None."""
        topic, *numbers = text.rsplit("/", 2)
        if not topic or len(numbers) != 2 or not all(map(_is_number, numbers)):
            return None
        return cls(topic, int(numbers[0]), int(numbers[1]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 19


class Cause(NamedTuple):
    """What dead letters of one kind have in common."""

    stage: str
    reason: str
    status: int | None
    """Of HTTP, where an answer was the reason."""
    schema: str | None
    """None if the bytes name none."""
    app: str | None
    """By the event's own name for it; None where it could not be decoded and mapped."""
    event: str | None

    @property
    def fingerprint(self) -> str:
        """A short name for this cause, the same on every machine."""
        return _fingerprint(self)

    @property
    def is_before_mapping(self) -> bool:
        """Whether nobody knew app and event when the record was given up.

        Then the cause never has them: a fingerprint must outlive the schema that comes late and the mended mapping.
        """
        of_mapping = self.reason in _UNMAPPED or self.reason.startswith("bad_")
        return self.stage == "decode" or (self.stage == "map" and of_mapping)

    @property
    def kills_decoders(self) -> bool:
        """Whether records like these took the process along that decoded them: nobody should try again unasked."""
        return self.reason in _DEADLY


@lru_cache(maxsize=10_000)
def _fingerprint(cause: Cause) -> str:
    text = "".join("-" if part is None else f"{len(str(part))}:{part}" for part in cause)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:FINGERPRINT_CHARS]


class DeadLetter(NamedTuple):
    """A record that was given up, without its bytes: a hundred thousand of these fit into memory."""

    place: Place
    time_ms: int
    """When it was given up, by the broker's record, epoch milliseconds."""
    origin: Place
    redrive_count: int
    may_count_twice: bool
    """An earlier try may have reached Kochava, for all that we know."""
    digest: bytes
    """Of key and value, to tell copies from records of a topic that was made anew."""
    cause: Cause


def read_cause(record: Record, wire: WireFormat, event: InAppEvent | None) -> Cause:
    """Say why *record* was given up. *event* is what it holds, where that can be told."""
    ours = {name: value.decode("utf-8", "replace") for name, value in record.headers if value is not None}
    status = ours.get(STATUS, "")
    frame = LOCATE[wire](record.value or b"", record.headers)
    return Cause(
        stage=ours.get(STAGE, "unknown"),
        reason=ours.get(REASON, "unknown"),
        status=int(status) if status.isascii() and status.isdecimal() and len(status) <= 3 else None,
        schema=str(frame.reference) if isinstance(frame, Body) else None,
        app=event.app if event is not None else None,
        event=event.name if event is not None else None,
    )


def read_dead_letter(record: Record, cause: Cause) -> DeadLetter:
    """Return what is known of *record*, which stands on our topic."""
    hop = read_hop(record, is_ours=True)
    is_retried = cause.stage == "deliver" and hop.attempts > 1 and not cause.reason.startswith("exhausted_")
    return DeadLetter(
        place=Place(record.topic, record.partition, record.offset),
        time_ms=record.timestamp_ms,
        origin=Place(hop.topic, hop.partition, hop.offset),
        redrive_count=hop.redrive_count,
        may_count_twice=hop.was_unconfirmed or is_retried or _may_have_arrived(cause),
        digest=hashlib.blake2b(_framed(record.key) + (record.value or b""), digest_size=16).digest(),
        cause=cause,
    )


def _framed(key: bytes | None) -> bytes:
    return b"-" if key is None else b"%d:%b" % (len(key), key)


def _may_have_arrived(cause: Cause) -> bool:
    """Whether the last try may have been counted: a lost answer, one that we don't understand, a proxy's 5xx."""
    exhausted_5xx = cause.reason.startswith("exhausted_") and cause.status is not None and cause.status >= 500
    return cause.reason == "unconfirmed" or (cause.status or 0) // 100 == 2 or cause.reason in _SENT or exhausted_5xx


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant; what is empty or None excludes none."""

    fingerprints: Collection[str] = frozenset()
    origins: Collection[Place] = frozenset()
    since_ms: int | None = None
    """Given up at this moment or later, epoch milliseconds."""
    until_ms: int | None = None
    """Given up before it."""

    def has(self, letter: DeadLetter) -> bool:
        if self.since_ms is not None and letter.time_ms < self.since_ms:
            return False
        if self.until_ms is not None and letter.time_ms >= self.until_ms:
            return False
        if not self.fingerprints and not self.origins:
            return True
        return letter.cause.fingerprint in self.fingerprints or letter.origin in self.origins


@dataclass(slots=True)
class Group:
    """Dead letters of one cause."""

    cause: Cause
    count: int
    first_ms: int
    last_ms: int
    example: DeadLetter
    """The first of them that was seen."""


def group(letters: Iterable[DeadLetter]) -> list[Group]:
    """Group by cause, the most frequent first."""
    groups: dict[Cause, Group] = {}
    for letter in letters:
        known = groups.get(letter.cause)
        if known is None:
            groups[letter.cause] = Group(letter.cause, 1, letter.time_ms, letter.time_ms, letter)
            continue
        known.count += 1
        known.first_ms = min(known.first_ms, letter.time_ms)
        known.last_ms = max(known.last_ms, letter.time_ms)
    return sorted(groups.values(), key=lambda each: (-each.count, each.cause.fingerprint))


def with_copies(letters: Sequence[DeadLetter]) -> list[tuple[DeadLetter, tuple[Place, ...]]]:
    """Return one of each event, and the places of all its copies.

    A member that is killed between a dead letter and its commit writes it again. Both are the same event, so it is sent
    on once, and each copy is marked.
    """
    found: dict[tuple[Place, int, bytes], tuple[DeadLetter, list[Place]]] = {}
    for letter in letters:
        identity = (letter.origin, letter.redrive_count, letter.digest)
        found.setdefault(identity, (letter, []))[1].append(letter.place)
    return [(letter, tuple(places)) for letter, places in found.values()]


def headers_to_redrive(record: Record) -> Headers:
    """Return the headers with which dead letter *record* begins anew on the first retry topic.

    It has all its tries again and is due at once; where it came from, and that it may have been counted, stay.
    """
    hop = read_hop(record, is_ours=True)
    cause = read_cause(record, "plain", None)
    anew = hop._replace(attempts=0, tier=None, not_before_ms=0, redrive_count=hop.redrive_count + 1)
    return write_hop(record.headers, anew, stage="redrive", reason=cause.reason, status=cause.status)


def marker_for(place: Place, origin: Place) -> tuple[bytes, Headers]:
    """Return key and headers of the marker that the dead letter at *place* was redriven; it has no value."""
    return str(origin).encode(), ((REDRIVEN, f"{place.partition}/{place.offset}".encode()),)


def read_marker(record: Record) -> tuple[int, int] | None:
    """Return partition and offset of the dead letter that *record* marks, or None if it is no marker."""
    if record.value is not None:  # an event, whatever its headers say
        return None
    text = next((value for name, value in record.headers if name == REDRIVEN and value), b"")
    at = Place.parse(f"-/{text.decode('utf-8', 'replace')}")
    return None if at is None else (at.partition, at.offset)
