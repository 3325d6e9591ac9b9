"""One app's lane: 401, 403 or a switched-off app stop that app alone, and make no dead letter (I7).

While the lane is closed a few of its records wait in memory, for a bounded time, as the next probes; the rest goes to
the held topic unchanged. An app that settings switch off is never probed.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from consumer.core.breaker import Probes

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class LanePolicy:
    waiting_records: int = 64
    waiting_s: float = 20.0
    probe_initial_s: float = 5.0
    probe_max_s: float = 60.0


class Admission(Enum):
    """What to do with the next record of the app."""

    SEND = auto()
    PROBE = auto()
    """Send it; its answer decides over the lane."""
    WAIT = auto()
    HOLD = auto()


class Lane(Generic[Item]):
    """The state of one app's lane. `closed_for` is the reason, None while open."""

    __slots__ = ("_policy", "closed_for", "is_switched_off", "probes", "waiting")

    def __init__(self, policy: LanePolicy, *, switched_off: bool = False) -> None:
        self._policy = policy
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
        if self.probes.take(now):
            return Admission.PROBE
        return Admission.WAIT if len(self.waiting) < self._policy.waiting_records else Admission.HOLD

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

    def accepted(self) -> bool:
        """Note that a probe was not refused.

        Returns:
            Whether the lane opened by it.
        """
        if self.closed_for is None or self.is_switched_off:
            return False
        self.closed_for = None
        return True
