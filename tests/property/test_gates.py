"""What stops and starts the flow, each against a model that keeps all it saw: breaker, lane and in-flight budget."""

from dataclasses import dataclass, field

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.core.breaker import Breaker, BreakerPolicy
from consumer.core.budget import InFlightBudget, Intake
from consumer.core.lane import FEW_RETRIES, Admission, Lane, LanePolicy
from consumer.core.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, Unconfirmed
from consumer.core.rate import Rate

FAILING = Retryable("http_503", 503)
ODD = Unconfirmed("not_json", 200)
WRONG_URL = Misconfigured("endpoint", "http_404", 404)
WRONG_KEY = Misconfigured("app", "http_401", 401)
OUTCOMES = [Delivered(), Delivered(), FAILING, FAILING, ODD, Rejected("http_400", 400), WRONG_KEY, WRONG_URL]
SHOW_LIFE = (Delivered, Rejected)
RATE_PER_S, RATE_BURST = 0.25, 2


@dataclass
class ProbeModel:
    """Every moment at which a wait began: the n-th failed probe is followed by 2^n times the first interval."""

    initial_s: float
    max_s: float
    began: list[float] = field(default_factory=list)
    is_out: bool = False
    told: list[float] = field(default_factory=list)
    """Every moment before which nothing may be asked, as a Retry-After said."""

    def may_go(self, now: float) -> bool:
        wait_s = min(self.initial_s * 2 ** (len(self.began) - 1), self.max_s)
        return not self.is_out and now >= max(self.began[-1] + wait_s, *self.told, 0.0)


class BreakerMachine(RuleBasedStateMachine):
    """I7 and I8. Small windows, so that a few dozen answers move it."""

    policy = BreakerPolicy(
        window_answers=6, min_answers=3, failing_share=0.5, unconfirmed_window=20, unconfirmed_share=0.1,
        probe_initial_s=1.0, probe_max_s=5.0,
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.policy)
        self.now = 0.0
        self.seen: list[Outcome] = []
        self.reason: str | None = None
        self.opened_at = 0.0
        self.probes = ProbeModel(1.0, 5.0)

    def reason_to_open(self) -> str | None:
        """From all answers since it last closed, the newest last."""
        newest = self.seen[-1]
        failing = [type(outcome) is Retryable for outcome in self.seen[-6:]]
        if newest == WRONG_URL:
            return "http_404"
        if type(newest) is Retryable and len(failing) >= 3 and sum(failing) / len(failing) >= 0.5:
            return "failing_answers"
        if sum(type(outcome) is Unconfirmed for outcome in self.seen[-20:]) > 2:
            return "unconfirmed_answers"
        return None

    @rule(outcome=st.sampled_from(OUTCOMES))
    def answer(self, outcome: Outcome) -> None:
        """While it is open, the answer to a request from before."""
        if self.reason is not None:
            assert not self.breaker.note(outcome, self.now), "a late answer decides nothing"
            return
        self.seen.append(outcome)
        self.reason = self.reason_to_open()
        assert self.breaker.note(outcome, self.now) == (self.reason is not None)
        if self.reason is not None:
            self.opened_at = self.now
            self.probes = ProbeModel(1.0, 5.0, [self.now])

    @rule(count=st.integers(2, 12))
    def many_are_delivered(self, count: int) -> None:
        for _ in range(count):
            self.answer(Delivered())

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0, 4.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.reason is not None)
    @rule()
    def ask_for_a_probe(self) -> None:
        may = self.probes.may_go(self.now)
        assert self.breaker.probes.take(self.now) == may
        self.probes.is_out |= may

    @precondition(lambda self: self.reason is not None and self.probes.is_out)
    @rule(outcome=st.sampled_from(OUTCOMES))
    def a_probe_is_answered(self, outcome: Outcome) -> None:
        works = type(outcome) in SHOW_LIFE or outcome == WRONG_KEY
        assert self.breaker.note(outcome, self.now, probe=True) == works
        if works:
            self.reason, self.seen = None, []
        else:
            self.probes.began.append(self.now)
            self.probes.is_out = False

    @precondition(lambda self: self.reason is not None and self.probes.is_out)
    @rule()
    def a_probe_is_abandoned(self) -> None:
        self.breaker.probes.put_back()
        self.probes.is_out = False

    @rule(cause=st.sampled_from([FAILING, ODD, WRONG_URL]), cure=st.sampled_from([Delivered(), WRONG_KEY]))
    def an_outage(self, cause: Outcome, cure: Outcome) -> None:
        """Much in one step, since hypothesis likes to leave out rules; and then the same begins again."""
        for _ in range(3):
            self.answer(cause)
        if self.reason is not None:
            self.time_passes(5.0)
            self.ask_for_a_probe()
            if self.probes.is_out:
                self.a_probe_is_answered(cure)
        self.answer(cause)

    @invariant()
    def it_is_as_its_model(self) -> None:
        assert (self.breaker.reason, self.breaker.is_open) == (self.reason, self.reason is not None)
        assert self.breaker.opened_at == self.opened_at
        if self.reason is not None:
            assert self.breaker.probes.is_out == self.probes.is_out


