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


@dataclass(slots=True)
class Health:
    """What the probes answer from. *stuck_after_s* is longer than the longest step that either thread may take."""

    stuck_after_s: float = 120.0
    kafka_beat: float | None = None
    loop_beat: float | None = None
    is_started: bool = False
    not_ready: dict[str, str] = field(default_factory=dict)
    """Why we are not ready, by a short name."""

    def beat_kafka(self, now: float) -> None:
        self.kafka_beat = now

    def beat_loop(self, now: float) -> None:
        self.loop_beat = now

    def set_started(self) -> None:
        self.is_started = True

    def live(self, now: float) -> Verdict:
        beats = {"the Kafka thread": self.kafka_beat, "the event loop": self.loop_beat}
        stuck = tuple(
            f"{name} has not moved for {now - beat:.0f} s"
            for name, beat in beats.items()
            if beat is not None and now - beat > self.stuck_after_s
        )
        return Verdict(not stuck, stuck)

    def ready(self) -> Verdict:
        reasons = [f"{name}: {why}" for name, why in sorted(self.not_ready.items())]
        if not self.is_started:
            reasons.append("group: not joined yet")
        return Verdict(not reasons, tuple(reasons))

    def startup(self) -> Verdict:
        return Verdict(self.is_started, () if self.is_started else ("group: not joined yet",))
