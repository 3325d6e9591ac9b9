"""Which records of our own topics may be read now, and which wait: until they are due, or for the next sweep.

A waiting partition is paused and its record given back by seeking to it, so what waits is not in flight and holds up
nothing. Records of a source topic are never looked at here.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from consumer.core.headers import not_before_ms
from consumer.core.record import Partition, Record
from consumer.core.retry import RetryPlan


class Parked(NamedTuple):
    """A partition that waits at *offset*: until a moment, or (None) until the next sweep."""

    offset: int
    until_ms: int | None


@dataclass(slots=True)
class Parking:
    """What waits, and why. Owned by the Kafka thread."""

    plan: RetryPlan
    parked: dict[Partition, Parked] = field(default_factory=dict)
    _delays_ms: dict[str, int] = field(init=False)
    _sweep_ends: dict[Partition, int] = field(default_factory=dict)
    """Held partitions that are being read, up to this offset: what is held again lands behind it."""
    _ahead_ms: dict[Partition, int] = field(default_factory=dict)
    """By how much the clocks that wrote a tier's records were ahead of ours."""

    def __post_init__(self) -> None:
        self._delays_ms = {tier.topic: round(tier.delay_s * 1000) for tier in self.plan.tiers}

    def place(self, record: Record, now_ms: int) -> Parked | None:
        """Decide over *record*, the next one of its partition.

        Returns:
            None to deliver it now; else where and until when its partition waits.
        """
        delay_ms = self._delays_ms.get(record.topic)
        if delay_ms is not None:
            due_ms = self._due_ms(Partition(record.topic, record.partition), not_before_ms(record), now_ms + delay_ms)
            return Parked(record.offset, due_ms) if due_ms > now_ms else None
        if record.topic == self.plan.held_topic:
            partition = Partition(record.topic, record.partition)
            if record.offset >= self._sweep_ends.get(partition, 0):
                self._sweep_ends.pop(partition, None)
                return Parked(record.offset, None)
        return None

    def _due_ms(self, partition: Partition, due_ms: int, latest_ms: int) -> int:
        """Bound *due_ms* by the tier's own delay: clocks differ and jump, and none may stop a tier for an hour.

        The difference is kept: whoever is read again after its wait, and whoever stands behind it, must not wait anew.
        """
        if due_ms <= latest_ms:
            return due_ms
        ahead_ms = self._ahead_ms.get(partition, 0)
        if due_ms - ahead_ms > latest_ms:
            ahead_ms = self._ahead_ms[partition] = due_ms - latest_ms
        return due_ms - ahead_ms

    def park(self, partition: Partition, parked: Parked) -> None:
        self.parked[partition] = parked

    def due(self, now_ms: int) -> list[Partition]:
        """Take out the partitions whose wait is over, or longer than any can be: our clock has jumped back."""
        due = [
            at
            for at, parked in self.parked.items()
            if parked.until_ms is not None and not 0 < parked.until_ms - now_ms <= self._delays_ms[at.topic]
        ]
        for partition in due:
            del self.parked[partition]
        return due

    def held_position(self, partition: Partition) -> int | None:
        """Return where a held partition waits for a sweep, or None while one reads it."""
        parked = self.parked.get(partition)
        return None if parked is None else parked.offset

    def sweep(self, partition: Partition, *, end: int) -> bool:
        """Read a held partition up to *end*, exclusive. A sweep that is under way goes on to it.

        Returns:
            Whether there is something to read and it was waiting.
        """
        if partition in self._sweep_ends:
            self._sweep_ends[partition] = max(self._sweep_ends[partition], end)
            return False
        parked = self.parked.get(partition)
        if parked is None or parked.until_ms is not None or parked.offset >= end:
            return False
        del self.parked[partition]
        self._sweep_ends[partition] = end
        return True

    def sweep_is_over(self, partition: Partition, next_offset: int) -> bool:
        """Whether the sweep of *partition* has read its last record."""
        if next_offset < self._sweep_ends.get(partition, next_offset + 1):
            return False
        del self._sweep_ends[partition]
        return True

    def forget(self, partition: Partition) -> None:
        """The partition is no longer ours."""
        self.parked.pop(partition, None)
        self._sweep_ends.pop(partition, None)
        self._ahead_ms.pop(partition, None)