class LaneMachine(RuleBasedStateMachine):
    """I7: one app alone; a bounded number waits in memory; whoever is switched off is never asked.

    Nothing is asked before any Retry-After is over, nor above the rate, and further tries are a share of first ones.
    """

    policy = LanePolicy(waiting_records=2, waiting_s=10.0, probe_initial_s=2.0, probe_max_s=6.0)

    @initialize(switched_off=st.sampled_from([False, False, False, True]), has_rate=st.booleans())
    def begin(self, switched_off: bool, has_rate: bool) -> None:
        rate = Rate(RATE_PER_S, RATE_BURST) if has_rate else None
        self.lane = Lane[int](self.policy, switched_off=switched_off, rate=rate)
        self.switched_off = switched_off
        self.reason = "disabled" if switched_off else None
        self.now = 0.0
        self.number = 0
        self.waiting: list[tuple[float, int]] = []
        self.probes = ProbeModel(2.0, 6.0)
        self.asked: list[float] = []
        self.first_tries = self.further_tries = 0

    def is_limited(self) -> bool:
        """From all that was asked: a bucket that fills at its rate and is never fuller than its burst."""
        tokens, since = float(RATE_BURST), 0.0
        for at in [*self.asked, self.now]:
            tokens = min(tokens + (at - since) * RATE_PER_S, RATE_BURST) - 1
            since = at
        return self.lane.rate is not None and tokens < -1e-6

    def ask(self) -> None:
        self.asked.append(self.now)
        if self.lane.rate is not None:
            self.lane.rate.take(self.now)

    @rule()
    def a_record_comes(self) -> None:
        self.number += 1
        if self.reason is None:
            expected = Admission.SEND
        elif self.switched_off:
            expected = Admission.HOLD
        elif self.probes.may_go(self.now) and not self.is_limited():
            expected = Admission.PROBE
        else:
            expected = Admission.WAIT if len(self.waiting) < 2 else Admission.HOLD
        assert self.lane.admit(self.now) is expected
        if expected is Admission.PROBE:
            self.probes.is_out = True
            self.ask()
        if expected is Admission.WAIT:
            self.lane.wait(self.number, self.now)
            self.waiting.append((self.now + 10.0, self.number))

    @precondition(lambda self: self.reason is None)
    @rule(count=st.integers(1, 400))
    def first_tries_are_made(self, count: int) -> None:
        for _ in range(count):
            self.lane.begin(self.now, 0)
            self.first_tries += 1
        self.ask()

    @rule(count=st.integers(1, 200))
    def further_tries_are_wanted(self, count: int) -> None:
        for _ in range(count):
            if self.lane.may_retry:
                self.lane.retry()
                self.further_tries += 1

    @precondition(lambda self: self.waiting)
    @rule()
    def one_waits_no_longer(self) -> None:
        assert self.lane.waiting.popleft() == self.waiting.pop(0)

    @precondition(lambda self: not self.switched_off)
    @rule(reason=st.sampled_from(["http_401", "http_403"]))
    def refused(self, reason: str) -> None:
        """The answer to a record that was sent while the lane was open."""
        assert self.lane.refused(reason, self.now, probe=False) == (self.reason is None)
        if self.reason is None:
            self.reason = reason
            self.probes = ProbeModel(2.0, 6.0, [self.now])

    @precondition(lambda self: not self.switched_off)
    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 7.0]))
    def told_to_wait(self, seconds: float) -> None:
        """By the answer to a record that was sent while the lane was open; later ones may say less, or more."""
        assert self.lane.hold_off(self.now + seconds, probe=False) == (self.reason is None)
        if self.reason is None:
            self.reason = "retry_after"
            self.probes = ProbeModel(2.0, 6.0, [self.now + seconds - 2.0])
        self.probes.told.append(self.now + seconds)

    @precondition(lambda self: self.reason is not None and self.probes.is_out)
    @rule(seconds=st.sampled_from([1.0, 7.0]))
    def a_probe_is_told_to_wait(self, seconds: float) -> None:
        assert not self.lane.hold_off(self.now + seconds, probe=True)
        self.probes.told.append(self.now + seconds)
        self.probes.is_out = False

    @precondition(lambda self: self.reason is not None and self.probes.is_out)
    @rule(accepted=st.booleans())
    def a_probe_is_answered(self, accepted: bool) -> None:
        self.probes.is_out = False
        if accepted:
            assert self.lane.accepted()
            self.reason = None
        else:
            assert not self.lane.refused("http_403", self.now, probe=True)
            self.probes.began.append(self.now)

    @precondition(lambda self: not self.switched_off)
    @rule(wait_s=st.sampled_from([3.0, 7.0]), later=st.sampled_from([4.0, 6.0]), asked=st.integers(0, 2))
    def a_probe_is_refused_while_a_late_answer_says_wait(self, wait_s: float, later: float, asked: int) -> None:
        """Much in one step, as `an_outage` above; *asked*: so much of the rate is used up."""
        for _ in range(asked):
            self.ask()
        self.refused("http_401")
        self.time_passes(2.0)
        self.a_record_comes()
        self.told_to_wait(wait_s)
        if self.probes.is_out:
            self.a_probe_is_answered(accepted=False)
        self.time_passes(later)
        self.a_record_comes()

    @precondition(lambda self: self.reason is None or self.switched_off)
    @rule()
    def nothing_is_there_to_open(self) -> None:
        assert not self.lane.accepted()

    @rule(seconds=st.sampled_from([0.0, 1.0, 2.0, 4.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_is_as_its_model(self) -> None:
        assert self.lane.closed_for == self.reason
        assert list(self.lane.waiting) == self.waiting
        assert len(self.waiting) <= 2, "I6"
        assert self.further_tries <= FEW_RETRIES + self.policy.retry_share * self.first_tries + 1e-6


class BudgetMachine(RuleBasedStateMachine):
    """I6: two readers and the event loop, each with a view of the numbers that may be old."""

    @initialize(max_records=st.integers(1, 12), max_bytes=st.integers(1, 120))
    def begin(self, max_records: int, max_bytes: int) -> None:
        self.limits = (max_records, max_bytes)
        self.budget = InFlightBudget(max_records, max_bytes)
        self.intakes: list[Intake] = [self.budget.new_intake(), self.budget.new_intake()]
        self.room: list[int] = [0, 0]
        """What each reader found when it looked; it reads later, when the other may have read as well."""
        self.inside: list[int] = []
        self.closed_for: set[str] = set()

    @rule(reader=st.integers(0, 1))
    def look(self, reader: int) -> None:
        self.room[reader] = self.budget.room

    @rule(reader=st.integers(0, 1), sizes=st.lists(st.integers(0, 40), max_size=12))
    def read(self, reader: int, sizes: list[int]) -> None:
        taken = sizes[: self.room[reader]]
        self.room[reader] = 0
        self.intakes[reader].taken_records += len(taken)
        self.intakes[reader].taken_bytes += sum(taken)
        self.inside += taken

    @rule(reader=st.integers(0, 1), short_of=st.integers(0, 1))
    def fill_up(self, reader: int, short_of: int) -> None:
        """To the very last byte, or one less."""
        self.look(reader)
        self.read(reader, [max(0, self.limits[1] - sum(self.inside) - short_of)])

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        size = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
        self.budget.released_records += 1
        self.budget.released_bytes += size

    @rule(reason=st.sampled_from(["breaker", "forwarder"]), close=st.booleans())
    def a_gate(self, reason: str, close: bool) -> None:
        if close:
            self.budget.closed_for |= {reason}
            self.closed_for.add(reason)
        else:
            self.budget.closed_for -= {reason}
            self.closed_for.discard(reason)

    @invariant()
    def it_is_as_its_model(self) -> None:
        max_records, max_bytes = self.limits
        records, size_bytes = len(self.inside), sum(self.inside)
        assert (self.budget.records, self.budget.bytes) == (records, size_bytes)
        is_shut = bool(self.closed_for)
        assert self.budget.room == (0 if is_shut or size_bytes >= max_bytes else max(0, max_records - records))
        is_worth_it = 2 * records <= max_records and max_bytes - size_bytes >= max_bytes / 16  # half of so few
        assert self.budget.is_worth_reading == (is_worth_it and not is_shut)

    @invariant()
    def no_more_than_a_read_of_each_is_beyond_the_limit(self) -> None:
        assert len(self.inside) + sum(self.room) <= 2 * self.limits[0]


bounds = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestBreaker, TestLane, TestBudget = BreakerMachine.TestCase, LaneMachine.TestCase, BudgetMachine.TestCase
TestBreaker.settings = TestLane.settings = TestBudget.settings = bounds
