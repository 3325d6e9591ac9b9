"""The share of something among the last N: one small ring for the breaker, the unconfirmed rule and the flood guard."""


class ShareWindow:
    """How many of the last *size* notes were marked. O(1), a byte per note."""

    __slots__ = ("_at", "_ring", "marked", "size", "total")

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self.marked = 0
        self._ring = bytearray(size)
        self._at = 0

    def add(self, marked: bool) -> None:
        if not (marked or self.marked):  # nothing is marked, so that all places are alike; nearly always
            if self.total < self.size:
                self.total += 1
            return
        at = self._at
        if self.total == self.size:
            self.marked -= self._ring[at]
        else:
            self.total += 1
        self._ring[at] = marked
        self.marked += marked
        self._at = at + 1 if at + 1 < self.size else 0

    @property
    def share(self) -> float:
        """Marked among the notes that are there, 0 when there are none."""
        return self.marked / self.total if self.total else 0.0
