"""One line per interval: what was done, how fast, what is left."""

from dataclasses import dataclass, field

from consumer.telemetry.logs import log
from consumer.telemetry.metrics import Metrics


@dataclass(slots=True)
class Progress:
    """Emits the `progress` line."""

    metrics: Metrics
    interval_s: float
    _at: float | None = field(default=None)
    _consumed: int = 0
    _delivered: int = 0

    def tell(self, now: float, *, in_flight: int, lag_records: int, connections: int, reading: str) -> bool:
        """Emit the line if it is due. *reading* is "yes", or why nothing is read."""
        if self._at is None:
            self._at = now
            return False
        passed = now - self._at
        if passed < self.interval_s:
            return False
        metrics = self.metrics
        consumed, delivered = metrics.events_consumed.total, metrics.events_delivered.total
        log.info(
            "progress",
            interval_s=round(passed, 1),
            consumed_per_s=round((consumed - self._consumed) / passed),
            delivered_per_s=round((delivered - self._delivered) / passed),
            consumed=consumed,
            delivered=delivered,
            filtered=metrics.events_filtered.total,
            retried=metrics.events_retried.total,
            held=metrics.events_held.total,
            dead_lettered=metrics.events_dead_lettered.total,
            in_flight=in_flight,
            lag_records=lag_records,
            connections=connections,
            reading=reading,
        )
        self._at, self._consumed, self._delivered = now, consumed, delivered
        return True
