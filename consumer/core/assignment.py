"""One period of owning a partition. One that comes back is a new object, so late answers cannot reach it (I4)."""

from dataclasses import dataclass, field

from consumer.core.offsets import OffsetTracker
from consumer.core.record import Partition


@dataclass(slots=True, eq=False)
class Assignment:
    """One epoch of one partition. Compared by identity; the event loop owns all its state.

    `leaving` stops new sends while what is on its way may still end; `fenced` means that nothing moves any more.
    """

    partition: Partition
    epoch: int
    start: int
    tracker: OffsetTracker = field(init=False)
    active: int = 0
    """Records that may settle by themselves soon: on the wire, between attempts, on the way to our topics."""
    leaving: bool = False
    fenced: bool = False
    paused: bool = False
    """Its span limit was reached; the source doesn't read it."""
    advanced_at: float = 0.0
    """When `committable` last moved, or in-flight work began: monotonic seconds."""
    settled_timestamp_ms: int = -1
    """Broker timestamp of a record next to the commit position."""

    def __post_init__(self) -> None:
        self.tracker = OffsetTracker(self.start)

    def fence(self) -> int:
        """End the epoch.

        Returns:
            How many records are abandoned unsettled, for the next owner.
        """
        self.leaving = self.fenced = True
        return self.tracker.in_flight
