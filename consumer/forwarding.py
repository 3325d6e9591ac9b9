"""Failures leave for our own topics: a retry tier, the held topic, the dead-letter topic (I2, I5, I8).

The source offset settles by the broker's acknowledgement and nothing else. While the broker does not take a record we
stop reading and try again, for ever: a record is never dropped because its next topic is away.
"""

import asyncio
from dataclasses import dataclass
from functools import partial

from consumer.core.headers import write_hop
from consumer.core.record import Headers
from consumer.core.retry import RetryPlan, Tier
from consumer.envelope import Envelope, place_of
from consumer.ports import Clock, Forwarder, ForwardProblem
from consumer.settlement import End, Settlement
from consumer.telemetry import Metrics, Repeated, log

RETRY_INITIAL_S = 0.5
RETRY_MAX_S = 10.0


@dataclass(slots=True, eq=False)
class _Hand:
    """One record handed to the producer, and what is to be done when the broker has it."""

    envelope: Envelope
    topic: str
    headers: Headers
    end: End
    labels: tuple[str, ...]
    wait_s: float = RETRY_INITIAL_S
    failed: bool = False


class Forwarding:
    """Decides headers and topic, and keeps a record until the broker has it. Lives on the event loop."""

    def __init__(
        self, *, forwarder: Forwarder, plan: RetryPlan, settlement: Settlement, metrics: Metrics, clock: Clock
    ) -> None:
        self._forwarder = forwarder
        self._plan = plan
        self._settlement = settlement
        self._metrics = metrics
        self._clock = clock
        self._failing = 0
        self._repeated = Repeated()

    @property
    def plan(self) -> RetryPlan:
        return self._plan

    def retry(self, envelope: Envelope, tier: Tier, *, reason: str, status: int | None) -> None:
        """Send *envelope* to *tier*."""
        hop = envelope.hop._replace(
            tier=tier.label,
            attempts=envelope.hop.attempts + envelope.tries,
            first_failure_ms=envelope.hop.first_failure_ms or self._clock.wall_ms(),
            not_before_ms=self._clock.wall_ms() + round(tier.delay_s * 1000),
            was_unconfirmed=envelope.is_unconfirmed,
        )
        headers = write_hop(envelope.record.headers, hop, stage="deliver", reason=reason, status=status)
        log.debug("event.retried", **place_of(envelope), app=envelope.app, tier=tier.label, reason=reason,
                  status_code=status or 0, attempts=hop.attempts)  # fmt: skip
        self._hand(_Hand(envelope, tier.topic, headers, "retried", (reason, envelope.app or "unknown")))

    def step_aside(self, envelope: Envelope) -> None:
        """Send *envelope* to a tier because it holds up its partition. It has not failed there, so it passes none."""
        self.retry(envelope, self._plan.same_tier(envelope.hop.tier), reason="blocking", status=None)

    def hold(self, envelope: Envelope, *, reason: str) -> None:
        """Park *envelope* on the held topic; its attempts stay as they were."""
        hop = envelope.hop._replace(not_before_ms=0, was_unconfirmed=envelope.is_unconfirmed)
        headers = write_hop(envelope.record.headers, hop, stage="lane", reason=reason, status=None)
        log.debug("event.held", **place_of(envelope), app=envelope.app, reason=reason)
        self._hand(_Hand(envelope, self._plan.held_topic, headers, "held", (envelope.app or "unknown",)))

    def dead_letter(self, envelope: Envelope, *, stage: str, reason: str, status: int | None = None) -> None:
        """Give *envelope* up to a person."""
        hop = envelope.hop._replace(
            attempts=envelope.hop.attempts + envelope.tries,
            first_failure_ms=envelope.hop.first_failure_ms or self._clock.wall_ms(),
            not_before_ms=0,
            was_unconfirmed=envelope.is_unconfirmed,
        )
        headers = write_hop(envelope.record.headers, hop, stage=stage, reason=reason, status=status)
        labels = (reason, envelope.app or "unknown")
        count = self._repeated.due(f"dead letter {reason}", self._clock.monotonic())
        if count:
            log.warning("event.dead_lettered", **place_of(envelope), app=labels[1], stage=stage, reason=reason,
                        status_code=status or 0, attempts=hop.attempts, count=count)  # fmt: skip
        self._hand(_Hand(envelope, self._plan.dead_letter_topic, headers, "dead_lettered", labels))

    def _hand(self, hand: _Hand) -> None:
        self._settlement.activate(hand.envelope)
        self._forwarder.forward(hand.topic, hand.envelope.record, hand.headers, partial(self._reported, hand))

    def _reported(self, hand: _Hand, problem: ForwardProblem | None) -> None:
        if problem is None:
            if hand.failed:
                self._recovered(hand)
            self._settlement.end(hand.envelope, hand.end, hand.labels)
            return
        self._metrics.forward_failures.add((hand.topic, problem.reason))
        if not hand.failed:
            hand.failed = True
            self._failing += 1
            self._settlement.close_reading("forwarder")
        count = self._repeated.due(f"{hand.topic} {problem.reason}", self._clock.monotonic())
        if count:
            log.warning("forward.failed", topic=hand.topic, reason=problem.reason, count=count)
        asyncio.get_running_loop().call_later(hand.wait_s, self._again, hand)
        hand.wait_s = min(hand.wait_s * 2, RETRY_MAX_S)

    def _again(self, hand: _Hand) -> None:
        if hand.envelope.assignment.fenced:  # the next owner reads it again
            self._recovered(hand)
            self._settlement.abandon(hand.envelope)
            return
        self._forwarder.forward(hand.topic, hand.envelope.record, hand.headers, partial(self._reported, hand))

    def _recovered(self, hand: _Hand) -> None:
        self._failing -= 1
        if self._failing == 0:
            self._settlement.open_reading("forwarder")
            log.info("forward.recovered", topic=hand.topic)
