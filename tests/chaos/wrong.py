"""Builds with a mistake in them, which the oracle must catch: each is one that others have shipped."""

import asyncio
from collections.abc import Callable
from typing import Any

from consumer import delivery, forwarding, pipeline, settlement
from consumer.adapters import kafka_commits
from consumer.core import assignment, offset_map, offsets
from consumer.core.outcome import Delivered


def commit_before_settle() -> None:
    """Commit what was read."""
    original = offsets.OffsetTracker.track

    def track(self: Any, offset: int) -> bool:
        is_new = original(self, offset)
        self.committable = self.next
        return is_new

    offsets.OffsetTracker.track = track  # type: ignore[method-assign]


def settle_before_acknowledgement() -> None:
    """Count a record as retried when it was handed to the producer."""

    def hand(self: Any, one: Any) -> None:
        self._settlement.end(one.envelope, one.end, one.labels)

    forwarding.Forwarding._hand = hand  # type: ignore[method-assign]


def dropped_4xx() -> None:
    """Count a refused event as done."""
    original = delivery.Delivery._finish

    def finish(self: Any, envelope: Any, outcome: Any) -> None:
        if getattr(outcome, "status", None) in {400, 413, 422}:
            outcome = Delivered()
        original(self, envelope, outcome)

    delivery.Delivery._finish = finish  # type: ignore[method-assign]


def map_of_a_wrong_base() -> None:
    """Let the map begin one too high, so that it covers an offset that nobody settled."""
    original = offset_map.encode

    def encode(position: int, runs: Any, since_s: int = 0, **options: Any) -> tuple[str, int]:
        shifted = [offset_map.Run(max(position, run.first - 1), run.end) for run in runs]
        return original(position, shifted, since_s, **options)

    assignment.encode = encode  # type: ignore[attr-defined]


def seeded_from_the_first_record() -> None:
    """Begin to count at the first record that settles, wherever the assignment began."""
    original = offsets.OffsetTracker.settle

    def settle(self: Any, offset: int) -> bool:
        moved = original(self, offset)
        if self._order and self._order[0] < offset:
            self._order.popleft()
            self.committable = self._order[0] if self._order else self.next
        return moved

    offsets.OffsetTracker.settle = settle  # type: ignore[method-assign]


def no_drain() -> None:
    """Fence at once when a partition is revoked or the process ends: finished work is thrown away."""

    async def drain(self: Any, assignments: Any, *, timeout_s: float, reason: str) -> Any:
        await asyncio.sleep(0)
        return self.fence(assignments, reason=reason)

    pipeline.Pipeline.drain = drain  # type: ignore[method-assign]


def no_last_store() -> None:
    """Forget to store the positions of a drain."""
    original = settlement.Settlement.fence

    def fence(self: Any, assignments: Any, reason: str) -> list[Any]:
        original(self, assignments, reason)
        return []

    settlement.Settlement.fence = fence  # type: ignore[method-assign]


def map_not_read() -> None:
    """Ignore what an earlier owner settled."""
    offsets.OffsetTracker.pass_over = lambda _self, _offset: False  # type: ignore[method-assign]


def map_not_written() -> None:
    """Never say what is settled beyond a standing position."""
    kafka_commits.Commits._commit_maps = lambda _self, _partitions: None  # type: ignore[method-assign]


def lost_after_the_last_try() -> None:
    """Let go of a record whose tries are used up."""

    def retry(self: Any, envelope: Any, _tier: Any, **_: Any) -> None:
        self._settlement.end(envelope, "filtered", ("retry",))

    forwarding.Forwarding.retry = retry  # type: ignore[method-assign]


BUILDS: dict[str, Callable[[], None]] = {
    build.__name__: build
    for build in (
        commit_before_settle,
        settle_before_acknowledgement,
        dropped_4xx,
        map_of_a_wrong_base,
        seeded_from_the_first_record,
        no_drain,
        no_last_store,
        map_not_read,
        map_not_written,
        lost_after_the_last_try,
    )
}
