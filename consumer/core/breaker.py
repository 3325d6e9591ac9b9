"""The endpoint's circuit breaker: when to stop asking Kochava, and when to ask again (I7, I8).

It opens at once on what only a wrong endpoint explains (3xx, 404, 410, TLS, DNS), on a failing share of the last
answers, and when too many 2xx cannot be understood: a changed success body must not send every purchase again. While
open, one probe at a time is let through, at growing intervals; the first answer of a working endpoint closes it.
"""

from dataclasses import dataclass, field

from consumer.core.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable, Unconfirmed
from consumer.core.window import ShareWindow


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    window_answers: int = 100
    min_answers: int = 20
    failing_share: float = 0.5
    unconfirmed_window: int = 1000
    unconfirmed_share: float = 0.01
    probe_initial_s: float = 1.0
    probe_max_s: float = 30.0


@dataclass(slots=True)
class Probes:
    """When the next probe is due: one at a time, at doubling intervals."""

    initial_s: float
    max_s: float
    interval_s: float = field(init=False)
    due_at: float = field(init=False, default=0.0)
    is_out: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.interval_s = self.initial_s

    def start(self, now: float) -> None:
        self.interval_s = self.initial_s
        self.due_at = now + self.interval_s
        self.is_out = False

    def failed(self, now: float) -> None:
        self.interval_s = min(self.interval_s * 2, self.max_s)
        self.due_at = max(self.due_at, now + self.interval_s)  # a Retry-After that came meanwhile may ask for more
        self.is_out = False

    def take(self, now: float) -> bool:
        """Say whether a probe may go now; it is then out until `failed`, `start` or `put_back`."""
        if self.is_out or now < self.due_at:
            return False
        self.is_out = True
        return True

    def may_go(self, now: float) -> bool:
        """Say whether `take` would let one go."""
        return not self.is_out and now >= self.due_at

    def put_back(self) -> None:
        """Forget a probe that ended without an answer (abandoned): another may go at once."""
        self.is_out = False


class Breaker:
    """Closed: everything passes. Open, with `reason`: nothing but one probe at a time."""

    __slots__ = ("_failing", "_policy", "_unconfirmed", "opened_at", "probes", "reason")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self.reason: str | None = None
        self.opened_at = 0.0
        self.probes = Probes(policy.probe_initial_s, policy.probe_max_s)
        self._failing = ShareWindow(policy.window_answers)
        self._unconfirmed = ShareWindow(policy.unconfirmed_window)

    @property
    def is_open(self) -> bool:
        return self.reason is not None

    def note(self, outcome: Outcome, now: float, *, probe: bool = False) -> bool:
        """Take *outcome* into account.

        Late answers to requests from before the opening decide nothing: only a *probe* can close the breaker.

        Returns:
            Whether the breaker opened or closed by it.
        """
        if self.reason is not None:
            if not probe:
                return False
            if _shows_a_working_endpoint(outcome):
                self.reason = None
                self._failing = ShareWindow(self._policy.window_answers)
                self._unconfirmed = ShareWindow(self._policy.unconfirmed_window)
                return True
            self.probes.failed(now)
            return False
        reason = self._count(outcome)
        if reason is None:
            return False
        self.reason = reason
        self.opened_at = now
        self.probes.start(now)
        return True

    def _count(self, outcome: Outcome) -> str | None:
        kind = type(outcome)
        self._failing.add(kind is Retryable)
        self._unconfirmed.add(kind is Unconfirmed)
        if kind is Delivered:
            return None  # none of the shares rose
        policy = self._policy
        if isinstance(outcome, Misconfigured) and outcome.scope == "endpoint":
            return outcome.reason
        if kind is Retryable:
            failing = self._failing
            if failing.total >= policy.min_answers and failing.share >= policy.failing_share:
                return "failing_answers"
        # counted against the whole window from the first answer on: eleven of the first hundred open it too
        if self._unconfirmed.marked > policy.unconfirmed_share * policy.unconfirmed_window:
            return "unconfirmed_answers"
        return None


def _shows_a_working_endpoint(outcome: Outcome) -> bool:
    match outcome:
        case Delivered() | Rejected():
            return True
        case Misconfigured():
            return outcome.scope == "app"  # the endpoint answered; that app's lane has its own gate
        case Retryable() | Unconfirmed():
            return False
