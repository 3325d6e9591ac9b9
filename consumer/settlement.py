"""Where every record ends: exactly once, and only then may its partition's commit position move (I1, I3, I4)."""

import asyncio
from collections.abc import Callable
from typing import Literal, TypeAlias

from consumer.core.assignment import Assignment, Position
from consumer.core.budget import InFlightBudget
from consumer.core.flood_guard import FloodGuard
from consumer.envelope import Envelope
from consumer.ports import Clock
from consumer.telemetry import Metrics, log

End: TypeAlias = Literal["delivered", "filtered", "retried", "held", "dead_lettered"]
Positions: TypeAlias = list[Position]

FLUSH_S = 0.1
"""How long what settled may wait before the Kafka thread hears of it. Small beside the commit interval, and long enough
that the maps, up to a millisecond of work for a full in-flight budget, cost nothing that could be measured."""


class Settlement:
    """Ends records and publishes commit positions. Lives on the event loop."""

    def __init__(
        self,
        *,
        budget: InFlightBudget,
        guard: FloodGuard,
        metrics: Metrics,
        clock: Clock,
        publish: Callable[[Positions], None],
        wake_readers: Callable[[], None],
    ) -> None:
        self._budget = budget
        self._guard = guard
        self._metrics = metrics
        self._clock = clock
        self._publish = publish
        self._wake_readers = wake_readers
        self._changed: set[Assignment] = set()
        self._flush_is_due = self._wake_is_due = False
        self._ends = {
            "delivered": metrics.events_delivered,
            "filtered": metrics.events_filtered,
            "retried": metrics.events_retried,
            "held": metrics.events_held,
            "dead_lettered": metrics.events_dead_lettered,
        }
        self._idle = asyncio.Event()

    # -- the in-flight budget

    def close_reading(self, reason: str) -> None:
        """Read nothing more until `open_reading` with the same *reason*."""
        self._budget.closed_for |= {reason}

    def open_reading(self, reason: str) -> None:
        self._budget.closed_for -= {reason}
        self._wake_readers()

    def _release(self, envelope: Envelope) -> None:
        budget = self._budget
        budget.released_records += 1
        budget.released_bytes += envelope.record.size_bytes
        self.rest(envelope)
        if not self._wake_is_due:
            self._wake_is_due = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        """Let the readers go on, if there is enough room: asked once for all that ends in a round of the event loop."""
        self._wake_is_due = False
        if self._budget.is_worth_reading:
            self._wake_readers()

    # -- what a drain waits for

    def activate(self, envelope: Envelope) -> None:
        """Note that *envelope* may end by itself soon."""
        if not envelope.is_active:
            envelope.is_active = True
            envelope.assignment.active += 1

    def rest(self, envelope: Envelope) -> None:
        """Note that *envelope* waits for something that may take long."""
        if envelope.is_active:
            envelope.is_active = False
            assignment = envelope.assignment
            assignment.active -= 1
            if assignment.leaving and assignment.active == 0:
                self._idle.set()

    async def wait_idle(self, assignments: list[Assignment], deadline: float) -> bool:
        """Wait until nothing of *assignments* is active, or *deadline* (monotonic seconds).

        Returns:
            Whether all came to rest in time.
        """
        while any(assignment.active for assignment in assignments):
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), left)
            except TimeoutError:
                return False
        return True

    # -- ends

    def end(self, envelope: Envelope, end: End, labels: tuple[str, ...]) -> None:
        """End *envelope*, durably done as *end*. *labels* are those of the metric `events_<end>`."""
        self._release(envelope)
        assignment = envelope.assignment
        if assignment.fenced:
            self._metrics.stale_answers.add(())
            return
        now = self._clock.monotonic()
        if assignment.tracker.settle(envelope.record.offset):
            assignment.settled_timestamp_ms = envelope.record.timestamp_ms
            assignment.advanced_at = now
        self.publish_later(assignment)
        self._ends[end].add(labels)
        self._metrics.consume_to_settled.observe(now - envelope.taken_at)
        if envelope.time_ms is not None:
            self._metrics.event_age.observe(max(0.0, (self._clock.wall_ms() - envelope.time_ms) / 1000))
        if self._guard.note(end == "dead_lettered"):
            self._metrics.dead_letter_guard_tripped.set(1)
            self.close_reading("dead_letter_guard")
            log.error("guard.tripped", share=round(self._guard.share, 4), max_share=self._guard.max_share)
        if envelope.ended is not None:
            envelope.ended(envelope, end == "delivered")
        if envelope.turn_over is not None:
            envelope.turn_over(envelope)

    def abandon(self, envelope: Envelope) -> None:
        """Let go of *envelope* unsettled, for the next owner. It is counted when its assignment is fenced."""
        self._release(envelope)

    def publish_later(self, assignment: Assignment) -> None:
        """Let the Kafka thread know, soon, what is settled of *assignment*."""
        self._changed.add(assignment)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def fence(self, assignments: list[Assignment], reason: str) -> Positions:
        """End the epochs of *assignments*: nothing of theirs moves any more.

        Returns:
            Their last commit positions; taken in the same step, so that nothing settles in between.
        """
        positions: Positions = []
        now_s = self._clock.wall_ms() // 1000
        for assignment in assignments:
            if not assignment.fenced:
                self._metrics.events_abandoned.add((reason,), assignment.fence())
                positions.append(assignment.position(now_s))
            self._changed.discard(assignment)
        return positions

    def _flush(self) -> None:
        self._flush_is_due = False
        now_s = self._clock.wall_ms() // 1000
        self._publish([assignment.position(now_s) for assignment in self._changed])
        self._changed.clear()
