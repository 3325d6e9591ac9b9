"""Builds with a mistake in them, which the oracle must catch: each is one that others have shipped."""

import asyncio
from collections.abc import Callable
from typing import Any

from consumer import delivery, envelope as envelopes, forwarding, pipeline, settlement
from consumer.adapters import kafka_commits
from consumer.core import assignment, offset_map, offsets
from consumer.core.outcome import Delivered


def commit_before_settle() -> None:
    """Commit what was read."""

    def position(self: Any, _now_s: int) -> assignment.Position:
        return assignment.Position(self, self.tracker.next, "")

    assignment.Assignment.position = position  # type: ignore[method-assign]


def settle_before_acknowledgement() -> None:
    """Count a record as retried when it was handed to the producer."""

    def hand(self: Any, one: Any) -> None:
        self._settlement.end(one.envelope, one.end, one.labels)

    forwarding.Forwarding._hand = hand  # type: ignore[method-assign]


def dropped_4xx() -> None:
    """Count a refused event as done."""
    original = delivery.Delivery._finish

    def finish(self: Any, envelope: Any, lane: Any, outcome: Any) -> None:
        if getattr(outcome, "status", None) in {400, 413, 422}:
            outcome = Delivered()
        original(self, envelope, lane, outcome)

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


def gap_closed_too_early() -> None:
    """Where offsets are missing, take all below for settled: also what is still on its way."""
    track, position = offsets.OffsetTracker.track, assignment.Assignment.position
    closed: dict[int, int] = {}

    def tracking(self: Any, offset: int) -> bool:
        if offset > self.next:
            closed[id(self)] = offset
        return track(self, offset)

    def told(self: Any, now_s: int) -> assignment.Position:
        right = position(self, now_s)
        gap = closed.get(id(self.tracker), 0)
        return right if right.offset >= gap else right._replace(offset=gap, metadata="")

    offsets.OffsetTracker.track = tracking  # type: ignore[method-assign]
    assignment.Assignment.position = told  # type: ignore[method-assign]


def tries_forgotten_at_a_restart() -> None:
    """Take what comes from a tier for what was never tried."""
    original = envelopes.read_hop

    def read_hop(record: Any, *, is_ours: bool) -> Any:
        return original(record, is_ours=is_ours)._replace(attempts=0)

    envelopes.read_hop = read_hop  # type: ignore[attr-defined]


def late_answer_settles_a_new_epoch() -> None:
    """Count an answer for whichever assignment the partition has now, and not for the one that asked."""
    begin, end = pipeline.Pipeline.assigned, settlement.Settlement.end
    newest: dict[Any, Any] = {}

    def assigned(self: Any, assignments: Any) -> None:
        begin(self, assignments)
        newest.update((one.partition, one) for one in assignments)

    def settle(self: Any, envelope: Any, how: Any, labels: Any) -> None:
        envelope.assignment = newest[envelope.assignment.partition]
        end(self, envelope, how, labels)

    pipeline.Pipeline.assigned = assigned  # type: ignore[method-assign]
    settlement.Settlement.end = settle  # type: ignore[method-assign]


def no_fence() -> None:
    """Go on with the records of a partition that is somebody else's."""

    def fence(self: Any, assignments: Any, *, reason: str) -> Any:
        self.assignments -= set(assignments)
        return [one.position(0) for one in assignments]

    pipeline.Pipeline.fence = fence  # type: ignore[method-assign]


LOST, TWICE, TRIES, ENDED = {"C1", "C2"}, {"C3"}, {"C4"}, {"C7"}
BUILDS: dict[str, tuple[Callable[[], None], set[str]]] = {
    build.__name__: (build, caught_as)
    for build, caught_as in (
        (commit_before_settle, LOST),
        (settle_before_acknowledgement, LOST),
        (dropped_4xx, LOST),
        (map_of_a_wrong_base, LOST),
        (seeded_from_the_first_record, LOST),
        (gap_closed_too_early, LOST),
        (lost_after_the_last_try, LOST),
        (no_drain, TWICE),
        (no_last_store, TWICE),
        (no_fence, TWICE),
        (map_not_read, TWICE),
        (map_not_written, TWICE),
        (tries_forgotten_at_a_restart, TRIES),
        (late_answer_settles_a_new_epoch, ENDED),
    )
}
"""Each, and the violations that show it: others may have another cause."""
SIMULATED = {late_answer_settles_a_new_epoch.__name__}
"""Hunted in the simulation: real groups mostly give a lost partition back later than any answer may come."""
