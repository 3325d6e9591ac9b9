"""Is the process alive, ready, started? Plain fields, written by whoever knows, read by the probes.

Liveness looks at our own two threads and nothing else: a restart because a broker or Kochava is away would turn an
outage into a storm of rebalances.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


class Verdict(NamedTuple):
    """A probe's answer: whether it is well, and why not, one reason a line."""

    is_well: bool
    reasons: tuple[str, ...] = ()


_NOT_JOINED = "group: not joined yet"


@dataclass(slots=True)
class Health:
    """What the probes answer from. *stuck_after_s* is longer than the longest step that either thread may take."""

    stuck_after_s: float = 120.0
    kafka_heartbeat: float | None = None
    """Monotonic seconds of the Kafka thread's last round; None before its first."""
    loop_heartbeat: float | None = None
    is_started: bool = False
    reasons_not_ready: dict[str, str] = field(default_factory=dict)
    """By a short name, such as breaker, dead_letter_guard, shutdown."""

    def beat_kafka(self, now: float) -> None:
        self.kafka_heartbeat = now

    def beat_loop(self, now: float) -> None:
        self.loop_heartbeat = now

    def set_started(self) -> None:
        self.is_started = True

    def not_ready(self, name: str, why: str) -> None:
        """Answer 503 on /readyz because of *why*, until `ready_again` with the same *name*."""
        self.reasons_not_ready[name] = why

    def ready_again(self, name: str) -> None:
        self.reasons_not_ready.pop(name, None)

    def live(self, now: float) -> Verdict:
        """Judge by our own two threads. One that has not begun is the startup probe's affair."""
        beats = {"the Kafka thread": self.kafka_heartbeat, "the event loop": self.loop_heartbeat}
        stuck = tuple(
            f"{name} has not moved for {now - beat:.0f} s"
            for name, beat in beats.items()
            if beat is not None and now - beat > self.stuck_after_s
        )
        return Verdict(not stuck, stuck)

    def ready(self) -> Verdict:
        reasons = [f"{name}: {why}" for name, why in sorted(self.reasons_not_ready.items())]
        if not self.is_started:
            reasons.append(_NOT_JOINED)
        return Verdict(not reasons, tuple(reasons))

    def startup(self) -> Verdict:
        return Verdict(self.is_started, () if self.is_started else (_NOT_JOINED,))
