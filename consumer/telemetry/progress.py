"""One line per interval: what was done, how fast, what is left."""

from dataclasses import dataclass
from typing import NamedTuple

from consumer.telemetry.logs import log
from consumer.telemetry.metrics import Metrics


class _Look(NamedTuple):
    at: float
    consumed: int
    delivered: int


@dataclass(slots=True)
class Progress:
    """Emits the `progress` line. The first interval begins with the first `tell`."""

    metrics: Metrics
    interval_s: float
    _last: _Look | None = None

    def tell(self, now: float, *, in_flight: int, lag_records: int, connections: int, reading: str) -> bool:
        """Emit the line if it is due. *reading* is "yes", or why nothing is read."""
        last = self._last
        if last is not None and now - last.at < self.interval_s:
            return False
        metrics = self.metrics
        look = _Look(now, metrics.events_consumed.total, metrics.events_delivered.total)
        self._last = look
        if last is None:
            return False
        passed = now - last.at
        log.info(
            "progress",
            interval_s=round(passed, 1),
            consumed_per_s=round((look.consumed - last.consumed) / passed, 1),
            delivered_per_s=round((look.delivered - last.delivered) / passed, 1),
            consumed=look.consumed,
            delivered=look.delivered,
            filtered=metrics.events_filtered.total,
            retried=metrics.events_retried.total,
            held=metrics.events_held.total,
            dead_lettered=metrics.events_dead_lettered.total,
            in_flight=in_flight,
            lag_records=lag_records,
            connections=connections,
            reading=reading,
        )
        return True
