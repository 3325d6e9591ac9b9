"""From a prepared request to its end: send, read the answer, try again, hold back (I6, I7, I8).

The happy path is callbacks: no task and no future per event. What is rare, everything after a first failed try, is one
coroutine per record, driven by tenacity. Two gates stand before the wire: the endpoint's breaker and the app's lane;
beside them, how many requests may be on it, and how often one may begin.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeAlias, cast

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from consumer.core.assignment import Assignment
from consumer.core.breaker import Breaker
from consumer.core.concurrency import Concurrency
from consumer.core.lane import FAILING, SLOW_S
from consumer.core.outcome import (
    DELIVERED,
    Answer,
    Delivered,
    Fault,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    Unconfirmed,
    classify,
)
from consumer.core.rate import Rate
from consumer.core.retry import Tier, retry_after_s
from consumer.envelope import Envelope, place_of
from consumer.forwarding import Forwarding
from consumer.lanes import AppLane, Lanes
from consumer.ports import Clock, Transport
from consumer.settlement import Settlement
from consumer.telemetry import Metrics, Repeated, log

BACKOFF_DOUBLINGS = 30
"""More than any setting allows for; a probe may be a record's thousandth try."""


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """Seconds, unless the name says otherwise."""

    request_timeout_s: float = 8.0
    retry_budget_s: float = 20.0
    max_attempts: int = 4
    backoff_initial_s: float = 0.25
    backoff_max_s: float = 5.0
    retry_after_cap_s: float = 3600.0


@dataclass(slots=True)
class _Budget:
    """The time that the tries of one record may take in this hop. Waiting for the breaker doesn't count."""

    ends_at: float


_Answered: TypeAlias = Callable[[Envelope, AppLane, Outcome], None]


