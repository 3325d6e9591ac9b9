"""How much may be in the process at once, counted so that several threads need no lock (I6)."""

from dataclasses import dataclass, field

FEW_RECORDS = 32
"""A read of fewer costs more for each record than for the reading."""


@dataclass(slots=True)
class Intake:
    """What one reader has taken on since the start. Written by its thread alone."""

    taken_records: int = 0
    taken_bytes: int = 0


@dataclass(slots=True)
class InFlightBudget:
    """Records and bytes between the readers and their end.

    Each number has one writer: `taken_*` its reader, `released_*` and `closed_for` the event loop. What is in the
    process is their difference, and all only grow, so a stale read errs on the safe side. A read that began when there
    was room may pass the limit: by one batch for each reader.
    """

    max_records: int
    max_bytes: int
    intakes: list[Intake] = field(default_factory=list)
    released_records: int = 0
    released_bytes: int = 0
    closed_for: frozenset[str] = frozenset()
    """Why nothing may be read: breaker, forwarder, dead-letter guard, a Retry-After for all there is."""

    def new_intake(self) -> Intake:
        """Count one more reader."""
        intake = Intake()
        self.intakes.append(intake)
        return intake

    @property
    def records(self) -> int:
        return sum(intake.taken_records for intake in self.intakes) - self.released_records

    @property
    def bytes(self) -> int:
        return sum(intake.taken_bytes for intake in self.intakes) - self.released_bytes

    @property
    def room(self) -> int:
        """Records that may be read now. Bytes are checked before a read, so one read can pass them once."""
        if self.closed_for or self.bytes >= self.max_bytes:
            return 0
        return max(0, self.max_records - self.records)

    @property
    def is_worth_reading(self) -> bool:
        """A sixteenth is free, and a few records: worth waking the readers for, whatever may be stuck in here."""
        free = self.max_records - self.records
        is_enough = free >= min(max(self.max_records / 16, FEW_RECORDS), self.max_records / 2)
        return not self.closed_for and is_enough and self.bytes * 16 <= self.max_bytes * 15
