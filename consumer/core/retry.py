"""Where a record goes that could not be delivered now, and how long a try waits.

Each tier is a topic whose records all wait equally long, so its head is always the next one due and nobody queues
behind a longer wait. Tiers are passed in order of their delay, each at most once, so hops are bounded by their number.
"""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from consumer.core.duration import parse_duration_s


class Tier(NamedTuple):
    """One retry topic and the delay of everything on it."""

    label: str
    delay_s: float
    topic: str


@dataclass(frozen=True)
class RetryPlan:
    """Our own topics. `tiers` are in order of their delays."""

    tiers: tuple[Tier, ...]
    held_topic: str
    dead_letter_topic: str

    @classmethod
    def of(cls, prefix: str, labels: tuple[str, ...]) -> "RetryPlan":
        """Name the topics after *prefix*: `.retry.<label>`, `.held`, `.dead-letter`."""
        tiers = tuple(Tier(label, parse_duration_s(label) or 0.0, f"{prefix}.retry.{label}") for label in labels)
        return cls(tuple(sorted(tiers, key=lambda tier: tier.delay_s)), f"{prefix}.held", f"{prefix}.dead-letter")

    @property
    def read_topics(self) -> tuple[str, ...]:
        """Our topics that we subscribe to."""
        return (*(tier.topic for tier in self.tiers), self.held_topic)

    @property
    def topics(self) -> tuple[str, ...]:
        return (*self.read_topics, self.dead_letter_topic)

    def same_tier(self, passed: str | None) -> Tier:
        """Choose the tier of label *passed* again, else the first one; there must be tiers."""
        return next((tier for tier in self.tiers if tier.label == passed), self.tiers[0])

    def next_tier(self, passed: str | None, wait_s: float) -> Tier | None:
        """Choose the first tier beyond *passed* (a label) whose delay covers *wait_s*, else the last one beyond it.

        A label of an earlier configuration counts by its duration.

        Returns:
            None when no tier is left: the record is a dead letter.
        """
        passed_s = (parse_duration_s(passed) or 0.0) if passed else 0.0
        left = [tier for tier in self.tiers if tier.delay_s > passed_s]
        return next((tier for tier in left if tier.delay_s >= wait_s), left[-1] if left else None)


def retry_after_s(header: str | None, now_ms: int, cap_s: float) -> float:
    """Return the seconds that a Retry-After *header* asks for (RFC 9110: seconds or a date), within 0 and *cap_s*.

    What cannot be understood asks for nothing.
    """
    if not header:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdigit():
        # a number of 400 digits is a number too, and so is one of 400 zeros
        digits = text.lstrip("0") or "0"
        return cap_s if len(digits) > 9 else min(float(digits), cap_s)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # the asctime form names no zone; dates of HTTP are UTC, our machine's may be another
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - now_ms / 1000
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return min(max(seconds, 0.0), cap_s)
