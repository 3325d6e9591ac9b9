"""Takes an input of the fuzzer apart into values; what is missing is zero or empty, so that any bytes are an input."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Feed:
    """Reads from the front; small changes of the bytes stay small changes of the values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size), "big")

    def choice(self, among: Sequence[T]) -> T:
        return among[self.number() % len(among)]

    def block(self) -> bytes:
        """Take as many bytes as the first one says."""
        return self.take(self.number())
