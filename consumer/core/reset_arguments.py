"""What people ask of a reset, as they write it: a time, a duration, a file of offsets, and which partitions.

Apart from `core.reset`, which knows no text: whoever reads a moment wrongly resets to the wrong one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from consumer.core.duration import parse_duration_s
from consumer.core.record import Partition
from consumer.core.reset import ToEach, ToTime, UnusableResetError, name
from consumer.core.standing import Standing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_PARTITIONS = re.compile(r"(?:(?P<topic>[^:]+):)?(?P<numbers>\d{1,9}(?:,\d{1,9})*)")


def to_datetime(text: str) -> ToTime:
    """Read a moment as people and ISO 8601 write it.

    Raises:
        UnusableResetError: it is none, or has no time zone: half the world would mean another hour.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UnusableResetError(f"{text!r} is no date and time: write it as 2026-11-01T09:30:00Z") from None
    if moment.tzinfo is None:
        example = moment.isoformat(timespec="seconds")
        raise UnusableResetError(
            f"{text!r} doesn't say in which time zone: write {example}Z for UTC, or {example}+01:00 and the like"
        )
    # up: a record of the millisecond before is not of that time or later
    return _at(-((EPOCH - moment) // _MS))


def before_now(text: str, now_ms: int) -> ToTime:
    """Read how long before *now_ms*.

    Raises:
        UnusableResetError: it is no duration.
    """
    try:
        seconds = parse_duration_s(text)
    except OverflowError:
        return _at(0)
    if seconds is None:
        raise UnusableResetError(f"{text!r} is no duration: write a number and ms, s, m, h or d, such as 90m, 2h or 1d")
    return _at(now_ms - round(min(seconds * 1000, float(now_ms))))


def _at(ms: int) -> ToTime:
    """Brokers read -1 as "latest" and -2 as "earliest": nothing is older than the epoch."""
    return ToTime(max(0, ms))


def from_csv(text: str) -> ToEach:
    """Read lines of topic,partition,offset, as `kafka-consumer-groups --reset-offsets --export` writes them.

    Raises:
        UnusableResetError: a line is something else, or names a partition twice.
    """
    offsets: dict[Partition, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match [field.strip().strip('"') for field in line.split(",")]:
            case [topic, partition, offset] if topic and _is_number(partition) and _is_number(offset):
                at = Partition(topic, int(partition))
            case _:
                raise UnusableResetError(
                    f"line {number} is not topic,partition,offset, such as in-app-events,0,1234 (no header, no group)"
                )
        if at in offsets:
            raise UnusableResetError(f"line {number} names {name(at)} a second time")
        offsets[at] = int(offset)
    if not offsets:
        raise UnusableResetError("there is no line of topic,partition,offset in it")
    return ToEach(offsets)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


class Choice(NamedTuple):
    """The partitions to reset: of each topic these numbers, or None for all it has."""

    numbers: Mapping[str, frozenset[int] | None]

    def select(self, found: Sequence[Standing]) -> list[Standing]:
        """Return those of *found* that are chosen.

        Raises:
            UnusableResetError: a topic or partition doesn't exist.
        """
        chosen: list[Standing] = []
        for topic, numbers in self.numbers.items():
            there = [one for one in found if one.partition.topic == topic]
            if not there:
                raise UnusableResetError(f"topic {topic!r} does not exist on these brokers")
            if missing := sorted((numbers or frozenset()) - {one.partition.number for one in there}):
                raise UnusableResetError(
                    f"{topic!r} has no partition {', '.join(map(str, missing))}: it has {len(there)}, from 0 on"
                )
            chosen += [one for one in there if numbers is None or one.partition.number in numbers]
        return chosen


def choose(topics: Sequence[str], limits: Sequence[str], sources: Sequence[str], read: Sequence[str]) -> Choice:
    """Read which partitions people mean.

    Args:
        topics: whole topics, unless a limit names some of their partitions.
        limits: "topic:0,1", or "0,1" where the topic is clear.
        sources: what is meant where nothing is said.
        read: every topic that the group reads.

    Raises:
        UnusableResetError: a limit is no such thing, or a topic is none that the group reads.
    """
    numbers: dict[str, frozenset[int] | None] = dict.fromkeys(topics)
    named = list(topics) or (list(sources) if len(sources) == 1 else [])
    for limit in limits:
        match = _PARTITIONS.fullmatch(limit)
        if match is None:
            raise UnusableResetError(f"{limit!r} names no partitions: write 0,1 or {sources[0]}:0,1")
        topic = match["topic"] or (named[0] if len(named) == 1 else None)
        if topic is None:
            raise UnusableResetError(f"of which topic is partition {limit}? Write {sources[0]}:{limit}")
        if topics and topic not in topics:
            raise UnusableResetError(f"partitions of {topic!r} are named, but --topic names others")
        numbers[topic] = (numbers.get(topic) or frozenset()) | {int(each) for each in match["numbers"].split(",")}
    return Choice(_known(numbers or dict.fromkeys(sources), read))


def choose_each(offsets: Iterable[Partition], read: Sequence[str]) -> Choice:
    """Choose exactly these partitions.

    Raises:
        UnusableResetError: the group doesn't read one of the topics.
    """
    numbers: dict[str, frozenset[int] | None] = {}
    for topic, number in offsets:
        numbers[topic] = (numbers.get(topic) or frozenset()) | {number}
    return Choice(_known(numbers, read))


def _known(numbers: Mapping[str, frozenset[int] | None], read: Sequence[str]) -> Mapping[str, frozenset[int] | None]:
    for topic in numbers:
        if topic not in read:
            raise UnusableResetError(f"the group doesn't read {topic!r}; it reads {', '.join(read)}")
    return numbers