class Delivery:
    """Everything between a request and the end of its record. Lives on the event loop."""

    def __init__(
        self,
        *,
        transport: Transport,
        breaker: Breaker,
        concurrency: Concurrency,
        rate: Rate | None,
        lanes: Lanes,
        forwarding: Forwarding,
        settlement: Settlement,
        policy: DeliveryPolicy,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        resume: Callable[[], None],
    ) -> None:
        # rate: of requests to the endpoint, of all apps. resume: records that wait elsewhere may be offered again.
        self._transport = transport
        self.breaker = breaker
        self.concurrency = concurrency
        self.rate = rate
        self._lanes = lanes
        self._forwarding = forwarding
        self._settlement = settlement
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._resume = resume
        self._tries: dict[asyncio.Task[None], Envelope] = {}
        self._asleep: dict[Envelope, asyncio.Task[None]] = {}
        """Those of them that wait between two tries: nothing of theirs is on the wire."""
        self._clearances: deque[tuple[asyncio.Future[bool], Envelope]] = deque()
        self._wants_a_fresh_probe = False
        self._repeated = Repeated()
        self.on_the_wire = 0

    # -- the two gates

    def take_probe(self) -> bool:
        """Say whether one record may pass the open breaker now, as a probe."""
        is_taken = self.breaker.probes.take(self._clock.monotonic())
        if is_taken:
            self._wants_a_fresh_probe = False
        return is_taken

    @property
    def _is_probe_due(self) -> bool:
        probes = self.breaker.probes
        return self.breaker.is_open and not probes.is_out and self._clock.monotonic() >= probes.due_at

    @property
    def lacks_a_probe(self) -> bool:
        """The open breaker would let a probe through, and no record that was tried before is worth it."""
        return self._is_probe_due and (not self._clearances or self._wants_a_fresh_probe)

    def admit(self, envelope: Envelope, *, is_probe: bool) -> bool:
        """Send *envelope*, whose request is ready, if its app's lane lets it.

        Returns:
            Whether it is on the wire; else it waits or is on its way to the held topic.
        """
        lane = self._lanes.of(envelope.app)
        now = self._clock.monotonic()
        if not self._lanes.admit(lane, envelope, now, wire_limit=self.concurrency.limit):
            return False
        self._settlement.activate(envelope)
        self._send(envelope, lane, now, is_probe=is_probe, answered=self._first_answer)
        return True

    # -- one try

    def _send(self, envelope: Envelope, lane: AppLane, now: float, *, is_probe: bool, answered: _Answered) -> None:
        request = envelope.request
        assert request is not None, "only a prepared record is sent"
        self.on_the_wire += 1
        lane.on_the_wire += 1
        if self.rate is not None:
            self.rate.take(now)
        if lane.rate is not None:
            lane.rate.take(now)
        self._transport.send(
            request,
            now + self._policy.request_timeout_s,
            partial(self._answer, envelope, lane, now, is_probe, answered),
        )

    def _answer(
        self,
        envelope: Envelope,
        lane: AppLane,
        started: float,
        is_probe: bool,
        answered: _Answered,
        answer: Answer | Fault,
    ) -> None:
        self.on_the_wire -= 1
        lane.on_the_wire -= 1
        outcome = classify(answer)
        kind = type(outcome)
        failing = kind is Retryable
        now = self._clock.monotonic()
        latency_s = now - started
        metrics = self._metrics
        metrics.delivery_duration.observe(latency_s)
        metrics.delivery_attempts.add(_GOOD if outcome is DELIVERED else _attempt_labels(outcome))
        says = failing if kind in _TELLING else None
        self._lanes.answered(lane, envelope.app, latency_s, now, failing=says, is_first=envelope.tries == 0)
        if is_probe:
            envelope.has_probed = True
        # a probe is for the breaker: one that fails as all do burns no attempt
        if kind is not Misconfigured and not (is_probe and failing):
            envelope.tries += 1
        is_apps_own = failing and self._lanes.failed(lane, envelope, self._asked_wait_s(outcome), now)
        # whoever is slow or fails alone tells nothing of what the endpoint takes
        is_news = not is_apps_own and (latency_s < SLOW_S or not self._lanes.is_slow(lane, envelope.app))
        if is_news and self.concurrency.answered(latency_s, now, throttled=failing):
            metrics.concurrency_moves.add((self.concurrency.reason,))
        if (is_probe or not is_apps_own) and self.breaker.note(outcome, now, probe=is_probe):
            self._breaker_moved()
        if envelope.is_lane_probe or kind is Misconfigured:
            self._lanes.note(lane, envelope, outcome, now)
        answered(envelope, lane, outcome)
        if self._clearances and not self.breaker.is_open:
            self._clear_some()
        self._resume()

    def _first_answer(self, envelope: Envelope, lane: AppLane, outcome: Outcome) -> None:
        if type(outcome) is Delivered:
            self._delivered(envelope)
        elif envelope.assignment.fenced:  # the next owner reads it again
            self._let_go(envelope)
        elif isinstance(outcome, Retryable | Unconfirmed) or _is_endpoint(outcome):
            task = asyncio.get_running_loop().create_task(self._persist(envelope, lane, outcome))
            self._tries[task] = envelope
            task.add_done_callback(self._try_ended)
        else:
            self._finish(envelope, lane, outcome)

    def _try_ended(self, task: asyncio.Task[None]) -> None:
        envelope = self._tries.pop(task)
        if task.cancelled():  # before its first step, so that it could not let go by itself
            self._let_go(envelope)
        raise_bug(task)

    def _delivered(self, envelope: Envelope) -> None:
        self._settlement.end(envelope, "delivered", (envelope.record.topic, envelope.event, envelope.app))

    # -- further tries

    async def _persist(self, envelope: Envelope, lane: AppLane, first: Outcome) -> None:
        """Try until it is delivered, hopeless, or out of budget; *first* is the outcome of the first try."""
        policy = self._policy
        budget = _Budget(self._clock.monotonic() + policy.retry_budget_s)
        outcomes = [first]
        last = first

        async def attempt() -> Outcome:
            nonlocal last
            last = outcomes.pop() if outcomes else await self._ask(envelope, lane, budget, last)
            while _is_endpoint(last):  # burns no attempt
                last = await self._ask(envelope, lane, budget, last)
            return last

        def is_worth_another(outcome: Outcome) -> bool:
            was_unconfirmed = envelope.is_unconfirmed or envelope.hop.was_unconfirmed
            if isinstance(outcome, Unconfirmed):
                envelope.is_unconfirmed = True
                if count := self._repeated.due(outcome.reason, self._clock.monotonic()):
                    log.warning("delivery.unconfirmed", **place_of(envelope), reason=outcome.reason,
                                status_code=outcome.status, count=count)  # fmt: skip
                return not was_unconfirmed
            return isinstance(outcome, Retryable) and not (was_unconfirmed and outcome.may_duplicate)

        def wait_s(state: RetryCallState) -> float:
            doubled = min(state.attempt_number - 1, BACKOFF_DOUBLINGS)
            longest = min(policy.backoff_initial_s * 2**doubled, policy.backoff_max_s)
            gate_s = 0.0 if lane.closed_for is None else lane.probes.due_at - self._clock.monotonic()
            return max(self._random.uniform(0, longest), self._asked_wait_s(_outcome_of(state)), gate_s)

        def is_over(state: RetryCallState) -> bool:
            if self.breaker.is_open:  # it will be held, and nothing is forwarded meanwhile
                return False
            if lane.closed_for == FAILING:  # a tier waits longer
                return True
            if not lane.may_retry and self._next_tier(envelope, _outcome_of(state)) is not None:
                return True
            ends = self._clock.monotonic() + state.upcoming_sleep
            return envelope.tries >= policy.max_attempts or ends > budget.ends_at

        async def pause(seconds: float) -> None:
            await self._sleep(envelope, 0 if self.breaker.is_open else seconds)

        retrying = AsyncRetrying(
            retry=retry_if_result(is_worth_another),
            wait=wait_s,
            stop=is_over,
            sleep=pause,
            retry_error_callback=_outcome_of,
        )
        try:
            final: Outcome = await retrying(attempt)
        except asyncio.CancelledError:
            if envelope.is_stepping_aside and not envelope.assignment.fenced:
                self._lanes.put_back_probe(envelope)
                self._forwarding.step_aside(envelope)
            else:  # fenced, or the process ends: the next owner reads it again
                self._let_go(envelope)
            return
        self._finish(envelope, lane, final)

    async def _ask(self, envelope: Envelope, lane: AppLane, budget: _Budget, last: Outcome) -> Outcome:
        """Send once more, when the breaker lets it; *last* is how it ended before, and ends where no try is left."""
        has_waited = self.breaker.is_open
        is_probe = await self._clearance(envelope, budget)
        while not is_probe:
            if envelope.tries >= self._policy.max_attempts and not _is_endpoint(last):
                return last  # it only waited until it may be forwarded
            if (
                lane.closed_for is not None
                and isinstance(last, Retryable)
                and not lane.probes.may_go(self._clock.monotonic())
            ):
                return last._replace(retry_after=None)  # it has waited; nothing is asked now but a probe
            wait_s = self._rate_wait_s(lane)
            if wait_s <= 0:
                break
            await self._sleep(envelope, wait_s)
            budget.ends_at += wait_s
            is_probe = await self._clearance(envelope, budget)  # much may have happened meanwhile
        if not is_probe and lane.closed_for is not None and isinstance(last, Retryable):
            envelope.is_lane_probe = lane.probes.take(self._clock.monotonic())
        if not has_waited:
            lane.retry()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def answered(_envelope: Envelope, _lane: AppLane, outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        self._send(envelope, lane, self._clock.monotonic(), is_probe=is_probe, answered=answered)
        return await future

    def _rate_wait_s(self, lane: AppLane) -> float:
        """Return the seconds until the rates of the endpoint and of the app let one more request begin."""
        now = self._clock.monotonic()
        return max((rate.wait_s(now) for rate in (self.rate, lane.rate) if rate is not None), default=0.0)

    async def _sleep(self, envelope: Envelope, seconds: float) -> None:
        """Wait between two tries; what waits so may step aside."""
        self._asleep[envelope] = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            await asyncio.sleep(seconds)
        finally:
            self._asleep.pop(envelope, None)

    async def _clearance(self, envelope: Envelope, budget: _Budget) -> bool:
        """Wait while the breaker is open, with the budget stopped.

        Returns:
            Whether this try is the breaker's probe.

        Raises:
            asyncio.CancelledError: the assignment ended meanwhile.
        """
        if not self.breaker.is_open:
            return False
        if envelope.assignment.leaving:
            raise asyncio.CancelledError
        self._settlement.rest(envelope)
        since = self._clock.monotonic()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._clearances.append((future, envelope))
        try:
            is_probe = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # let through and ended in the same moment
                if future.result():
                    self.breaker.probes.put_back()
                else:
                    self.on_the_wire -= 1
            raise
        if not is_probe:
            self.on_the_wire -= 1  # counted by `_clear`
        budget.ends_at += self._clock.monotonic() - since
        self._settlement.activate(envelope)
        return is_probe

    def _finish(self, envelope: Envelope, lane: AppLane, outcome: Outcome) -> None:
        """End *envelope* with the outcome of its last try of this hop."""
        if envelope.assignment.fenced and not isinstance(outcome, Delivered):
            self._let_go(envelope)
            return
        self._lanes.put_back_probe(envelope)
        match outcome:
            case Delivered():
                self._delivered(envelope)
            case Rejected():
                log.debug("delivery.rejected", **place_of(envelope), reason=outcome.reason)
                self._forwarding.dead_letter(envelope, stage="deliver", reason=outcome.reason, status=outcome.status)
            case Retryable() | Unconfirmed() if envelope.is_unconfirmed or envelope.hop.was_unconfirmed:
                self._forwarding.dead_letter(envelope, stage="deliver", reason="unconfirmed", status=outcome.status)
            case Retryable() | Unconfirmed():
                tier = self._next_tier(envelope, outcome)
                if tier is not None:
                    self._forwarding.retry(envelope, tier, reason=outcome.reason, status=outcome.status)
                elif lane.closed_for is not None:
                    self._lanes.keep_back(lane, envelope, may_wait=False)  # as if the endpoint were away
                else:
                    reason = f"exhausted_{outcome.reason}"
                    self._forwarding.dead_letter(envelope, stage="deliver", reason=reason, status=outcome.status)
            case Misconfigured():
                self._lanes.keep_back(lane, envelope, may_wait=lane.has_room and not lane.is_switched_off)

    def _next_tier(self, envelope: Envelope, outcome: Outcome) -> Tier | None:
        return self._forwarding.plan.next_tier(envelope.hop.tier, self._asked_wait_s(outcome))

    def _let_go(self, envelope: Envelope) -> None:
        self._lanes.put_back_probe(envelope)
        self._settlement.abandon(envelope)

    def _asked_wait_s(self, outcome: Outcome) -> float:
        header = outcome.retry_after if isinstance(outcome, Retryable) else None
        return retry_after_s(header, self._clock.wall_ms(), self._policy.retry_after_cap_s)

    # -- the breaker moves

    def _breaker_moved(self) -> None:
        breaker = self.breaker
        self._metrics.circuit_state.set(int(breaker.is_open))
        if breaker.is_open:
            self._settlement.close_reading("breaker")
            log.error("breaker.opened", reason=breaker.reason or "", in_flight=self.on_the_wire)
            return
        self.concurrency.restart(self._clock.monotonic())
        log.info("breaker.closed", open_s=round(self._clock.monotonic() - breaker.opened_at, 3))
        self._settlement.open_reading("breaker")
        self._clear_some()

    def _clear_some(self) -> None:
        """Let what waited for the breaker go on, as far as there is room on the wire."""
        for _ in range(self.concurrency.limit - self.on_the_wire):
            if not self._clear(is_probe=False):
                return

    def _clear(self, *, is_probe: bool) -> bool:
        """Let the record that waits longest for the breaker go on."""
        while self._clearances:
            future, _ = self._clearances.popleft()
            if not future.done():
                self.on_the_wire += not is_probe  # it will be in a moment
                future.set_result(is_probe)
                return True
        return False

    def tick(self) -> None:
        """Look at everything that waits for a time: call it every `core.lane.TICK_S`."""
        self._lanes.tick(self._clock.monotonic(), self.concurrency.limit)
        if self._clearances:
            if not self.breaker.is_open:
                self._clear_some()
            elif self._is_probe_due:
                self._probe()

    def _probe(self) -> None:
        """Let one that waits for the breaker ask for it; if all have, one that is read now, if there is any."""
        able = [entry for entry in self._clearances if not entry[0].done() and self._may_ask(entry[1])]
        untried = [entry for entry in able if not entry[1].has_probed]
        if not untried:
            if not self._wants_a_fresh_probe:
                self._wants_a_fresh_probe = True
                return
            for _, envelope in able:
                envelope.has_probed = False
        if able and self.take_probe():
            first = (untried or able)[0]
            self._clearances.remove(first)
            self._clearances.appendleft(first)
            self._clear(is_probe=True)

    def _may_ask(self, envelope: Envelope) -> bool:
        """Say whether the endpoint may be asked with *envelope*: not if its app was told to wait."""
        lane = self._lanes.of(envelope.app)
        return lane.closed_for is None or lane.may_probe(self._clock.monotonic())

    def clear_the_way(self, assignment: Assignment, below: int) -> None:
        """Send on what waits between two tries or for its lane and holds up *assignment*, from offsets *below*."""
        if self.breaker.is_open:  # nothing is read, and nothing is forwarded
            return

        def is_in_the_way(envelope: Envelope) -> bool:
            return envelope.assignment is assignment and envelope.record.offset < below

        if self._forwarding.plan.tiers:
            for envelope, task in [*self._asleep.items()]:
                if is_in_the_way(envelope) and not envelope.is_stepping_aside:
                    envelope.is_stepping_aside = True
                    task.cancel()
        self._lanes.clear_the_way(is_in_the_way)

    # -- the assignment ends

    def leave(self, assignments: set[Assignment]) -> None:
        """Let go of all records of *assignments* that only wait: for the breaker, for their lane."""
        self._lanes.leave(assignments)
        for future, envelope in self._clearances:
            if envelope.assignment in assignments:
                future.cancel()
        self._clearances = deque(entry for entry in self._clearances if not entry[0].done())

    def cut(self, assignments: set[Assignment]) -> None:
        """End the further tries of *assignments*, which are fenced. What is on the wire ends as a stale answer."""
        for task, envelope in self._tries.items():
            if envelope.assignment in assignments:
                task.cancel()


def raise_bug(task: asyncio.Task[None]) -> None:
    """Let an exception of *task* reach the event loop's handler at once: it is a bug of ours, and ends the process."""
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def _is_endpoint(outcome: Outcome) -> bool:
    return isinstance(outcome, Misconfigured) and outcome.scope == "endpoint"


def _outcome_of(state: RetryCallState) -> Outcome:
    assert state.outcome is not None, "tenacity asks after a try"
    outcome: Outcome = state.outcome.result()
    return outcome


def _attempt_labels(outcome: Outcome) -> tuple[str, str]:
    status = outcome.status
    return type(outcome).__name__.lower(), f"{status // 100}xx" if status else "none"


_TELLING = frozenset({Delivered, Rejected, Retryable})
"""What says whether an app is served."""
_GOOD = _attempt_labels(DELIVERED)
"""The good answer's labels, made once."""
