"""One app's lane: what stops that app alone, and makes no dead letter (I7).

It closes on 401 and 403, until a probe succeeds; on a Retry-After, for as long as it says; when the app fails while
others are served; and for good if settings switch the app off.

While the lane is closed a few of its records wait in memory, for a bounded time, as the next probes; the rest goes to
the held topic unchanged. An app that settings switch off is never probed.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from consumer.core.breaker import Probes
from consumer.core.rate import Rate

Item = TypeVar("Item")

FAILING = "failing_answers"
"""Why a lane is closed whose app fails while others are served."""


@dataclass(frozen=True, slots=True)
class LanePolicy:
    waiting_records: int = 64
    waiting_s: float = 20.0
    probe_initial_s: float = 5.0
    probe_max_s: float = 60.0
    slow_share: float = 0.125
    """Of the requests on the wire, so much is for an app that answers slowly while others don't."""
    retry_share: float = 0.2
    """Further tries of an app, of its first tries."""


TICK_S = 0.25
"""How often waits in memory, probes and lanes are looked at."""
SLOW_RATIO = 4.0
SLOW_S = 0.1
"""An app is slow above so many times the usual latency, and so much more."""
FEW_RETRIES = 30.0
MANY_RETRIES = 100.0
"""What an app may always try again, and what it may have saved."""
_NEWS = 0.1
"""What the last answer counts in the mean of an app's latency."""


class Admission(Enum):
    """What to do with the next record of the app."""

    SEND = auto()
    PROBE = auto()
    """Send it; its answer decides over the lane."""
    WAIT = auto()
    HOLD = auto()


class Lane(Generic[Item]):
    """The state of one app's lane. `closed_for` is the reason, None while open."""

    __slots__ = (
        "_policy", "answered_tick", "answers_seen", "closed_for", "held_at", "is_switched_off", "is_timed", "latency_s",
        "on_the_wire", "probes", "rate", "retries", "slow_ticks", "waiting",
    )  # fmt: skip

    def __init__(self, policy: LanePolicy, *, switched_off: bool = False, rate: Rate | None = None) -> None:
        self._policy = policy
        self.rate = rate
        self.on_the_wire = 0
        self.latency_s = 0.0
        """The mean of its answers, the last ones counting most."""
        self.answered_tick = 0
        """When it had its last answer, in ticks: none passes while the process itself stands still."""
        self.slow_ticks = 0
        """For how many ticks its answers have been taking long, or have been missing."""
        self.answers_seen = 0
        """The answers of all apps when it had its last one: those since are others'."""
        self.retries = FEW_RETRIES
        """Further tries that it may make now."""
        self.held_at = float("-inf")
        """When a record of it went to the held topic, or came from there; monotonic seconds."""
        self.is_timed = False
        """A timer offers what waits for its rate."""
        self.is_switched_off = switched_off
        self.closed_for: str | None = "disabled" if switched_off else None
        self.probes = Probes(policy.probe_initial_s, policy.probe_max_s)
        self.waiting: deque[tuple[float, Item]] = deque()
        """(when its wait ends, record), oldest first."""

    def admit(self, now: float) -> Admission:
        """Decide over the next record of this app."""
        if self.closed_for is None:
            return Admission.SEND
        if self.is_switched_off:
            return Admission.HOLD
        if self.may_probe(now):
            self.probes.take(now)
            return Admission.PROBE
        return Admission.WAIT if self.has_room else Admission.HOLD

    def may_probe(self, now: float) -> bool:
        """Say whether the closed lane would let a probe go."""
        is_limited = self.rate is not None and self.rate.wait_s(now) > 0
        return not self.is_switched_off and not is_limited and self.probes.may_go(now)

    def begin(self, tick: int, answers: int) -> None:
        """Note a first try; *answers* is how many all apps have had so far."""
        if self.on_the_wire == 0:  # nothing was asked before, so that nothing could be answered
            self.answered_tick = tick
            self.answers_seen = answers
        if self.retries < MANY_RETRIES:
            self.retries += self._policy.retry_share

    @property
    def may_retry(self) -> bool:
        """One more further try is within the app's share."""
        return self.retries >= 1

    def retry(self) -> None:
        """Note a further try."""
        self.retries = max(0.0, self.retries - 1)

    def answered(self, latency_s: float, tick: int, answers: int) -> None:
        """Note an answer; *answers* as in `begin`, with this one."""
        self.latency_s += (latency_s - self.latency_s) * _NEWS
        self.answered_tick = tick
        self.answers_seen = answers

    @property
    def has_room(self) -> bool:
        """One more may wait in memory."""
        return len(self.waiting) < self._policy.waiting_records

    def wait(self, item: Item, now: float) -> None:
        self.waiting.append((now + self._policy.waiting_s, item))

    def refused(self, reason: str, now: float, *, probe: bool) -> bool:
        """Note a 401 or 403.

        Returns:
            Whether the lane closed by it.
        """
        if self.closed_for is None:
            self.closed_for = reason
            self.probes.start(now)
            return True
        if probe:
            self.probes.failed(now)
        return False

    def hold_off(self, until: float, *, probe: bool) -> bool:
        """Ask nothing before *until*, as a Retry-After wants.

        Returns:
            Whether the lane closed by it.
        """
        was_open = self.closed_for is None
        if was_open:
            self.closed_for = "retry_after"
            self.probes.start(until)
        self.probes.due_at = until if was_open else max(self.probes.due_at, until)
        if probe:
            self.probes.put_back()
        return was_open

    def accepted(self) -> bool:
        """Note that a probe was not refused.

        Returns:
            Whether the lane opened by it.
        """
        if self.closed_for is None or self.is_switched_off:
            return False
        self.closed_for = None
        return True
