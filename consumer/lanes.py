"""The lanes of all apps: what stops, slows or limits one app, and nobody else (I7).

Stands between delivery and `core.lane`, which knows one app and no record: here records wait for their lane, leave for
the held topic, and come back from it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import TypeAlias

from consumer.core.assignment import Assignment
from consumer.core.breaker import Breaker
from consumer.core.bulkhead import MIN_OTHERS, Bulkhead
from consumer.core.lane import FAILING, SLOW_RATIO, SLOW_S, TICK_S, Admission, Lane, LanePolicy
from consumer.core.outcome import Delivered, Misconfigured, Outcome, Rejected
from consumer.core.rate import LEAST_WAIT_S, Rate
from consumer.envelope import Envelope
from consumer.forwarding import Forwarding
from consumer.ports import Clock
from consumer.settlement import Settlement
from consumer.telemetry import Metrics, log

AppLane: TypeAlias = Lane[Envelope]

LATER = 1.1
"""A Retry-After is kept, and up to a tenth longer: not all members and apps at once when it is over."""
SWEEPS_S = 30.0
"""For so long after the last record of an open lane that was held, or came from the held topic, more are asked for."""
SLOW_TICKS = 4
"""An app's answers must have taken long at so many ticks, one after another."""
_NEWS = 0.02
"""What the last answer counts in the mean of all."""


