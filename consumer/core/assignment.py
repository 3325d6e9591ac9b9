"""One period of owning a partition. One that comes back is a new object, so late answers cannot reach it (I4)."""

from dataclasses import dataclass, field
from typing import NamedTuple

from consumer.core.offset_map import MAX_CHARS, OffsetMap, encode
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
    before: OffsetMap = field(default_factory=OffsetMap)
    """What earlier owners settled beyond `start`."""
    end: int | None = None
    """A bounded replay is done here; None for a stream."""
    mark: str = ""
    """What stands behind the map of each commit: a replay's plan."""
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
    _stands_at: int = field(init=False)
    _since_s: int = field(init=False)

    def __post_init__(self) -> None:
        self.tracker = OffsetTracker(self.start, self.before.runs)
        self._stands_at = self.start
        self._since_s = self.before.since_s

    def position(self, now_s: int) -> "Position":
        """Return what to commit; *now_s* is the epoch second, which the map keeps while the position stands."""
        offset = self.tracker.committable
        if offset != self._stands_at or not self._since_s:
            self._stands_at = offset
            self._since_s = now_s
        room = MAX_CHARS - len(self.mark)
        text, _ = encode(offset, self.tracker.settled_runs(), self._since_s, room)
        return Position(self, offset, text + self.mark)

    def fence(self) -> int:
        """End the epoch.

        Returns:
            How many records are abandoned unsettled, for the next owner.
        """
        self.leaving = self.fenced = True
        return self.tracker.in_flight


class Position(NamedTuple):
    """The next offset to read after a crash, and the map of what is settled beyond it: the commit's metadata."""

    assignment: Assignment
    offset: int
    metadata: str
