"""Assign, revoke, lost, shutdown: where the Kafka thread meets the event loop.

The order on revoke is drain, then fence, then store: fencing first would throw away finished work, and a drain that
ends in another step than the fence would let a record settle in between (docs/architecture.md, "Rebalance").
"""

import asyncio
import concurrent.futures
from collections.abc import Sequence

from consumer.core.assignment import Assignment
from consumer.pipeline import Batch, Pipeline
from consumer.ports import Clock
from consumer.settlement import Positions

MARGIN_S = 5.0
"""How much longer than the drain the Kafka thread waits for the event loop, before it gives up on it."""


class Rebalance:
    """The pipeline as the Kafka thread sees it. Calls arrive on the event loop in the order they were made."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pipeline: Pipeline, clock: Clock) -> None:
        self._loop = loop
        self._pipeline = pipeline
        self._clock = clock

    def take(self, batch: Batch) -> None:
        """Hand over a micro-batch. Doesn't block."""
        self._loop.call_soon_threadsafe(self._pipeline.take, batch)

    def reached(self, assignment: Assignment) -> None:
        """Note that all of a bounded *assignment* was read. Doesn't block."""
        self._loop.call_soon_threadsafe(self._pipeline.reached, assignment)

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Begin epochs. Doesn't block."""
        self._loop.call_soon_threadsafe(self._pipeline.assigned, assignments)

    def revoked(self, assignments: Sequence[Assignment], *, timeout_s: float, reason: str) -> Positions:
        """Drain and fence *assignments*. Blocks for at most *timeout_s* and a margin.

        Returns:
            What to store now, while the partitions are still ours; nothing if the event loop doesn't answer.
        """
        future = asyncio.run_coroutine_threadsafe(
            self._drain(assignments, self._clock.monotonic() + timeout_s, reason), self._loop
        )
        try:
            return future.result(timeout_s + MARGIN_S)
        except concurrent.futures.TimeoutError:
            future.cancel()
            # nobody drains any more, but the partitions go: what is left of them must not be sent by us
            self._fence_soon(assignments, reason)
            return []

    async def _drain(self, assignments: Sequence[Assignment], deadline: float, reason: str) -> Positions:
        """Drain in what is left of the time: who asked waits no longer, though the event loop comes late to it."""
        left_s = max(0.0, deadline - self._clock.monotonic())
        return await self._pipeline.drain(assignments, timeout_s=left_s, reason=reason)

    def lost(self, assignments: Sequence[Assignment]) -> None:
        """Fence *assignments* at once: the next owner works already, so nothing of ours may be stored."""
        self._fence_soon(assignments, "lost")

    def _fence_soon(self, assignments: Sequence[Assignment], reason: str) -> None:
        self._loop.call_soon_threadsafe(lambda: self._pipeline.fence(assignments, reason=reason))
