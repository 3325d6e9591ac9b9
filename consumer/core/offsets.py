"""The commit rule: how far a partition may be committed while its records finish in any order.

This is the room that everything else protects. The rule and its traps are in docs/architecture.md ("Offsets").
"""

from collections import deque
from collections.abc import Iterable
from itertools import pairwise

from consumer.core.offset_map import Run


class UnknownOffsetError(Exception):
    """An offset was settled that is not in flight. Settling twice, or what was never read, hides a bug."""


class OffsetTracker:
    """The commit position of one partition during one assignment.

    Records sent concurrently finish in any order, but a Kafka commit is a single number, so it may advance only over an
    unbroken run of settled records. No Kafka client, clock, log or lock in here: the event loop is the one owner.

    `committable` is the next offset to read after a crash: the lowest one that is not settled. It never goes back.
    Offsets that the log skips (compaction, transaction markers, aborted records) are passed when a later record of the
    same assignment arrives; the source guarantees that nothing it was given got lost in between.
    """

    __slots__ = ("_done", "_order", "_unsettled", "committable", "next")

    def __init__(self, start: int, done: Iterable[Run] = ()) -> None:
        """Begin at *start*, the position that was assigned; never at the first record that happens to arrive.

        *done* are the runs that an earlier assignment settled beyond it, ascending.
        """
        self.committable = start
        self.next = start
        self._done = deque(done)
        self._order: deque[int] = deque()
        self._unsettled: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Records tracked and not settled."""
        return len(self._unsettled)

    @property
    def settled_beyond(self) -> int:
        """Records settled that a crash now would read again."""
        return len(self._order) - len(self._unsettled)

    @property
    def span(self) -> int:
        """Offsets between the commit position and the last record read; what a stalled record keeps open."""
        return self.next - self.committable

    def track(self, offset: int) -> bool:
        """Note that the record at *offset* was read.

        Returns:
            False if this assignment has read it before: it is in flight or settled, and must not be sent again.
        """
        if offset < self.next:
            return False
        if not self._order:
            self.committable = offset
        self._order.append(offset)
        self._unsettled.add(offset)
        self.next = offset + 1
        return True

    def pass_over(self, offset: int) -> bool:
        """Note that the record at *offset* was read, if an earlier assignment has settled it. Else do nothing.

        Returns:
            Whether it is settled, and must not be sent again.
        """
        done = self._done
        while done and done[0].end <= offset:
            done.popleft()
        if offset < self.next or not done or offset < done[0].first:
            return False
        if self._order:
            self._order.append(offset)
        else:
            self.committable = offset + 1
        self.next = offset + 1
        return True

    def reach(self, end: int) -> None:
        """Note that there is nothing more before *end* than was tracked: it can be committed once that is settled."""
        self.next = max(self.next, end)
        if not self._order:
            self.committable = self.next

    def settled_runs(self) -> list[Run]:
        """Return what is settled beyond `committable`, by this assignment or an earlier one: for the commit's metadata.

        Offsets that the log skips count as settled. Costs time by what is in flight, not by what is settled.
        """
        runs = [
            Run(one + 1, other) for one, other in pairwise([*sorted(self._unsettled), self.next]) if one + 1 < other
        ]
        for run in self._done:
            first = max(run.first, self.next)
            if runs and runs[-1].end == first < run.end:
                runs[-1] = Run(runs[-1].first, run.end)
            elif first < run.end:
                runs.append(Run(first, run.end))
        return runs

    def settle(self, offset: int) -> bool:
        """Note that the record at *offset* needs no more work.

        Returns:
            Whether `committable` advanced.

        Raises:
            UnknownOffsetError: *offset* was never tracked or is settled already.
        """
        try:
            self._unsettled.remove(offset)
        except KeyError:
            raise UnknownOffsetError(f"offset {offset} is not in flight (committable {self.committable})") from None
        order = self._order
        if order[0] != offset:
            return False
        unsettled = self._unsettled
        while order and order[0] not in unsettled:
            order.popleft()
        self.committable = order[0] if order else self.next
        return True
