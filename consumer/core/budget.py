"""How much may be in the process at once, counted so that two threads need no lock (I6)."""

from dataclasses import dataclass


@dataclass(slots=True)
class InFlightBudget:
    """Records and bytes between the Kafka thread and their end.

    Each number has one writer: `taken_*` the Kafka thread, `released_*` and `closed_for` the event loop. What is in the
    process is their difference, and both only grow, so a stale read errs on the safe side.
    """

    max_records: int
    max_bytes: int
    taken_records: int = 0
    taken_bytes: int = 0
    released_records: int = 0
    released_bytes: int = 0
    closed_for: frozenset[str] = frozenset()
    """Why nothing may be read: breaker, forwarder, dead-letter guard."""

    @property
    def records(self) -> int:
        return self.taken_records - self.released_records

    @property
    def room(self) -> int:
        """Records that may be read now. Bytes are checked before a read, so one read can pass them once."""
        if self.closed_for or self.taken_bytes - self.released_bytes >= self.max_bytes:
            return 0
        return max(0, self.max_records - self.records)

    @property
    def is_half_empty(self) -> bool:
        """Worth waking the reader for: it resumes below half, so that it doesn't flap at the limit."""
        return (
            not self.closed_for
            and self.records * 2 <= self.max_records
            and (self.taken_bytes - self.released_bytes) * 2 <= self.max_bytes
        )
