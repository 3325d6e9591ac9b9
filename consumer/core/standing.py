"""Where a group stands on one partition, as values: what `offsets show` prints and what a reset begins from."""

from typing import NamedTuple

from consumer.core.offset_map import OffsetMap
from consumer.core.record import Partition


class Commit(NamedTuple):
    """What a group has committed on a partition. `offset` is None where it has no commit.

    `metadata` is a map of ours, exactly as it was written, or empty: what others wrote there is not kept, for the
    client may return whatever memory lies behind it; `is_foreign` says that there was some.
    """

    offset: int | None
    metadata: str = ""
    is_foreign: bool = False

    @property
    def has_metadata(self) -> bool:
        """Say whether anything was committed with the offset."""
        return bool(self.metadata) or self.is_foreign


class Standing(NamedTuple):
    """A group on one partition. Offsets; `committed` is None where the group has no commit."""

    partition: Partition
    low: int
    committed: int | None
    high: int
    map: OffsetMap = OffsetMap()
    map_problem: str | None = None
    """Why the commit's metadata is no map of ours, if it has some."""
    metadata: str = ""
    """The text of the map."""
    lag_s: float | None = None
    """How old the first record from the commit on is; 0 where there is none, None where it was not found out."""

    @property
    def lag(self) -> int | None:
        """Records from the commit to the end, those that are settled already not counted; gaps of the log are."""
        return None if self.committed is None else max(0, self.high - max(self.low, self.committed) - self.settled)

    @property
    def settled(self) -> int:
        """Offsets beyond the commit that are settled."""
        return sum(run.end - run.first for run in self.map.runs)

    @property
    def blocking(self) -> int | None:
        """The offset that holds the commit while others beyond it are settled."""
        return self.committed if self.map.runs else None

    @property
    def commit(self) -> Commit:
        """The commit as it can be written again."""
        return Commit(self.committed, self.metadata, self.map_problem is not None)


class Member(NamedTuple):
    """A member of the group: one of the two consumers of a `run`, or anything else that reads with this group."""

    client_id: str
    host: str
    partitions: int


class GroupFacts(NamedTuple):
    """A group as its coordinator describes it. `state` in Kafka's words: stable, empty, dead (unknown), ..."""

    name: str
    state: str
    members: tuple[Member, ...] = ()

    @property
    def is_stopped(self) -> bool:
        """Say whether nobody is in it, and nobody is joining."""
        return not self.members and self.state in {"empty", "dead"}
