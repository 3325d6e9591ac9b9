"""A reset of a group's offsets: from where to where on each partition, and what that does to its events.

Pure, since a mistake here loses events or sends them twice: the commands look, ask, and write what was decided here.
A reset moves the commit and drops the map of what is settled beyond it, on purpose: whoever asks for records again must
get all of them. Offsets are counted; gaps of the log (compaction, transactions) count as records.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, assert_never

from consumer.core.record import Partition
from consumer.core.standing import Standing


class UnusableResetError(Exception):
    """What was asked for makes no reset; `str` is one sentence that says why, and how to write it."""


class ToOffset(NamedTuple):
    """This offset, on each partition."""

    offset: int


class ShiftBy(NamedTuple):
    """So many offsets from the commit, back if negative."""

    records: int


class ToTime(NamedTuple):
    """The first record of that time or later, by the records' own timestamps."""

    at_ms: int


class ToEarliest(NamedTuple):
    """The start of the log."""


class ToLatest(NamedTuple):
    """The end of the log."""


class ToEach(NamedTuple):
    """An offset for each partition."""

    offsets: Mapping[Partition, int]


Target: TypeAlias = ToOffset | ShiftBy | ToTime | ToEarliest | ToLatest | ToEach


class Move(NamedTuple):
    """One partition's reset."""

    before: Standing
    to: int
    note: str = ""

    @property
    def partition(self) -> Partition:
        return self.before.partition

    @property
    def changes_something(self) -> bool:
        """Say whether a commit is needed."""
        return self.to != self.before.committed or self.before.commit.has_metadata

    @property
    def again(self) -> int:
        """Records that the group is done with and will read again, those that only the map covers included."""
        below = 0 if self._position is None else max(0, self._position - self.to)
        return below + self._covered(self.to, self.before.high)

    @property
    def skipped(self) -> int:
        """Records that the group has not read, or not settled, and never will."""
        if self._position is None:
            return 0
        return max(0, self.to - self._position) - self._covered(self._position, self.to)

    @property
    def _position(self) -> int | None:
        """Where the group goes on in what the log still has."""
        now = self.before
        return None if now.committed is None else min(max(now.committed, now.low), now.high)

    def _covered(self, first: int, end: int) -> int:
        return sum(max(0, min(run.end, end) - max(run.first, first)) for run in self.before.map.runs)


def plan(found: Iterable[Standing], target: Target, first_at: Mapping[Partition, int | None]) -> list[Move]:
    """Decide where each partition goes, within its log.

    Args:
        found: where the group stands on the partitions that were chosen.
        target: where to.
        first_at: for `ToTime`, the offset of the first record of that time or later; None where there is none.

    Raises:
        UnusableResetError: a shift from a commit that isn't there.
    """
    return [_move(one, target, first_at) for one in found]


def _move(now: Standing, target: Target, first_at: Mapping[Partition, int | None]) -> Move:
    match target:
        case ToEarliest():
            return Move(now, now.low)
        case ToLatest():
            return Move(now, now.high)
        case ToTime():
            return _to_time(now, first_at[now.partition])
        case ToOffset(offset):
            return _within_the_log(now, offset)
        case ToEach(offsets):
            return _within_the_log(now, offsets[now.partition])
        case ShiftBy(records):
            if now.committed is None:
                raise UnusableResetError(
                    f"there is nothing to shift on {name(now.partition)}: the group has no commit there; "
                    "choose others by --partition, or another target"
                )
            return _within_the_log(now, now.committed + records)
        case _:
            assert_never(target)


def _to_time(now: Standing, first: int | None) -> Move:
    if first is None or first >= now.high:
        return Move(now, now.high, "no record that late: the end")
    if first <= now.low and now.low > 0:
        return Move(now, now.low, "the log begins here: older records are gone")
    return Move(now, max(first, now.low))


def _within_the_log(now: Standing, wanted: int) -> Move:
    if wanted < now.low:
        return Move(now, now.low, f"{wanted} is before the start of the log: the start")
    if wanted > now.high:
        return Move(now, now.high, f"{wanted} is beyond the end: the end")
    return Move(now, wanted)


def meaning(moves: Sequence[Move]) -> list[str]:
    """Say in sentences what these moves do to events."""
    moves = [move for move in moves if move.changes_something]
    if not moves:
        return ["Nothing would change: the group stands there already."]
    said = []
    if again := sum(move.again for move in moves):
        said.append(
            f"{records(again)} will be read again: events that were sent already will be sent twice, "
            "Kochava does not deduplicate."
        )
    if skipped := sum(move.skipped for move in moves):
        said.append(f"{records(skipped)} will be skipped and never be sent.")
    if mapped := [move for move in moves if move.before.map.runs]:
        said.append(
            f"What is settled beyond the commit ({records(sum(move.before.settled for move in mapped))} on "
            f"{partitions(len(mapped))}) is forgotten, as after each reset: what of it lies beyond the new commit is "
            "sent again."
        )
    if foreign := sum(move.before.commit.is_foreign for move in moves):
        said.append(f"Metadata that another tool committed is dropped on {partitions(foreign)}, and not backed up.")
    if new := sum(move.before.committed is None for move in moves):
        said.append(f"The group has no commit on {partitions(new)} yet: this makes its first there.")
    return said


def records(count: int) -> str:
    """Return "1 record", "1,234 records"."""
    return f"{count:,} record{'' if count == 1 else 's'}"


def partitions(count: int) -> str:
    """Return "1 partition", "12 partitions"."""
    return f"{count:,} partition{'' if count == 1 else 's'}"


def name(partition: Partition) -> str:
    """Return "in-app-events/0"."""
    return f"{partition.topic}/{partition.number}"