class Lanes:
    """Every app's lane, made when its first record comes. Lives on the event loop."""

    def __init__(
        self,
        policy: LanePolicy,
        *,
        switched_off: frozenset[str],
        rates: Mapping[str, Rate],
        breaker: Breaker,
        forwarding: Forwarding,
        settlement: Settlement,
        metrics: Metrics,
        clock: Clock,
        random: Random,
        requeue: Callable[[Iterable[Envelope]], None],
        sweep_held: Callable[[int | None], None],
    ) -> None:
        # switched_off: lanes that settings close and nothing probes. requeue: these records may be offered again.
        # sweep_held: the source shall read the held topic, all or about so many.
        self._policy = policy
        self._switched_off = switched_off
        self._rates = rates
        self._breaker = breaker
        self._forwarding = forwarding
        self._settlement = settlement
        self._metrics = metrics
        self._clock = clock
        self._random = random
        self._requeue = requeue
        self._sweep_held = sweep_held
        self._lanes: dict[str, AppLane] = {}
        self._bulkhead = Bulkhead()
        self._usual_s = 0.0
        """How long answers take, those of all apps, the last ones counting most."""
        self._answers = 0
        self._ticks = 0
        self._pauses_until = float("-inf")
        """Nothing is read until then: told to wait, and nobody else is served."""

    def of(self, app: str) -> AppLane:
        lane = self._lanes.get(app)
        if lane is None:
            lane = self._lanes[app] = Lane(
                self._policy, switched_off=app in self._switched_off, rate=self._rates.get(app)
            )
        return lane

    def admit(self, lane: AppLane, envelope: Envelope, now: float, *, wire_limit: int) -> bool:
        """Say whether *envelope* may be sent now; else it waits, or is on its way to the held topic."""
        if envelope.is_ours and envelope.record.topic == self._forwarding.plan.held_topic:
            lane.held_at = now
        if lane.closed_for is None:
            crowded = self._crowded(lane, envelope.app, now, wire_limit)
            if crowded is None:
                lane.begin(self._ticks, self._answers)
                return True
            self.keep_back(lane, envelope, reason=crowded, may_wait=lane.has_room)
            if crowded == "rate" and lane.waiting:
                self._offer_in_time(lane)
            return False
        admission = lane.admit(now)
        if admission is Admission.PROBE:
            envelope.is_lane_probe = True
            return True
        may_wait = admission is Admission.WAIT or (now < self._pauses_until and not lane.is_switched_off)
        self.keep_back(lane, envelope, reason=lane.closed_for, may_wait=may_wait)
        return False

    def _crowded(self, lane: AppLane, app: str, now: float, wire_limit: int) -> str | None:
        """Say why an open lane takes nothing now: its "rate", or the app is "slow" and has its share of the wire."""
        if lane.rate is not None and lane.rate.wait_s(now) > 0:
            return "rate"
        if lane.on_the_wire > wire_limit * self._policy.slow_share and self.is_slow(lane, app):
            return "slow"
        return None

    def is_slow(self, lane: AppLane, app: str) -> bool:
        """Say whether others have their answers, and the app's take much longer, or its next one has already."""
        if lane.latency_s > self._least_slow_s:  # for a while: one burst that was late makes no slow app
            return lane.slow_ticks >= SLOW_TICKS and self._bulkhead.has_others(app)
        return self._is_silent(lane)

    def _is_silent(self, lane: AppLane) -> bool:
        is_late = (self._ticks - lane.answered_tick - 1) * TICK_S > self._least_slow_s
        return is_late and self._answers - lane.answers_seen >= MIN_OTHERS

    @property
    def _least_slow_s(self) -> float:
        return self._usual_s * SLOW_RATIO + SLOW_S

    def keep_back(self, lane: AppLane, envelope: Envelope, *, reason: str | None = None, may_wait: bool) -> None:
        """Let *envelope* wait in memory, or hold it."""
        # with an order others of its key wait behind it, in flight, until nothing else is read: they have to go, too
        may_wait = may_wait and envelope.turn_over is None
        if envelope.assignment.leaving:
            self._settlement.abandon(envelope)
        elif may_wait:
            self._settlement.rest(envelope)
            lane.wait(envelope, self._clock.monotonic())
        else:
            lane.held_at = self._clock.monotonic()
            self._forwarding.hold(envelope, reason=reason or lane.closed_for or "closed")

    # -- what answers say

    def answered(
        self, lane: AppLane, app: str, latency_s: float, now: float, *, failing: bool | None, is_first: bool
    ) -> None:
        """Note an answer of *app*; *failing* is None if it says nothing about that.

        Whether it fails is judged by first tries: one bad event makes no bad app.
        """
        self._answers += 1
        if latency_s > SLOW_S:  # cut, or one slow answer of many would make an app slow
            latency_s = min(latency_s, 2 * self._least_slow_s)
        self._usual_s += (latency_s - self._usual_s) * _NEWS
        lane.answered(latency_s, self._ticks, self._answers)
        if is_first and failing is not None:
            self._bulkhead.note(app, now, failing=failing)

    def failed(self, lane: AppLane, envelope: Envelope, asked_s: float, now: float) -> bool:
        """Close the lane, if the app was told to wait (*asked_s*), or if it fails while others are served.

        Returns:
            Whether the failure is this app's own.
        """
        is_probe = envelope.is_lane_probe and lane.closed_for is not None
        verdict = self._bulkhead.judge(envelope.app, now)
        if asked_s > 0:
            if lane.closed_for is None and not verdict.is_alone:
                self._pause_reading(now + min(asked_s, self._policy.waiting_s))
            until = now + asked_s * self._random.uniform(1.0, LATER)
            self._moved(envelope.app, lane, closed=lane.hold_off(until, probe=is_probe))
        elif is_probe or (verdict.is_alone and verdict.is_failing):
            self._moved(envelope.app, lane, closed=lane.refused(FAILING, now, probe=is_probe))
        else:
            return False
        envelope.is_lane_probe = False
        return verdict.is_alone and verdict.is_failing

    def _pause_reading(self, until: float) -> None:
        """Let what is in hand wait in memory: whoever is told to wait is all there is, so it keeps nobody."""
        self._pauses_until = max(self._pauses_until, until)
        self._settlement.close_reading("retry_after")

    def note(self, lane: AppLane, envelope: Envelope, outcome: Outcome, now: float) -> None:
        """Close or open the lane by what is said about the app itself."""
        if isinstance(outcome, Misconfigured):
            if outcome.scope == "app":
                closed = lane.refused(outcome.reason, now, probe=envelope.is_lane_probe)
                self._moved(envelope.app, lane, closed=closed)
                envelope.is_lane_probe = False
        elif isinstance(outcome, Delivered | Rejected):
            envelope.is_lane_probe = False
            if lane.accepted():
                self._metrics.lane_closed.set(0, (envelope.app,))
                log.info("lane.opened", app=envelope.app, waiting=len(lane.waiting))
                waiting, lane.waiting = lane.waiting, deque()
                self._bulkhead.forget(envelope.app)
                self._read_again()
                self._requeue(one for _, one in waiting)
                self._sweep_held(None)

    def _read_again(self) -> None:
        if self._pauses_until > float("-inf"):
            self._pauses_until = float("-inf")
            self._settlement.open_reading("retry_after")

    def put_back_probe(self, envelope: Envelope) -> None:
        """Let another record ask for the lane, if *envelope* was to and its answers said nothing about it."""
        if envelope.is_lane_probe:
            envelope.is_lane_probe = False
            self._lanes[envelope.app].probes.put_back()

    def _moved(self, app: str, lane: AppLane, *, closed: bool) -> None:
        if closed:
            self._metrics.lane_closed.set(1, (app,))
            log.error("lane.closed", app=app, reason=lane.closed_for or "")

    # -- time

    def tick(self, now: float, wire_limit: int) -> None:
        self._ticks += 1
        if now >= self._pauses_until:
            self._read_again()
        for app, lane in self._lanes.items():
            is_slow_now = lane.on_the_wire and (lane.latency_s > self._least_slow_s or self._is_silent(lane))
            lane.slow_ticks = lane.slow_ticks + 1 if is_slow_now else 0
            if lane.closed_for is not None:
                self._tick_closed(lane, now)
            elif lane.waiting or now - lane.held_at < SWEEPS_S:
                self._tick_crowded(lane, app, now, wire_limit)

    def _tick_closed(self, lane: AppLane, now: float) -> None:
        while lane.waiting and lane.waiting[0][0] <= now:
            _, envelope = lane.waiting.popleft()
            if self._breaker.is_open or not lane.may_probe(now):
                self.keep_back(lane, envelope, may_wait=False)
            else:
                self._requeue([envelope])
                return
        if self._breaker.is_open or not lane.may_probe(now):
            return
        if lane.waiting:
            self._requeue([lane.waiting.popleft()[1]])
        else:
            self._sweep_held(self._policy.waiting_records)

    def _tick_crowded(self, lane: AppLane, app: str, now: float, wire_limit: int) -> None:
        """Offer again what waits for an open lane, and then what is held; what may still not go comes back here."""
        if self._crowded(lane, app, now, wire_limit) is not None or self._breaker.is_open:
            return
        if not lane.waiting:
            self._sweep_held(self._policy.waiting_records)
        elif lane.rate is None:
            waiting, lane.waiting = lane.waiting, deque()
            self._requeue(envelope for _, envelope in waiting)
        else:
            self._offer_in_time(lane)

    def _offer_in_time(self, lane: AppLane) -> None:
        """Offer what waits for the lane's rate one by one, each when the rate lets it go."""
        if lane.rate is not None and lane.waiting and not lane.is_timed:
            lane.is_timed = True
            wait_s = max(lane.rate.wait_s(self._clock.monotonic()), LEAST_WAIT_S)
            asyncio.get_running_loop().call_later(wait_s, self._offer, lane)

    def _offer(self, lane: AppLane) -> None:
        lane.is_timed = False
        if lane.closed_for is None and lane.waiting:
            self._requeue([lane.waiting.popleft()[1]])
            self._offer_in_time(lane)

    # -- what waits has to go

    def clear_the_way(self, is_in_the_way: Callable[[Envelope], bool]) -> None:
        for lane in self._lanes.values():
            leaving = [envelope for _, envelope in lane.waiting if is_in_the_way(envelope)]
            if leaving:
                lane.waiting = deque(entry for entry in lane.waiting if entry[1] not in leaving)
                for envelope in leaving:
                    self.keep_back(lane, envelope, reason=lane.closed_for or "blocking", may_wait=False)

    def leave(self, assignments: set[Assignment]) -> None:
        """Let go of all records of *assignments* that wait."""
        for lane in self._lanes.values():
            kept = deque(entry for entry in lane.waiting if entry[1].assignment not in assignments)
            for _, envelope in lane.waiting:
                if envelope.assignment in assignments:
                    self._settlement.abandon(envelope)
            lane.waiting = kept
