"""What Kafka gave us, as values."""

from typing import NamedTuple, TypeAlias

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


class Record(NamedTuple):
    """One Kafka record. `value`, `key` and `headers` are kept as they came: a dead letter must replay byte for byte.

    `timestamp_ms` is the broker's (create or append time), -1 when the record has none.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size_bytes(self) -> int:
        """What the record weighs in memory budgets: its value and key."""
        return len(self.value or b"") + len(self.key or b"")
