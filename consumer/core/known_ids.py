"""Event ids that are known already, millions of them: 16 bytes each, no Python object for any."""

import hashlib
from collections.abc import Iterable

_HEAD_BYTES = 2
_REST_BYTES = 14
_BUCKETS = 256**_HEAD_BYTES


class KnownIds:
    """A set of texts, kept as 128-bit digests in buckets of bytes: 10 million take about 160 MiB.

    Two texts of the same digest don't happen: among 10 million the chance is 1 in 10^24.
    """

    __slots__ = ("_buckets", "_count")

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._buckets = [b""] * _BUCKETS
        self._count = 0
        self.add_all(ids)

    def add_all(self, ids: Iterable[str]) -> None:
        """Add *ids*; one that is there already costs memory again and nothing else."""
        found: dict[int, bytearray] = {}
        for count, text in enumerate(ids, 1):
            digest = _digest(text)
            found.setdefault(_bucket(digest), bytearray()).extend(digest[_HEAD_BYTES:])
            self._count += 1
            if count % 1_000_000 == 0:  # bytes are exactly as long as they must be, bytearrays an eighth longer
                self._keep(found)
        self._keep(found)

    def _keep(self, found: dict[int, bytearray]) -> None:
        for number, added in found.items():
            self._buckets[number] += bytes(added)
        found.clear()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, text: str) -> bool:
        digest = _digest(text)
        bucket, wanted = self._buckets[_bucket(digest)], digest[_HEAD_BYTES:]
        at = bucket.find(wanted)
        while at >= 0 and at % _REST_BYTES:  # the end of one digest and the begin of the next
            at = bucket.find(wanted, at + 1)
        return at >= 0


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HEAD_BYTES + _REST_BYTES).digest()


def _bucket(digest: bytes) -> int:
    return int.from_bytes(digest[:_HEAD_BYTES], "big")
