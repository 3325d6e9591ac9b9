"""The order of steps: take, decode, map, deliver, settle. One record's wait is never another's.

A micro-batch is what one poll returned. It is no barrier: its records are decoded when there is a connection for them,
are sent beside those of other batches, and each settles by itself.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from consumer.core.assignment import Assignment
from consumer.core.rate import LEAST_WAIT_S
from consumer.core.record import Record
from consumer.delivery import Delivery, raise_bug
from consumer.duplicates import Duplicates
from consumer.envelope import Envelope
from consumer.forwarding import Forwarding
from consumer.key_order import KeyOrder
from consumer.ports import Apart, Clock, Decoder, SchemaNeeded
from consumer.settlement import Positions, Settlement
from consumer.telemetry import Metrics, log
from consumer.translate import Filtered, Held, Prepared, Refused, Translator

Batch = Sequence[tuple[Assignment, Record]]


class Pipeline:
    """Takes micro-batches and ends every record of them. Lives on the event loop."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        translator: Translator,
        delivery: Delivery,
        forwarding: Forwarding,
        settlement: Settlement,
        our_topics: frozenset[str],
        max_span_records: int,
        metrics: Metrics,
        clock: Clock,
        duplicates: Duplicates | None = None,
        order: KeyOrder | None = None,
    ) -> None:
        self._decoder = decoder
        self._translator = translator
        self._delivery = delivery
        self._forwarding = forwarding
        self._settlement = settlement
        self._our_topics = our_topics
        self._max_span_records = max_span_records
        self._metrics = metrics
        self._clock = clock
        self._duplicates = duplicates
        self._order = order
        self._pump_is_due = self._is_pumping_soon = False
        self._ready: deque[Envelope] = deque()
        self._waiting_for_schema: dict[object, list[Envelope]] = {}
        self._fetches: set[asyncio.Task[None]] = set()
        self._apart: dict[Envelope, asyncio.Task[None]] = {}
        self.assignments: set[Assignment] = set()

    # -- from the source

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Begin the epochs of *assignments*. Their records come only after this."""
        for assignment in assignments:
            assignment.advanced_at = self._clock.monotonic()
        self.assignments.update(assignments)
        if self._duplicates is not None:
            self._duplicates.begin(assignments)

    def reached(self, assignment: Assignment) -> None:
        """Note that nothing more of a bounded *assignment* comes: its end can be committed when all before it has."""
        if not assignment.leaving and assignment.end is not None:
            assignment.tracker.reach(assignment.end)
            self._settlement.publish_later(assignment)

    def take(self, batch: Batch) -> None:
        """Start a micro-batch."""
        now = self._clock.monotonic()
        ready = self._ready
        counts: dict[str, int] = {}
        for assignment, record in batch:
            envelope = Envelope(record, assignment, record.topic in self._our_topics, now)
            tracker = assignment.tracker
            if assignment.leaving:
                self._settlement.abandon(envelope)
                continue
            if tracker.pass_over(record.offset):
                self._metrics.settled_before_skipped.add(())
                self._settlement.abandon(envelope)
                self._settlement.publish_later(assignment)
                continue
            if tracker.in_flight == 0:
                assignment.advanced_at = now
            if not tracker.track(record.offset):
                self._metrics.redelivered_skipped.add(())
                self._settlement.abandon(envelope)
                continue
            counts[record.topic] = counts.get(record.topic, 0) + 1
            ready.append(envelope)
        for topic, count in counts.items():
            self._metrics.events_consumed.add((topic,), count)
        if self._delivery.breaker.is_open:
            self._settlement.close_reading("breaker")
        self.pump()

    def requeue(self, envelopes: Iterable[Envelope]) -> None:
        """Start records again that waited for their app's lane, or for the end of another copy."""
        self._ready.extend(envelopes)
        self.pump_soon()

    def pump(self) -> None:
        """Start waiting records while more may be on the wire."""
        ready = self._ready
        delivery = self._delivery
        concurrency = delivery.concurrency
        while ready:
            if delivery.on_the_wire >= concurrency.limit:
                concurrency.is_wanted = True
                return
            if delivery.rate is not None and (wait_s := delivery.rate.wait_s(self._clock.monotonic())) > 0:
                self._pump_in(max(wait_s, LEAST_WAIT_S))
                return
            is_probe = delivery.breaker.is_open
            if is_probe and not delivery.take_probe():
                return
            if not self._start(ready.popleft(), is_probe=is_probe) and is_probe:
                delivery.breaker.probes.put_back()

    def pump_soon(self) -> None:
        """Pump once for all answers of this round of the event loop."""
        if not self._is_pumping_soon:
            self._is_pumping_soon = True
            asyncio.get_running_loop().call_soon(self._pump_once)

    def _pump_once(self) -> None:
        self._is_pumping_soon = False
        self.pump()

    def _pump_in(self, seconds: float) -> None:
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_later(seconds, self._pump_now)

    def _pump_now(self) -> None:
        self._pump_is_due = False
        self.pump()

    def _start(self, envelope: Envelope, *, is_probe: bool) -> bool:
        """Bring *envelope* as far as it gets without waiting.

        Returns:
            Whether its request is on the wire.
        """
        if envelope.assignment.leaving:
            self._settlement.abandon(envelope)
            return False
        if self._order is not None and not self._order.enter(envelope):
            return False
        decoded = envelope.decoded
        step = self._translator.translate(envelope.record) if decoded is None else self._translator.go_on(decoded)
        if type(step) is Prepared:
            envelope.app, envelope.event, envelope.time_ms, envelope.request, warnings, event_id = step
            for warning in warnings:
                self._metrics.payload_warnings.add((warning,))
            if self._duplicates is not None:
                return self._duplicates.admit(envelope, event_id, is_probe=is_probe)
            return self._delivery.admit(envelope, is_probe=is_probe)
        match step:
            case Filtered():
                self._settlement.end(envelope, "filtered", (step.reason,))
            case Refused():
                envelope.app = step.app
                self._forwarding.dead_letter(envelope, stage=step.stage, reason=step.reason)
                if step.stage == "decode":
                    self._metrics.decode_errors.add((step.reason,))
            case Held():
                envelope.app = step.app
                self._forwarding.hold(envelope, reason=step.reason)
            case SchemaNeeded():
                self._metrics.schema_cache_misses.add(())
                self._wait_for_schema(envelope, step.reference)
            case Apart():
                task = asyncio.get_running_loop().create_task(self._decode_apart(envelope, step.work))
                self._apart[envelope] = task
                task.add_done_callback(raise_bug)
            case Prepared():  # handled above, on the path of every event
                raise AssertionError
        return False

    # -- schemas that are not here yet

    def _wait_for_schema(self, envelope: Envelope, reference: object) -> None:
        waiting = self._waiting_for_schema.get(reference)
        if waiting is not None:
            waiting.append(envelope)
        else:
            self._waiting_for_schema[reference] = [envelope]
            task = asyncio.get_running_loop().create_task(self._fetch(reference))
            self._fetches.add(task)
            task.add_done_callback(self._fetches.discard)
            task.add_done_callback(raise_bug)

    async def _fetch(self, reference: object) -> None:
        await self._decoder.fetch(reference)
        self._ready.extendleft(reversed(self._waiting_for_schema.pop(reference)))
        self.pump()

    # -- records that are decoded in a process apart

    async def _decode_apart(self, envelope: Envelope, work: object) -> None:
        envelope.decoded = await self._decoder.decode_apart(work)
        del self._apart[envelope]
        self._ready.appendleft(envelope)
        self.pump()

    def _take_back(self, envelope: Envelope) -> Envelope:
        """Let nobody decode *envelope* any more."""
        self._apart.pop(envelope).cancel()
        return envelope

    # -- time

    def tick(self) -> None:
        """Look at what waits for a time; call it every `core.lane.TICK_S`."""
        self._delivery.tick()
        self.pump()
        if self._delivery.lacks_a_probe and not self._ready:
            # nothing in hand to ask the endpoint with: read a little, and what arrives is the probe
            self._settlement.open_reading("breaker")

    def over_span(self) -> tuple[list[Assignment], list[Assignment]]:
        """Find the partitions that one stalled record keeps open too far.

        Returns:
            Those that must not be read for now, and those that may be read again.
        """
        stop, go = [], []
        for assignment in self.assignments:
            span = assignment.tracker.span
            if span * 2 >= self._max_span_records and not assignment.leaving:
                self._clear_the_way(assignment, assignment.tracker.next - self._max_span_records // 2)
            if not assignment.paused and span >= self._max_span_records:
                assignment.paused = True
                stop.append(assignment)
                log.warning("consumer.stalled", **_where(assignment), span=span, in_flight=assignment.tracker.in_flight)
            elif assignment.paused and span * 2 <= self._max_span_records:
                assignment.paused = False
                go.append(assignment)
        return stop, go

    def _clear_the_way(self, assignment: Assignment, below: int) -> None:
        """Let the records at the foot of a long span go on by our own topics, before the span stops their partition.

        What is on the wire stays: its answer may come yet, and it must not be sent twice.
        """
        self._delivery.clear_the_way(assignment, below)
        if not self._forwarding.plan.tiers or self._delivery.breaker.is_open:
            return
        for waiting in self._waiting_for_schema.values():
            for envelope in [one for one in waiting if one.assignment is assignment and one.record.offset < below]:
                waiting.remove(envelope)
                self._forwarding.step_aside(envelope)
        for envelope in [one for one in self._apart if one.assignment is assignment and one.record.offset < below]:
            self._forwarding.step_aside(self._take_back(envelope))

    # -- an assignment ends

    async def drain(self, assignments: Sequence[Assignment], *, timeout_s: float, reason: str) -> Positions:
        """Let what is on its way end, until *timeout_s*; then fence.

        What only waits (in a queue, for a schema, a lane, the breaker) is abandoned at once: the next owner reads it.
        A copy shares the end of the one that it waits for.

        Returns:
            The last commit positions, to be stored while the partitions are still ours.
        """
        leaving = list(assignments)
        for assignment in leaving:
            assignment.leaving = True
        started = self._clock.monotonic()
        self._leave(set(leaving))
        in_time = await self._settlement.wait_idle(leaving, started + timeout_s)
        self._metrics.drain_duration.observe(self._clock.monotonic() - started)
        log.info("shutdown.drained" if reason == "shutdown" else "consumer.drained", partitions=len(leaving),
                 in_time=in_time, duration_ms=round((self._clock.monotonic() - started) * 1000))  # fmt: skip
        return self.fence(leaving, reason=reason)

    def fence(self, assignments: Sequence[Assignment], *, reason: str) -> Positions:
        """End the epochs of *assignments* now. Late answers find nothing to move."""
        gone = set(assignments)
        for assignment in gone:
            assignment.leaving = True
        self._leave(gone)
        if self._duplicates is not None:
            self._duplicates.end(gone)
        if self._order is not None:
            self._order.end(gone)
        positions = self._settlement.fence(list(assignments), reason)
        self._delivery.cut(gone)
        self.assignments -= gone
        return positions

    def _leave(self, assignments: set[Assignment]) -> None:
        kept: deque[Envelope] = deque()
        for envelope in self._ready:
            if envelope.assignment in assignments:
                self._settlement.abandon(envelope)
            else:
                kept.append(envelope)
        self._ready = kept
        for reference, waiting in self._waiting_for_schema.items():
            stay = [envelope for envelope in waiting if envelope.assignment not in assignments]
            for envelope in waiting:
                if envelope.assignment in assignments:
                    self._settlement.abandon(envelope)
            self._waiting_for_schema[reference] = stay
        for envelope in [one for one in self._apart if one.assignment in assignments]:
            self._settlement.abandon(self._take_back(envelope))
        if self._order is not None:
            self._order.leave(assignments)
        self._delivery.leave(assignments)

    async def close(self) -> None:
        tasks = [*self._fetches, *self._apart.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _where(assignment: Assignment) -> dict[str, str | int]:
    partition = assignment.partition
    return {"topic": partition.topic, "partition": partition.number, "offset": assignment.tracker.committable}
