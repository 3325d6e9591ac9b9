"""Which events of one partition were delivered lately, and which are on their way: copies are held against both.

Producers are at-least-once, too. Only what was *delivered* is remembered: an event that failed must never swallow its
copy. A copy of one that is on its way waits for that one's end, and it waits once: so its wait is as long as one hop,
whatever happens, and many copies of an event that fails don't queue up behind each other.
"""

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from hashlib import sha256
from typing import Generic, TypeVar

Item = TypeVar("Item")

KEY_BYTES = 16
"""Two different ids must never meet, or an event would be lost: with 16 bytes they don't."""


def key_of(app: str, event_id: str) -> bytes:
    """Return what is remembered of an event: of one size whatever the id is, and nothing of it can be read."""
    return sha256(f"{app}\0{event_id}".encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


class Entry(Enum):
    """What to do with an event that is ready to be sent."""

    FIRST = auto()
    """Send it; copies that come meanwhile wait for its end."""
    BESIDE = auto()
    """Send it, although another one is on its way: it has waited once."""
    WAITS = auto()
    DUPLICATE = auto()
    """It was delivered; don't send it."""


class Dedup(Generic[Item]):
    """The memory of one partition in one assignment. Bounded: *window_records* keys, and what is in flight."""

    __slots__ = ("_delivered", "_on_their_way", "_order", "_window_records")

    def __init__(self, window_records: int) -> None:
        self._window_records = window_records
        self._delivered: set[bytes] = set()
        self._order: deque[bytes] = deque()
        self._on_their_way: dict[bytes, list[Item]] = {}
        """By key: the first one, and behind it the copies that wait for it."""

    def enter(self, key: bytes, item: Item, *, has_waited: bool) -> Entry:
        """Decide over *item*. What is sent must `leave`; what waits comes back from another one's `leave`."""
        if key in self._delivered:
            return Entry.DUPLICATE
        way = self._on_their_way.get(key)
        if way is None:
            self._on_their_way[key] = [item]
            return Entry.FIRST
        if has_waited:
            return Entry.BESIDE
        way.append(item)
        return Entry.WAITS

    def leave(self, key: bytes, item: Item, *, delivered: bool) -> Sequence[Item]:
        """Note the end of *item*, which was sent.

        Returns:
            The copies whose wait is over by it, oldest first: duplicates if it was delivered, else to enter again.
        """
        if delivered:
            self._remember(key)
        way = self._on_their_way.get(key)
        if way is None or not (delivered or way[0] is item):
            return ()
        del self._on_their_way[key]
        return way[1:]

    def waiting(self) -> list[Item]:
        """Return all copies that wait."""
        return [copy for way in self._on_their_way.values() for copy in way[1:]]

    def _remember(self, key: bytes) -> None:
        if key in self._delivered:
            return
        self._delivered.add(key)
        self._order.append(key)
        if len(self._order) > self._window_records:
            self._delivered.remove(self._order.popleft())
